//! A lister that always answers, whatever the one within it does.
//!
//! [`Lister`] is open to hosts, and what one of theirs does is not ours: it can panic, it
//! can block for ever. So each call is made on a thread of its own and waited for only so
//! long. A thread that does not come back cannot be ended; until it does, no other call of
//! its kind is made, so that there are never many.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{FailureReason, ListRequest, Lister, LookUpRequest, Outcome, until};
use crate::wire::Answers;

/// How much longer than its deadline a call may take: the second that a lister is promised,
/// and one for a machine that is busy.
const GRACE: Duration = Duration::from_secs(2);

type Inner = Arc<dyn Lister + Send + Sync>;

/// See the module.
pub(crate) struct Bounded {
    inner: Inner,
    lists: Late,
    look_ups: Late,
}

/// How many calls have not come back in time.
type Late = Arc<AtomicUsize>;

/// A call, on its thread.
struct Call {
    late: Late,
    /// It has come back, or is counted as late.
    over: Arc<AtomicBool>,
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.over.swap(true, Ordering::AcqRel) {
            self.late.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Bounded {
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner,
            lists: Late::default(),
            look_ups: Late::default(),
        }
    }

    fn call<T: Send + 'static>(
        &self,
        late: &Late,
        deadline: Duration,
        ask: impl FnOnce(&Inner) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        if late.load(Ordering::Acquire) > 0 {
            return Outcome::Failed(FailureReason::NotReturned.into());
        }
        let until = until(deadline) + GRACE;
        let over = Arc::new(AtomicBool::new(false));
        let call = Call {
            late: Arc::clone(late),
            over: Arc::clone(&over),
        };
        let inner = Arc::clone(&self.inner);
        let (to, outcome) = mpsc::channel();
        // A helper dies with the thread that launched it: this one waits for it.
        let thread = thread::Builder::new().name("lister".into()).spawn(move || {
            let call = call;
            let _ = to.send(ask(&inner));
            drop(call);
        });
        if let Err(error) = thread {
            let why = format!("no thread to list with: {error}");
            return Outcome::Failed(FailureReason::NoThread(why).into());
        }
        match outcome.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(outcome) => outcome,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Outcome::Failed(FailureReason::Panicked.into())
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                late.fetch_add(1, Ordering::AcqRel);
                if over.swap(true, Ordering::AcqRel) {
                    // It came back at the last moment.
                    late.fetch_sub(1, Ordering::AcqRel);
                }
                Outcome::Failed(FailureReason::Overdue(deadline).into())
            }
        }
    }
}

impl Lister for Bounded {
    fn list(&self, request: &ListRequest) -> Outcome {
        let request = request.clone();
        self.call(&self.lists, request.deadline, move |inner| {
            inner.list(&request)
        })
    }

    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers> {
        let request = request.clone();
        self.call(&self.look_ups, request.deadline, move |inner| {
            inner.look_up(&request)
        })
    }

    fn stuck(&self) -> usize {
        let late = [&self.lists, &self.look_ups].map(|late| late.load(Ordering::Acquire));
        let inner = catch_unwind(AssertUnwindSafe(|| self.inner.stuck()));
        late.iter().sum::<usize>() + inner.unwrap_or(0)
    }
}
