//! Getting a listing: launch the helper, check what it says, and be rid of it by
//! the deadline, whatever it does.
//!
//! A [`Lister`] answers with an [`Outcome`], and never with half a listing. What
//! the helper *said* went wrong ([`Outcome::Refused`]) and what went wrong *with
//! the helper* ([`Outcome::Failed`], [`Outcome::TimedOut`]) are different
//! things; none of them says anything about which sessions exist.
//!
//! [`ProcessLister`] is the one to use. [`InProcessLister`] is for tests, and for
//! embedders that know what they give up.
//!
//! Only this room starts processes.
mod bounded;
mod failure;
mod outcome;
mod request;

use crate::wire::Answers;

pub(crate) use bounded::Bounded;
pub use failure::{Failure, FailureReason};
pub(crate) use outcome::outcome_of;
pub use outcome::{Outcome, Refusal, Timeout};
pub use request::{Cancel, ListRequest, LookUpRequest, SCAN_BUDGET, ScanCache, default_threads};
pub(crate) use request::{MOST_THREADS, until};

/// Something that lists sessions.
///
/// A [service](crate::service) goes on where a lister panics, or blocks for longer than
/// the next method says; that is then a failed listing, and while the call does not
/// return, no other of its kind is made.
pub trait Lister {
    /// One listing. Blocks until the request's deadline, and at most one second
    /// longer: call it from a thread that may wait.
    ///
    /// That thread must live as long as the call, which it does by itself: on
    /// Linux a helper dies with the *thread* that launched it.
    fn list(&self, request: &ListRequest) -> Outcome;

    /// Looks sessions up by their ids. As [`list`](Self::list) otherwise.
    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers>;

    /// How many helpers of earlier listings were killed and do not die, because
    /// the kernel holds them.
    fn stuck(&self) -> usize {
        0
    }
}
