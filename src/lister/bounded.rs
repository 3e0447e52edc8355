//! [`Bounded`]: a lister whose calls always return, whatever the inner lister does.
//!
//! Hosts may implement [`Lister`], and their code can panic or block forever. So each call
//! runs on a thread of its own, and the caller waits for it only for a limited time. A
//! blocked thread cannot be ended. Until it returns, no other call of the same method is
//! made, so that blocked threads do not accumulate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{FailureReason, ListRequest, Lister, LookUpRequest, MAX_OVERRUN, Outcome, until};
use crate::wire::Answers;

/// How much longer than its deadline a call may take: the overrun that [`Lister`] permits,
/// and one second for a loaded machine.
const GRACE: Duration = MAX_OVERRUN.saturating_add(Duration::from_secs(1));

type Inner = Arc<dyn Lister + Send + Sync>;

/// Runs the calls of an inner lister on other threads and bounds their duration.
pub(crate) struct Bounded {
    inner: Inner,
    late_lists: LateCalls,
    late_look_ups: LateCalls,
}

/// The number of calls that exceeded their time and have not returned.
type LateCalls = Arc<AtomicUsize>;

/// A running call, owned by its thread.
struct Call {
    late_calls: LateCalls,
    /// Set by the first of two events: the call returns, or the caller counts it as late.
    is_settled: Arc<AtomicBool>,
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.is_settled.swap(true, Ordering::AcqRel) {
            self.late_calls.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Bounded {
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner,
            late_lists: LateCalls::default(),
            late_look_ups: LateCalls::default(),
        }
    }

    fn call<T: Send + 'static>(
        &self,
        late_calls: &LateCalls,
        deadline: Duration,
        call_inner: impl FnOnce(&Inner) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        if late_calls.load(Ordering::Acquire) > 0 {
            return Outcome::Failed(FailureReason::PreviousCallPending.into());
        }
        let until = until(deadline) + GRACE;
        let is_settled = Arc::new(AtomicBool::new(false));
        let call = Call {
            late_calls: Arc::clone(late_calls),
            is_settled: Arc::clone(&is_settled),
        };
        let inner = Arc::clone(&self.inner);
        let (sender, outcome) = mpsc::channel();
        // The helper is killed when its spawning thread ends; the call blocks this thread
        // until the helper has exited.
        let thread = thread::Builder::new().name("lister".into()).spawn(move || {
            let call = call;
            let _ = sender.send(call_inner(&inner));
            drop(call);
        });
        if let Err(error) = thread {
            let message = format!("cannot spawn a thread for the listing: {error}");
            return Outcome::Failed(FailureReason::Thread(message).into());
        }
        match outcome.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(outcome) => outcome,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Outcome::Failed(FailureReason::Panicked.into())
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                late_calls.fetch_add(1, Ordering::AcqRel);
                if is_settled.swap(true, Ordering::AcqRel) {
                    // The call has returned since the wait ended.
                    late_calls.fetch_sub(1, Ordering::AcqRel);
                }
                Outcome::Failed(FailureReason::DeadlineIgnored(deadline).into())
            }
        }
    }
}

impl Lister for Bounded {
    fn list(&self, request: &ListRequest) -> Outcome {
        let request = request.clone();
        self.call(&self.late_lists, request.deadline, move |inner| {
            inner.list(&request)
        })
    }

    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers> {
        let request = request.clone();
        self.call(&self.late_look_ups, request.deadline, move |inner| {
            inner.look_up(&request)
        })
    }

    fn stuck(&self) -> usize {
        let late = [&self.late_lists, &self.late_look_ups]
            .map(|late_calls| late_calls.load(Ordering::Acquire));
        let inner = catch_unwind(AssertUnwindSafe(|| self.inner.stuck()));
        late.iter().sum::<usize>() + inner.unwrap_or(0)
    }
}
