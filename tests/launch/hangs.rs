//! Helpers that are listened to, and helpers that do not come to an end.

use std::time::Duration;

use opencode_sessions::internals::wire::{Progress, VERSION};
use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::ListRequest;
use opencode_sessions::marker_text::MarkerText;

use crate::common::{LONG, Place, assert_times_out, listing, outcome, timed_out, timely};
use crate::real::ids;
use crate::support;

// ---- A helper that is listened to.

#[test]
fn well_behaved_helper_is_accepted() {
    let _limit = support::limit(60);
    for way in ["behaves", "exits-late"] {
        let listing = listing(outcome(way, LONG));
        assert_eq!(ids(&listing), ["ses_0", "ses_1", "ses_2"], "{way}");
        assert_eq!(listing.end.sessions, 3);
        assert_eq!(listing.helper_version, VERSION);
    }
}

#[test]
fn helper_that_ignores_its_request_is_accepted() {
    let _limit = support::limit(60);
    let place = Place::new();
    let lister = ProcessLister::at(support::misbehaving(place.0.path(), "reads-no-stdin"));
    let request = ListRequest::of("/nowhere/opencode.db")
        .marker(Some(MarkerText::new("another tool's marker").unwrap()));
    assert_eq!(listing(timely(&lister, &request)).rows.len(), 3);
    place.assert_no_process_is_left();
}

// ---- A helper that does not come to an end.

/// Wherever it hangs.
#[test]
fn hanging_helper_is_killed_at_the_deadline() {
    let _limit = support::limit(60);
    assert_times_out(
        "hangs-before-output",
        Progress::Nothing,
        "before its first line",
    );
    assert_times_out(
        "hangs-after-hello",
        Progress::Sessions(0),
        "after 0 sessions",
    );
    assert_times_out(
        "hangs-after-half-the-rows",
        Progress::Sessions(3),
        "after 3 sessions",
    );
}

/// Also one that stops itself.
#[test]
fn signal_ignoring_helper_is_killed_at_the_deadline() {
    let _limit = support::limit(60);
    for way in ["ignores-every-signal", "stops-itself"] {
        assert_times_out(way, Progress::Sessions(0), "after 0 sessions");
    }
}

#[test]
fn spinning_or_dripping_helper_is_killed_at_the_deadline() {
    let _limit = support::limit(60);
    for way in ["uses-all-cpu", "drips"] {
        assert_times_out(way, Progress::Sessions(0), "after 0 sessions");
    }
}

#[test]
fn listing_of_a_helper_that_stays_alive_is_a_timeout() {
    let _limit = support::limit(60);
    for way in [
        "prints-end-and-stays-alive",
        "closes-output-and-stays-alive",
    ] {
        assert_times_out(way, Progress::Complete, "after its last line");
    }
}

#[test]
fn helper_outside_its_process_group_is_killed_too() {
    let _limit = support::limit(60);
    assert_times_out(
        "leaves-its-group",
        Progress::Sessions(0),
        "after 0 sessions",
    );
}

#[test]
fn zero_deadline_is_a_timeout() {
    let _limit = support::limit(60);
    for deadline in [Duration::ZERO, Duration::from_nanos(1)] {
        timed_out(outcome("hangs-before-output", deadline));
    }
}
