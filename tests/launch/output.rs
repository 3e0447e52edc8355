//! Helpers that say something else, on standard output and on standard error.

use std::time::Duration;

use opencode_sessions::internals::wire::{ErrorKind, PROTOCOL, Progress, VERSION, Violation};
use opencode_sessions::lister::FailureReason;

use crate::common::{LONG, SHORT, assert_breaks, broken, listing, outcome, refused, timed_out};
use crate::support;

// ---- A helper that says something else.

#[test]
fn invalid_output_is_reported_by_the_broken_rule() {
    let _limit = support::limit(60);
    for (way, violation, saying) in [
        (
            "prints-other-protocol",
            Violation::Protocol {
                theirs: 2,
                helper_version: "9.9.9".into(),
            },
            "version 9.9.9 (protocol 2)",
        ),
        (
            "prints-unknown-type",
            Violation::UnknownType {
                line: 2,
                name: "progress".into(),
                helper_version: VERSION.into(),
            },
            "the unknown type progress",
        ),
        (
            "counts-wrong",
            Violation::WrongCount { got: 2, said: 3 },
            "the `end` line counts 3, but 2 were received",
        ),
        (
            "goes-on-after-end",
            Violation::AfterEnd,
            "output continues after the last line",
        ),
        (
            "over-long-line",
            Violation::LongLine(2),
            "line 2 is longer than 1048576 bytes",
        ),
        (
            "floods-stdout-without-newline",
            Violation::LongLine(2),
            "line 2 is longer than 1048576 bytes",
        ),
    ] {
        assert_breaks(way, &FailureReason::Wire(violation), saying);
    }
}

#[test]
fn foreign_output_is_shown_without_escape_sequences() {
    let _limit = support::limit(60);
    let outcome = outcome("not-a-listing", LONG);
    assert!(outcome.to_string().contains("opencode-lister"), "{outcome}");
    let FailureReason::Wire(Violation::NoHello(start)) = broken(outcome).reason else {
        panic!("no NoHello");
    };
    assert_eq!(start, r"sh: 1: opencode-lister: \u{1b}[31mnot found");
}

#[test]
fn flood_of_sessions_ends_at_the_limit() {
    let _limit = support::limit(180);
    // The checker of an unoptimised build takes its time.
    let outcome = outcome("floods-stdout-with-sessions", Duration::from_secs(120));
    assert!(
        outcome.to_string().contains("more than 200000"),
        "{outcome}"
    );
    assert_eq!(
        broken(outcome).reason,
        FailureReason::Wire(Violation::TooMany)
    );
}

#[test]
fn usage_error_of_another_version_names_both() {
    let _limit = support::limit(60);
    let outcome = outcome("usage-error-of-another-version", LONG);
    let said = outcome.to_string();
    for part in [
        "unexpected argument '--background' found",
        "9.9.9",
        VERSION,
        &format!("protocol {PROTOCOL}"),
    ] {
        assert!(said.contains(part), "{said:?}");
    }
    let refusal = refused(outcome);
    assert_eq!(refusal.error.kind, ErrorKind::Usage);
    assert_eq!(refusal.helper_version, "9.9.9");
}

#[test]
fn refusal_keeps_its_kind() {
    let _limit = support::limit(60);
    for kind in [
        ErrorKind::Busy,
        ErrorKind::Corrupt,
        ErrorKind::NotADatabase,
        ErrorKind::Permission,
        ErrorKind::Io,
        ErrorKind::Schema,
        ErrorKind::OutOfMemory,
        ErrorKind::Usage,
        ErrorKind::Internal,
    ] {
        let way = format!("exits-with-error-{}", kind.as_str());
        let outcome = outcome(&way, LONG);
        let message = format!("the helper says {}", kind.as_str());
        assert!(outcome.to_string().starts_with(&message), "{outcome}");
        assert_eq!(refused(outcome).error.kind, kind);
    }
}

#[test]
fn refusal_without_a_message_has_a_sentence() {
    let _limit = support::limit(60);
    let outcome = outcome("refuses-without-a-word", LONG);
    assert!(outcome.to_string().contains("corrupt"), "{outcome}");
    assert_eq!(refused(outcome).error.kind, ErrorKind::Corrupt);
}

// ---- Standard error.

#[test]
fn flood_of_stderr_delays_nothing_and_is_dropped() {
    let _limit = support::limit(60);
    listing(outcome("floods-stderr-then-behaves", LONG));
    let outcome = outcome("floods-stderr", SHORT);
    assert!(outcome.to_string().contains("; stderr: "), "{outcome}");
    let timeout = timed_out(outcome);
    assert_eq!(timeout.progress, Progress::Sessions(0));
    assert!(
        timeout.stderr_tail.len() <= 8 << 10,
        "{}",
        timeout.stderr_tail.len()
    );
}

/// The last line of it is shown.
#[test]
fn last_8_kib_of_stderr_are_kept_and_shown_safely() {
    let _limit = support::limit(60);
    let outcome = outcome("says-much-and-exits-3", LONG);
    let said = outcome.to_string();
    let stderr = broken(outcome).stderr_tail;
    assert_eq!(stderr.len(), 8 << 10);
    assert!(stderr.contains("line 9999\nthe \x1b]0;last\x07 word"));
    assert!(!stderr.contains("line 9000\n"));
    let shown = "stderr: the \u{fffd}]0;last\u{fffd} word\u{fffd}31m";
    assert!(said.ends_with(shown), "{said:?}");
}
