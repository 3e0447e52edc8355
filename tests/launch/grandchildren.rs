//! Children of the helper, which may hold its pipes.

use std::thread;
use std::time::{Duration, Instant};

use opencode_sessions::internals::wire::Progress;
use opencode_sessions::lister::{FailureReason, Outcome};

use crate::common::{
    LONG, Place, SHORT, broken, is_child, is_running, listing, outcome, outcome_in, stat, timed_out,
};
use crate::support;

#[test]
fn grandchild_dies_with_the_group() {
    let _limit = support::limit(60);
    let held = outcome("grandchild-holds-the-pipe", LONG);
    let said = held.to_string();
    assert_eq!(broken(held).reason, FailureReason::OutputHeld);
    assert!(said.contains("another process still holds"), "{said:?}");
    let hanging = outcome("grandchild-of-a-hanging-helper", SHORT);
    assert_eq!(timed_out(hanging).progress, Progress::Sessions(0));
}

/// It is in a process group of its own, so that it is not killed.
#[test]
fn grandchild_holding_the_pipe_delays_nothing() {
    let _limit = support::limit(60);
    let place = Place::new();
    let way = "grandchild-of-another-group-holds-the-pipe";
    let started = Instant::now();
    let outcome = outcome_in(&place, way, LONG);
    assert_eq!(broken(outcome).reason, FailureReason::OutputHeld);
    assert!(started.elapsed() < LONG, "it was not waited for");
    let [helper, grandchild] = place.pids()[..] else {
        panic!("{:?}", place.pids());
    };
    assert!(!is_child(helper));
    assert!(is_running(grandchild), "it is in no group of ours");
}

#[test]
fn pipe_held_at_the_deadline_is_a_timeout() {
    let _limit = support::limit(60);
    let place = Place::new();
    let way = "grandchild-of-another-group-holds-the-pipe";
    match outcome_in(&place, way, Duration::from_millis(300)) {
        Outcome::TimedOut(_) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn grandchild_holding_stderr_spares_the_listing() {
    let _limit = support::limit(60);
    let listing = listing(outcome("grandchild-holds-only-stderr", LONG));
    assert_eq!(listing.rows.len(), 3);
}

#[test]
fn output_ending_after_the_helper_is_waited_for() {
    let _limit = support::limit(60);
    let listing = listing(outcome("grandchild-prints-the-end", LONG));
    assert_eq!(listing.rows.len(), 3);
}

#[cfg(target_os = "linux")]
#[test]
fn group_is_killed_before_its_leader_is_reaped() {
    let _limit = support::limit(60);
    let place = Place::new();
    thread::scope(|scope| {
        let listing = scope.spawn(|| outcome_in(&place, "grandchild-holds-the-pipe", LONG));
        let mut seen_dead = false;
        while !listing.is_finished() {
            if let [leader, grandchild] = place.pids()[..] {
                // The leader first: both may end between the two looks.
                let leader = stat(leader).map(|(state, _)| state);
                let alive = is_running(grandchild);
                assert!(
                    leader.is_some() || !alive,
                    "the leader's id is free, and may soon be another group's"
                );
                seen_dead |= leader == Some('Z') && alive;
            }
            thread::sleep(Duration::from_millis(2));
        }
        assert!(seen_dead, "the test saw nothing");
        assert_eq!(
            broken(listing.join().unwrap()).reason,
            FailureReason::OutputHeld
        );
    });
    place.assert_no_process_is_left();
}
