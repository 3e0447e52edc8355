//! The [`Lister`] trait: what a listing is asked for and how it ends.
//!
//! A [`Lister`] returns an [`Outcome`], never a partial listing. An error that the helper
//! *reports* ([`Outcome::Refused`]) and a failure *of the helper* ([`Outcome::Failed`],
//! [`Outcome::TimedOut`]) are different variants. None of them says anything about which
//! sessions exist.
//!
//! Use [`ProcessLister`](crate::launch::ProcessLister), which spawns the helper.
//! `in_process::InProcessLister` is for tests and for embedders that
//! cannot spawn processes and accept its limits.

mod bounded;
mod differences;
mod failure;
mod outcome;
mod request;

use std::time::Duration;

pub(crate) use bounded::Bounded;
pub(crate) use differences::list_or_ask_for_all;
pub use failure::{Failure, FailureReason};
pub(crate) use outcome::outcome_of;
pub use outcome::{Outcome, Refusal, Timeout};
pub(crate) use request::{BUSY_TIMEOUTS_MS, CPU_LIMITS_SECONDS, SCAN_BUDGETS_MS, until};
pub use request::{Cancel, ListRequest, LookUpRequest, SCAN_BUDGET, ScanCache};

pub use crate::threads::default_threads;
pub use crate::wire::{
    Answer, Answers, AnswersEnd, DatabaseState, Degraded, End, ErrorKind, HelperError, Listing,
    LookUp, OptionalPart, Progress, Scan, ScanMode, Skipped, Unresolved, Violation, limits,
};

/// The longest time after its deadline that a call of a [`Lister`] may take.
pub(crate) const MAX_OVERRUN: Duration = Duration::from_secs(1);

/// Lists sessions and looks them up.
///
/// If an implementation panics, or blocks for longer than documented below, the
/// [service](crate::service) counts a failed listing and continues. Until a blocked call
/// returns, the service makes no other call of the same method.
pub trait Lister {
    /// Lists the sessions of one database. Blocks until the request's deadline, and at most
    /// one second longer; call it from a thread that may block.
    ///
    /// On Linux the system kills a helper when the *thread* that spawned it ends. A call
    /// blocks its thread, so the thread cannot end before the helper.
    fn list(&self, request: &ListRequest) -> Outcome;

    /// Looks up sessions by their ids. Blocks as [`list`](Self::list) does.
    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers>;

    /// Returns how many helpers of earlier calls were killed but have not exited, because
    /// they are in an uninterruptible system call.
    fn stuck(&self) -> usize {
        0
    }
}
