//! Listing within this process.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use opencode_sessions::in_process::InProcessLister;
use opencode_sessions::internals::wire::{ErrorKind, OptionalPart, Progress};
use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{ListRequest, Lister, Outcome};
use opencode_sessions::marker_text::MarkerText;

use crate::common::{GRACE, SHORT, listing, refused, timed_out, timely};
use crate::real::{ids, locked, two_sessions};
use crate::support::{self, Made, endless};

/// Listings within the process wait for each other: one test at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often this process has a database open.
fn times_open(db: &Path) -> usize {
    let db = db.canonicalize().unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap();
    open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|file| *file == db)
        .count()
}

/// Waits until a listing within this process has opened it, too.
fn until_more_open(db: &Path, before: usize) {
    support::eventually(Duration::from_secs(10), "an open database", || {
        !cfg!(target_os = "linux") || times_open(db) > before
    });
}

#[test]
fn in_process_listing_equals_the_helpers() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = two_sessions(MarkerText::DEFAULT);
    let empty = Made::of("CREATE TABLE unrelated (x)");
    let absent = made.directory.path().join("absent.db");
    for db in [&made.db, &empty.db, &absent] {
        let request = ListRequest::of(db);
        let lister = ProcessLister::at(support::lister());
        let theirs = listing(timely(&lister, &request));
        let mut ours = listing(timely(&InProcessLister, &request));
        // The time differs, and with it the number of its digits.
        ours.end.elapsed_ms = theirs.end.elapsed_ms;
        assert!(ours.bytes.abs_diff(theirs.bytes) < 8);
        ours.bytes = theirs.bytes;
        assert_eq!(ours, theirs);
    }
    let refusal = refused(timely(
        &InProcessLister,
        &ListRequest::of(made.directory.path()),
    ));
    assert_eq!(refusal.error.kind, ErrorKind::NotADatabase);
}

#[test]
fn in_process_locked_database_ends_by_the_deadline() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = locked();
    let request = ListRequest::of(&made.db).deadline(SHORT);
    match timely(&InProcessLister, &request) {
        Outcome::Refused(refusal) => assert_eq!(refusal.error.kind, ErrorKind::Busy),
        other => drop(timed_out(other)),
    }
}

#[test]
fn in_process_endless_query_ends_by_the_deadline() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = endless();
    let request = ListRequest::of(&made.db).deadline(SHORT);
    match timely(&InProcessLister, &request) {
        // What is interrupted is optional: the listing can also end without it.
        Outcome::Complete(listing) => {
            assert_eq!(listing.end.degraded[0].what, OptionalPart::Worktree);
        }
        other => assert_eq!(timed_out(other).progress, Progress::Sessions(0)),
    }
}

#[test]
fn in_process_listings_of_two_databases_run_in_parallel() {
    let _limit = support::limit(60);
    let _turn = alone();
    let (slow, other) = (endless(), two_sessions(""));
    let slow_db = slow.db.as_path();
    thread::scope(|scope| {
        let slow = ListRequest::of(slow_db).deadline(Duration::from_secs(4));
        let before = times_open(slow_db);
        let slow = scope.spawn(move || InProcessLister.list(&slow));
        until_more_open(slow_db, before);
        assert!(!slow.is_finished());
        let listed = listing(timely(&InProcessLister, &ListRequest::of(&other.db)));
        assert_eq!(ids(&listed), ["ses_2", "ses_1"]);
        assert!(!slow.is_finished(), "it waited for the other database");
    });
}

/// A listing waits for that of another thread no longer than its own deadline.
#[test]
fn in_process_wait_for_another_thread_ends_in_time() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = endless();
    let request = |deadline| ListRequest::of(&made.db).deadline(deadline);
    thread::scope(|scope| {
        let before = times_open(&made.db);
        scope.spawn(|| timely(&InProcessLister, &request(Duration::from_secs(4))));
        until_more_open(&made.db, before);
        let started = Instant::now();
        let outcome = InProcessLister.list(&request(SHORT));
        let took = started.elapsed();
        assert!(took <= SHORT + GRACE, "{took:?}: {outcome}");
    });
}
