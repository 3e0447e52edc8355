//! The launcher with a helper that misbehaves, and what must be left of it: nothing.

use std::fs;
use std::time::{Duration, Instant};

use opencode_sessions::internals::text::is_unsafe_on_terminal;
use opencode_sessions::internals::wire::{Listing, Progress};
use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{
    Failure, FailureReason, ListRequest, Lister, Outcome, Refusal, Timeout,
};
use rustix::process::{Pid, Signal};

use crate::support;

/// For a helper that is not done by then.
pub(crate) const SHORT: Duration = Duration::from_millis(1500);

/// For one that is done long before, on a machine that is busy.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// What the caller is promised on top of the deadline.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Where one misbehaving helper lives. Nothing it started survives it.
pub(crate) struct Place(pub(crate) tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The helper, and the processes it started.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        let pids = fs::read_to_string(self.0.path().join("pids")).unwrap_or_default();
        pids.lines()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
            .collect()
    }

    /// The helper is reaped, and what else it started is at its end: who reaps
    /// that is not ours to say.
    pub(crate) fn assert_no_process_is_left(&self) {
        let pids = self.pids();
        for (at, pid) in pids.into_iter().enumerate() {
            assert!(at > 0 || !is_child(pid), "the helper is not reaped");
            let what = format!("the end of process {at}, {pid}");
            support::eventually(Duration::from_secs(5), &what, || !is_running(pid));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.pids() {
            if is_running(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// True for a child of this process, also a dead one that is not reaped.
pub(crate) fn is_child(pid: Pid) -> bool {
    if cfg!(target_os = "linux") {
        let parent = stat(pid).map(|(_, parent)| parent);
        parent == Some(std::process::id())
    } else {
        rustix::process::test_kill_process(pid).is_ok()
    }
}

/// True for a process of a misbehaving helper that lives.
pub(crate) fn is_running(pid: Pid) -> bool {
    if cfg!(target_os = "linux") {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.ends_with("misbehaving-lister")
            && stat(pid).is_some_and(|(state, _)| !"ZX".contains(state))
    } else {
        rustix::process::test_kill_process(pid).is_ok()
    }
}

/// A process's state and its parent.
pub(crate) fn stat(pid: Pid) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets can hold anything.
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace();
    let state = after_name.next()?.chars().next()?;
    Some((state, after_name.next()?.parse().ok()?))
}

/// Lists with the helper that misbehaves in this way, and sees to it that the
/// promises that hold for all of them are kept.
pub(crate) fn outcome(way: &str, deadline: Duration) -> Outcome {
    let place = Place::new();
    let outcome = outcome_in(&place, way, deadline);
    place.assert_no_process_is_left();
    outcome
}

pub(crate) fn outcome_in(place: &Place, way: &str, deadline: Duration) -> Outcome {
    let lister = ProcessLister::at(support::misbehaving(place.0.path(), way));
    let request = ListRequest::of("/nowhere/opencode.db").deadline(deadline);
    let outcome = timely(&lister, &request);
    assert_eq!(lister.stuck(), 0, "{way}: {outcome}");
    outcome
}

/// Lists, and sees to it that it does not take longer than promised.
pub(crate) fn timely(lister: &impl Lister, request: &ListRequest) -> Outcome {
    let started = Instant::now();
    let outcome = lister.list(request);
    let took = started.elapsed();
    assert!(took <= request.deadline + GRACE, "{took:?}: {outcome}");
    if !matches!(outcome, Outcome::Complete(_)) {
        assert_is_one_sentence(&outcome);
    }
    outcome
}

#[track_caller]
fn assert_is_one_sentence(outcome: &Outcome) {
    let said = outcome.to_string();
    let one_line = !said.chars().any(is_unsafe_on_terminal);
    assert!(one_line && said.len() > 10, "{said:?}");
    assert!(!said.ends_with('.') && said.trim() == said, "{said:?}");
}

#[track_caller]
pub(crate) fn listing(outcome: Outcome) -> Listing {
    match outcome {
        Outcome::Complete(listing) => listing,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn refused(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn broken(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn timed_out(outcome: Outcome) -> Timeout {
    match outcome {
        Outcome::TimedOut(timeout) => timeout,
        other => panic!("{other:?}"),
    }
}

/// The helper that misbehaves in this way breaks like this, and the sentence
/// says so.
#[track_caller]
pub(crate) fn assert_breaks(way: &str, what: &FailureReason, saying: &str) {
    let outcome = outcome(way, LONG);
    let said = outcome.to_string();
    assert_eq!(broken(outcome).reason, *what, "{way}");
    assert!(said.contains(saying), "{way}: {said:?}");
}

/// The helper that misbehaves in this way is stopped at its deadline.
#[track_caller]
pub(crate) fn assert_times_out(way: &str, progress: Progress, saying: &str) {
    let outcome = outcome(way, SHORT);
    let said = outcome.to_string();
    let timeout = timed_out(outcome);
    assert_eq!(timeout.progress, progress, "{way}");
    assert_eq!(timeout.deadline, SHORT, "{way}");
    for part in ["did not finish within 1.5s", saying] {
        assert!(said.contains(part), "{way}: {said:?}");
    }
}
