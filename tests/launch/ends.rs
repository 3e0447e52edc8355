//! Helpers that end without a listing.

use opencode_sessions::internals::wire::{Progress, Violation};
use opencode_sessions::lister::FailureReason;

use crate::common::assert_breaks;
use crate::support;

#[test]
fn listing_without_its_end_fails_despite_exit_0() {
    let _limit = support::limit(60);
    for (way, violation, saying) in [
        ("exits-0-without-output", Violation::NoOutput, "no output"),
        (
            "exits-0-without-end",
            Violation::NoEnd(2),
            "after 2 sessions, without an `end` line",
        ),
        (
            "exits-0-within-a-line",
            Violation::PartialLine(2),
            "the middle of line 2",
        ),
    ] {
        assert_breaks(way, &FailureReason::Wire(violation), saying);
    }
}

#[test]
fn early_exit_is_reported_by_its_status() {
    let _limit = support::limit(60);
    for (way, status, output, saying) in [
        (
            "exits-127-without-output",
            127,
            Violation::NoOutput,
            "status 127: no output; stderr: opencode-lister: command not found",
        ),
        (
            "exits-1-without-end",
            1,
            Violation::NoEnd(2),
            "status 1: output stopped after 2 sessions",
        ),
        (
            "says-much-and-exits-3",
            3,
            Violation::NoOutput,
            "status 3: no output",
        ),
    ] {
        assert_breaks(way, &FailureReason::Exited { status, output }, saying);
    }
}

#[test]
fn killed_helper_is_reported_by_signal_and_progress() {
    let _limit = support::limit(60);
    for (way, signal, progress, saying) in [
        (
            "killed-by-signal",
            libc::SIGKILL,
            Progress::Sessions(2),
            "SIGKILL (out of memory?) after 2 sessions",
        ),
        (
            "segfaults",
            libc::SIGSEGV,
            Progress::Sessions(0),
            "SIGSEGV after 0 sessions",
        ),
        (
            "aborts",
            libc::SIGABRT,
            Progress::Sessions(0),
            "stderr: thread 'main' panicked at the disco",
        ),
        (
            "prints-end-and-dies-of-sigterm",
            libc::SIGTERM,
            Progress::Complete,
            "SIGTERM after its last line",
        ),
    ] {
        assert_breaks(way, &FailureReason::Killed { signal, progress }, saying);
    }
}

/// It is neither a listing nor a refusal.
#[test]
fn status_that_contradicts_the_last_line_is_a_failure() {
    let _limit = support::limit(60);
    for (way, status, last_line, saying) in [
        (
            "prints-end-and-exits-3",
            3,
            "a complete answer",
            "status 3 after a complete answer",
        ),
        (
            "prints-error-and-exits-0",
            0,
            "an error",
            "status 0 after an error",
        ),
        (
            "prints-usage-error-and-exits-1",
            1,
            "an error",
            "status 1 after an error",
        ),
    ] {
        assert_breaks(
            way,
            &FailureReason::StatusMismatch { status, last_line },
            saying,
        );
    }
}
