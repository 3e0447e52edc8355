//! The sidebar survives whatever happens to the helper: the service answers, says what is wrong,
//! loses nothing but what a valid listing no longer has, and recovers by itself.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::sidebar::{KEPT, LISTS, Sidebar, database, with_suffix};
use crate::support::{self, Made, REAL, expected, text};

/// The ways to fail of the misbehaving helper, and what the reason must say.
const FAILS: [(&str, &str); 47] = [
    ("hangs-before-output", "did not finish within 1s"),
    ("hangs-after-hello", "did not finish within 1s"),
    ("hangs-after-half-the-rows", "did not finish within 1s"),
    ("ignores-every-signal", "did not finish within 1s"),
    ("stops-itself", "did not finish within 1s"),
    ("uses-all-cpu", "did not finish within 1s"),
    ("drips", "did not finish within 1s"),
    ("prints-end-and-stays-alive", "did not finish within 1s"),
    ("closes-output-and-stays-alive", "did not finish within 1s"),
    ("leaves-its-group", "did not finish within 1s"),
    ("exits-0-without-output", "no output"),
    ("exits-0-without-end", "without an `end` line"),
    ("exits-0-within-a-line", "the middle of line 2"),
    ("exits-127-without-output", "status 127"),
    ("exits-1-without-end", "status 1"),
    ("killed-by-signal", "SIGKILL"),
    ("segfaults", "SIGSEGV"),
    ("aborts", "SIGABRT"),
    ("prints-end-and-dies-of-sigterm", "SIGTERM"),
    ("prints-end-and-exits-3", "status 3 after a complete"),
    ("prints-error-and-exits-0", "status 0 after an error"),
    ("prints-usage-error-and-exits-1", "status 1 after an error"),
    ("not-a-listing", "expected a `hello` line"),
    ("prints-other-protocol", "protocol 2"),
    ("usage-error-of-another-version", "9.9.9"),
    ("prints-unknown-type", "the unknown type progress"),
    (
        "counts-wrong",
        "the `end` line counts 3, but 2 were received",
    ),
    ("goes-on-after-end", "output continues after the last line"),
    ("over-long-line", "line 2 is longer"),
    ("floods-stdout-without-newline", "line 2 is longer"),
    // It comes to the deadline or to the limit, whichever is first.
    ("floods-stdout-with-sessions", ""),
    ("floods-stderr", "did not finish within 1s"),
    ("says-much-and-exits-3", "status 3"),
    ("grandchild-holds-the-pipe", "still holds its output"),
    (
        "grandchild-of-another-group-holds-the-pipe",
        "still holds its output",
    ),
    ("grandchild-of-a-hanging-helper", "did not finish within 1s"),
    ("exits-with-error-busy", "busy"),
    ("exits-with-error-corrupt", "corrupt"),
    ("exits-with-error-not_a_database", "not_a_database"),
    ("exits-with-error-permission", "permission"),
    ("exits-with-error-io", "io"),
    ("exits-with-error-schema", "schema"),
    ("exits-with-error-out_of_memory", "out_of_memory"),
    ("exits-with-error-usage", "usage"),
    ("exits-with-error-internal", "internal"),
    ("refuses-without-a-word", "corrupt"),
    // The helper's script runs into a name that is not there.
    ("not-there", "status 127"),
];

#[test]
fn every_way_to_misbehave_is_tested() {
    let _limit = support::limit(30);
    let place = tempfile::tempdir().unwrap();
    let all = support::misbehaving(place.path(), "all");
    let output = support::command(&all).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut all: Vec<_> = printed.lines().chain(["not-there"]).collect();
    let mut ours: Vec<_> = FAILS.iter().map(|(way, _)| *way).chain(LISTS).collect();
    all.sort_unstable();
    ours.sort_unstable();
    assert_eq!(ours, all);
}

/// The first listing that fails is one that a change of the file causes, the
/// second one is a full refresh: both keep what was known.
fn a_sidebar_survives<'a>(ways: impl Iterator<Item = &'a (&'a str, &'a str)>) {
    let made = Made::new();
    for (at, id) in (1..).zip(KEPT) {
        made.session(id, at);
    }
    let mut sidebar = Sidebar::of(tempfile::tempdir().unwrap(), made.db.clone());
    let mut failures = 0;
    for (at, (way, reason)) in ways.enumerate() {
        let before = sidebar.host.model.events.len();
        let kept = sidebar.host.model.sessions.clone();
        if *way == "not-there" {
            sidebar.helper.becomes_nothing();
        } else {
            sidebar.helper.becomes(way);
        }
        let new = format!("ses_new_{at}");
        made.session(&new, 100);
        // Also while the helper does what it does.
        sidebar.source();
        sidebar.host.until(way, |model| model.state() == "failing");
        if at % 2 == 0 {
            let outcome = sidebar.host.refresh();
            assert_eq!(outcome["outcome"], "failed", "{way}");
            assert!(text(&outcome["reason"]).contains(reason), "{way}");
        } else {
            sidebar.host.signal(Signal::HUP);
        }
        sidebar.host.until_status(way, |status| {
            status["sources"][0]["health"]["attempts"].as_u64() >= Some(2)
        });
        // Time for events that must not come.
        sidebar.host.take_for(Duration::from_millis(50));
        let source = sidebar.source();
        assert_eq!(source["stuck"], 0, "{way}");
        let said = text(&source["health"]["reason"]);
        assert!(said.contains(reason), "{way}: {said:?}");
        let model = &sidebar.host.model;
        assert_eq!(model.sessions, kept, "{way}");
        let events = model.of_type("health", before);
        // On a busy machine one that floods may reach its deadline before its limit.
        let mut kinds: Vec<_> = events
            .iter()
            .map(|event| event["health"]["kind"].clone())
            .collect();
        kinds.dedup();
        failures += kinds.len();
        // Each says more than the one before.
        let attempts: Vec<_> = events
            .iter()
            .map(|event| event["health"]["attempts"].as_u64().unwrap())
            .collect();
        assert!(
            !attempts.is_empty() && attempts.is_sorted_by(|one, next| one < next),
            "{way}: {events:#?}"
        );
        assert_eq!(events[0]["health"]["since"], source["health"]["since"]);
        sidebar.helper.becomes(REAL);
        sidebar.host.until(way, |model| {
            model.state() == "ok" && model.ids().contains(&new.as_str())
        });
        assert_eq!(sidebar.host.model.removed(), 0, "{way}");
    }
    assert_eq!(sidebar.host.model.sessions, expected(&made.db));
    let (status, _, log) = sidebar.host.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    let said = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(said("listing failed"), failures, "{log}");
}

#[test]
fn failing_helper_costs_no_session() {
    let _limit = support::limit(120);
    // Most of the time is waiting.
    const AT_A_TIME: usize = 12;
    thread::scope(|scope| {
        for first in 0..AT_A_TIME {
            scope.spawn(move || a_sidebar_survives(FAILS.iter().skip(first).step_by(AT_A_TIME)));
        }
    });
}

/// There is nothing that could wake it but its own clock.
#[test]
fn failed_listing_is_retried_without_a_file_change() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let db = place.path().join("opencode.db");
    database(&db, &KEPT);
    support::settle(&db);
    let mut sidebar = Sidebar::of(place, db);
    sidebar.helper.becomes("exits-with-error-io");
    support::touch(&sidebar.db);
    assert_eq!(sidebar.host.refresh()["outcome"], "failed");
    sidebar.host.until_status("two more tries", |status| {
        status["sources"][0]["health"]["attempts"].as_u64() >= Some(3)
    });
    sidebar.helper.becomes(REAL);
    sidebar
        .host
        .until("the recovery", |model| model.state() == "ok");
    assert_eq!(sidebar.host.model.ids(), KEPT);
}

#[test]
fn odd_but_valid_listings_are_accepted() {
    let _limit = support::limit(90);
    let made = Made::new();
    made.session("ses_a", 1);
    let mut sidebar = Sidebar::within("10s", tempfile::tempdir().unwrap(), made.db.clone());
    for way in LISTS {
        sidebar.helper.becomes(way);
        assert_eq!(sidebar.host.refresh()["outcome"], "ok", "{way}");
        assert_eq!(sidebar.host.model.ids(), ["ses_0", "ses_1", "ses_2"]);
        sidebar.helper.becomes(REAL);
        made.run("UPDATE session SET time_updated = time_updated + 1");
        sidebar.host.until(way, |model| {
            model.ids() == ["ses_a"] && model.state() == "ok"
        });
    }
    assert_eq!(sidebar.host.model.of_type("health", 2).len(), 1);
}

#[test]
fn missing_helper_is_reported_and_found_again() {
    let _limit = support::limit(60);
    let mut sidebar = Sidebar::closed();
    let (program, away) = (
        sidebar.helper.program(),
        with_suffix(&sidebar.helper.program(), ".away"),
    );
    let file = File::options().append(true).open(&sidebar.db).unwrap();
    let change = || file.set_modified(std::time::SystemTime::now()).unwrap();
    sidebar.survives(
        "helper not found at",
        || {
            fs::rename(&program, &away).unwrap();
            change();
        },
        || fs::rename(&away, &program).unwrap(),
    );
    support::touch(&sidebar.db);
    let mode = |mode| fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
    sidebar.survives(
        "cannot execute the helper",
        || {
            mode(0o644);
            change();
        },
        || mode(0o755),
    );
}
