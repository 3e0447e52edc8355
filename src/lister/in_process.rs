//! Listing within this process, for tests and for embedders that cannot launch
//! programs. The only place of the main process that reaches the database.
//!
//! What it gives up: a crash of SQLite is a crash of the host, memory is the
//! host's, and a read that the disk does not answer blocks the calling thread
//! past its deadline, which is looked at only between SQLite's instructions.
//!
//! Hosts that have connections of their own to the same file must not use it:
//! POSIX locks belong to a process, and closing the descriptor that this lister
//! opens drops the locks of every other connection
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2). For the same reason
//! it makes one listing at a time, however many threads ask.

use std::io;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Broke, ListRequest, Lister, LookUpRequest, Outcome, Timeout, outcome_of, until};
use crate::helper::listing::{self, Ended};
use crate::helper::look_up;
use crate::locate;
use crate::marker;
use crate::store::{Filter, OpenOptions};
use crate::wire::{Answers, Asked, Checked, Content, Progress, Sessions, Writer};

/// True while a thread lists.
static TAKEN: Mutex<bool> = Mutex::new(false);
static GIVEN_BACK: Condvar = Condvar::new();

/// The right to list, given back when it is dropped.
struct Turn;

impl Turn {
    /// Waits for it, but not past the deadline.
    fn take(deadline: Instant) -> Option<Self> {
        let left = deadline.saturating_duration_since(Instant::now());
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, _) = GIVEN_BACK
            .wait_timeout_while(taken, left, |taken| *taken)
            .unwrap_or_else(PoisonError::into_inner);
        (!std::mem::replace(&mut *taken, true)).then(|| Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        GIVEN_BACK.notify_one();
    }
}

/// Lists within this process; see the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcessLister;

impl Lister for InProcessLister {
    fn list(&self, request: &ListRequest) -> Outcome {
        let sessions = Sessions::new(request.bounded_first_prompt_limit());
        in_turn(request.deadline, sessions, |deadline, out| {
            listing::list(&listing_task(request, deadline), out, io::sink())
        })
    }

    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers> {
        let limit = request.bounded_first_prompt_limit();
        let asked = Asked::new(request.what, &request.ids).first_prompt_limit(limit);
        in_turn(request.deadline, asked, |deadline, out| {
            let task = look_up::Task {
                db: database(request.db.as_ref()),
                what: request.what,
                ids: request.ids.clone(),
                first_prompt_limit: limit,
                open: options(request.busy_timeout(), deadline),
            };
            look_up::look_up(&task, out)
        })
    }
}

/// The listing, in the time that is left until the deadline.
fn listing_task(request: &ListRequest, deadline: Instant) -> listing::Task {
    let left = deadline.saturating_duration_since(Instant::now());
    let db = database(request.db.as_ref());
    let cache = request.scan_cache.clone();
    listing::Task {
        marker: marker::Options {
            marker: request.marker.clone(),
            cache: cache.and_then(|cache| cache.prepare(db.as_ref()?)),
            budget: Some(request.bounded_scan_budget(left)),
            threads: super::default_threads(),
        },
        filter: Filter {
            children: request.children,
            archived: request.archived,
        },
        open: options(request.busy_timeout(), deadline),
        first_prompt_limit: request.bounded_first_prompt_limit(),
        db,
    }
}

/// The database; where several are found, none is.
fn database(asked: Option<&PathBuf>) -> Option<PathBuf> {
    asked
        .cloned()
        .or_else(|| locate::one_database().ok().flatten())
}

fn options(busy_timeout: Duration, deadline: Instant) -> OpenOptions {
    OpenOptions {
        busy_timeout,
        heap_limit: None,
        deadline: Some(deadline),
    }
}

/// Does the helper's work when it is this thread's turn, and checks what it says.
fn in_turn<C: Content>(
    deadline: Duration,
    content: C,
    work: impl FnOnce(Instant, Writer<&mut Checked<C>>) -> io::Result<Ended>,
) -> Outcome<C::Whole> {
    let until = until(deadline);
    let timed_out = |progress| {
        Outcome::TimedOut(Timeout {
            deadline,
            progress,
            elsewhere: false,
            stderr: String::new(),
        })
    };
    let Some(_turn) = Turn::take(until) else {
        return timed_out(Progress::Nothing);
    };
    let mut checked = Checked::of(content);
    let mut writer = Writer::new(&mut checked);
    // A failed write is a violation, which `finish` returns.
    if writer.hello().is_ok() {
        let _ = work(until, writer);
    }
    let progress = Progress::Sessions(checked.count());
    match checked.finish().map(outcome_of) {
        Ok(Outcome::Refused(_)) if Instant::now() >= until => timed_out(progress),
        Ok(outcome) => outcome,
        Err(violation) => Outcome::Broken(Broke::Wire(violation).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The time left can be much less than the request's deadline: another listing had
    /// its turn.
    #[test]
    fn scan_has_at_most_half_of_the_time_left() {
        let seconds = Duration::from_secs;
        let request = |scan_budget, first_prompt_limit| ListRequest {
            scan_budget,
            first_prompt_limit,
            deadline: seconds(100),
            ..ListRequest::of("/x")
        };
        let task = |request: &ListRequest, left: Duration| {
            let task = listing_task(request, Instant::now() + left);
            (task.marker.budget.unwrap(), task.first_prompt_limit)
        };
        let (budget, limit) = task(&request(None, 0), seconds(60));
        // A busy machine takes its time from one look at the clock to the next.
        assert!(budget <= seconds(30) && budget > seconds(20), "{budget:?}");
        assert_eq!(limit, 1);
        let (budget, limit) = task(&request(Some(seconds(2)), 4_000), seconds(60));
        assert_eq!((budget, limit), (seconds(2), 4_000));
        let (budget, _) = task(&request(Some(seconds(2)), 200), Duration::ZERO);
        assert_eq!(budget, Duration::from_millis(1));
    }
}
