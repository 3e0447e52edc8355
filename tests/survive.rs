//! The sidebar survives: whatever happens to the helper or to the database, the
//! service answers, says what is wrong, loses nothing but what a valid listing no
//! longer has, and recovers by itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

#[path = "support/serving.rs"]
mod serving;
mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use serving::{Helper, Host, REAL, expected, list, quick_status, text};
use support::Made;

/// The ways to fail of the misbehaving helper, and what the reason must say.
const FAILS: [(&str, &str); 47] = [
    ("hangs-before-output", "not done within 1s"),
    ("hangs-after-hello", "not done within 1s"),
    ("hangs-after-half-the-rows", "not done within 1s"),
    ("ignores-every-signal", "not done within 1s"),
    ("stops-itself", "not done within 1s"),
    ("uses-all-cpu", "not done within 1s"),
    ("drips", "not done within 1s"),
    ("prints-end-and-stays-alive", "not done within 1s"),
    ("closes-output-and-stays-alive", "not done within 1s"),
    ("leaves-its-group", "not done within 1s"),
    ("exits-0-without-output", "it printed nothing"),
    ("exits-0-without-end", "without an end"),
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
    ("not-a-listing", "first line is no hello"),
    ("prints-other-protocol", "speaks protocol 2"),
    ("usage-error-of-another-version", "9.9.9"),
    ("prints-unknown-type", "the unknown type progress"),
    ("counts-wrong", "its end counts 3, but 2 came"),
    ("goes-on-after-end", "went on after its last line"),
    ("over-long-line", "line 2 is longer"),
    ("floods-stdout-without-newline", "line 2 is longer"),
    // It comes to the deadline or to the limit, whichever is first.
    ("floods-stdout-with-sessions", ""),
    ("floods-stderr", "not done within 1s"),
    ("says-much-and-exits-3", "status 3"),
    ("grandchild-holds-the-pipe", "still holds its output"),
    (
        "grandchild-of-another-group-holds-the-pipe",
        "still holds its output",
    ),
    ("grandchild-of-a-hanging-helper", "not done within 1s"),
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

/// Its ways to list three sessions of its own, however oddly.
const LISTS: [&str; 6] = [
    "behaves",
    "reads-no-stdin",
    "exits-late",
    "floods-stderr-then-behaves",
    "grandchild-holds-only-stderr",
    "grandchild-prints-the-end",
];

/// A service with some sessions listed.
struct Sidebar {
    host: Host,
    helper: Helper,
    place: tempfile::TempDir,
    db: PathBuf,
}

impl Sidebar {
    fn of(place: tempfile::TempDir, db: PathBuf) -> Self {
        let helper = Helper::new();
        let state = place.path().join("state");
        let mut command = serving::serve(&db, &state);
        command.args(["--deadline", "1s", "--lister"]);
        let host = Host::well(command.arg(helper.program()));
        Self {
            host,
            helper,
            place,
            db,
        }
    }

    /// Of a database that nobody has open.
    fn closed() -> Self {
        let place = tempfile::tempdir().unwrap();
        let db = place.path().join("data/opencode.db");
        fs::create_dir(db.parent().unwrap()).unwrap();
        database(&db, &KEPT);
        let sidebar = Self::of(place, db);
        assert_eq!(sidebar.host.model.ids(), KEPT);
        sidebar
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("state/socket")
    }

    fn files(&self) -> [PathBuf; 3] {
        ["", "-wal", "-shm"].map(|suffix| with_suffix(&self.db, suffix))
    }

    /// The source as the status shows it, which answers at once.
    #[track_caller]
    fn source(&self) -> Value {
        let status = quick_status(&self.socket());
        status["sources"][0].clone()
    }

    /// What `harm` does makes listings fail with this reason: nothing is lost,
    /// it is said once, and all is well again some time after `undo`.
    #[track_caller]
    fn survives(&mut self, reason: &str, harm: impl FnOnce(), undo: impl FnOnce()) {
        let before = self.host.model.events.len();
        let kept = self.host.model.sessions.clone();
        harm();
        self.host
            .until("the failure", |model| model.state() == "failing");
        let outcome = self.host.refresh();
        assert_eq!(outcome["outcome"], "failed", "{outcome}");
        for health in [
            &outcome,
            &self.host.model.only_health().clone(),
            &self.source()["health"],
        ] {
            let said = text(&health["reason"]);
            assert!(said.contains(reason), "{said:?}");
        }
        self.host.take_for(Duration::from_millis(100));
        let model = &self.host.model;
        assert_eq!(model.of_type("health", before).len(), 1, "said once");
        assert_eq!(model.of_type("change", before).len(), 0);
        assert_eq!(self.source()["sessions"], kept.len());
        undo();
        self.host
            .until("the recovery", |model| model.state() == "ok");
        assert_eq!(self.host.model.removed(), 0);
        for id in kept.keys() {
            assert!(self.host.model.sessions.contains_key(id), "{id:?} is lost");
        }
        assert_eq!(self.source()["health"]["state"], "ok");
    }
}

const KEPT: [&str; 4] = ["ses_a", "ses_b", "ses_c", "ses_d"];
const OTHERS: [&str; 3] = ["ses_b", "ses_x", "ses_y"];

/// Puts a database with these sessions there, all of it in the one file.
fn database(db: &Path, ids: &[&str]) {
    let made = Made::new();
    for (at, id) in (1..).zip(ids) {
        made.session(id, at);
    }
    made.run("PRAGMA wal_checkpoint(TRUNCATE)");
    let new = with_suffix(db, ".new");
    fs::copy(&made.db, &new).unwrap();
    fs::rename(new, db).unwrap();
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

// ---- The helper.

#[test]
fn no_way_to_misbehave_is_forgotten() {
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
    assert_eq!(said("failing"), failures, "{log}");
}

#[test]
fn a_helper_costs_no_session_however_it_fails() {
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
fn what_failed_is_tried_again_though_no_file_changes() {
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
fn a_helper_that_lists_however_oddly_is_believed() {
    let _limit = support::limit(90);
    let made = Made::new();
    made.session("ses_a", 1);
    let mut sidebar = Sidebar::of(tempfile::tempdir().unwrap(), made.db.clone());
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
fn a_helper_that_is_away_for_a_moment_is_missed_and_found_again() {
    let _limit = support::limit(60);
    let mut sidebar = Sidebar::closed();
    let (program, away) = (
        sidebar.helper.program(),
        with_suffix(&sidebar.helper.program(), ".away"),
    );
    let file = File::options().append(true).open(&sidebar.db).unwrap();
    let change = || file.set_modified(std::time::SystemTime::now()).unwrap();
    sidebar.survives(
        "there is no helper at",
        || {
            fs::rename(&program, &away).unwrap();
            change();
        },
        || fs::rename(&away, &program).unwrap(),
    );
    support::touch(&sidebar.db);
    let mode = |mode| fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
    sidebar.survives(
        "may not be executed",
        || {
            mode(0o644);
            change();
        },
        || mode(0o755),
    );
}

// ---- The database.

#[test]
fn the_sidebar_survives_a_database_that_is_locked() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    let mut sidebar = Sidebar::of(tempfile::tempdir().unwrap(), made.db.clone());
    sidebar.survives(
        "it is locked by process",
        || {
            made.run(
                "PRAGMA locking_mode = exclusive; UPDATE session SET title = 'x'; BEGIN EXCLUSIVE",
            );
        },
        || made.run("COMMIT; PRAGMA locking_mode = normal; SELECT count(*) FROM session"),
    );
    sidebar.host.until("the new title", |model| {
        model
            .sessions
            .values()
            .all(|session| session["title"] == "x")
    });
}

#[test]
fn the_sidebar_survives_a_database_that_is_cut_off_or_overwritten() {
    let _limit = support::limit(60);
    let mut sidebar = Sidebar::closed();
    let db = sidebar.db.clone();
    let bytes = fs::read(&db).unwrap();
    let half = bytes.len() / 2;
    let write = |offset: usize, bytes: &[u8]| {
        use std::os::unix::fs::FileExt;
        let file = File::options().write(true).open(&db).unwrap();
        file.write_all_at(bytes, offset as u64).unwrap();
    };
    let mut random = fastrand::Rng::with_seed(20);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take(bytes.len())
        .collect();
    sidebar.survives(
        "malformed",
        || {
            File::options()
                .write(true)
                .open(&db)
                .unwrap()
                .set_len(half as u64)
                .unwrap();
        },
        || write(half, &bytes[half..]),
    );
    sidebar.survives(
        "does not begin like an SQLite database",
        || write(0, &noise),
        || write(0, &bytes),
    );
    // The header is all that is well.
    sidebar.survives(
        "malformed",
        || write(100, &noise[100..]),
        || write(0, &bytes),
    );
}

#[test]
fn the_sidebar_survives_a_database_that_cannot_be_read() {
    let _limit = support::limit(60);
    let mut sidebar = Sidebar::closed();
    let (db, away) = (sidebar.db.clone(), with_suffix(&sidebar.db, ".away"));
    sidebar.survives(
        "is a directory",
        || {
            fs::rename(&db, &away).unwrap();
            fs::create_dir(&db).unwrap();
        },
        || {
            fs::remove_dir(&db).unwrap();
            fs::rename(&away, &db).unwrap();
        },
    );
    sidebar.survives(
        "is not a regular file",
        || {
            fs::rename(&db, &away).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, &db, rustix::fs::Mode::RUSR).unwrap();
        },
        || fs::rename(&away, &db).unwrap(),
    );
    // The superuser reads everything.
    if !rustix::process::geteuid().is_root() {
        let mode = |mode| fs::set_permissions(&db, PermissionsExt::from_mode(mode)).unwrap();
        let change = || {
            let db = File::options().append(true).open(&db).unwrap();
            db.set_modified(std::time::SystemTime::now()).unwrap();
            mode(0);
        };
        sidebar.survives("ermission", change, || mode(0o644));
    }
}

/// What is moved away is back before a second look could have confirmed that it
/// is gone.
#[test]
fn a_database_that_comes_back_within_a_second_is_not_missed() {
    let _limit = support::limit(90);
    let mut sidebar = Sidebar::closed();
    let before = sidebar.host.model.events.len();
    let directory = sidebar.db.parent().unwrap().to_owned();
    let elsewhere = sidebar.place.path().join("elsewhere");
    let all_files = sidebar
        .files()
        .map(|file| (file.clone(), with_suffix(&file, ".away")));
    let just_the_file = [(sidebar.db.clone(), with_suffix(&sidebar.db, ".away"))];
    let the_directory = [(directory, elsewhere)];
    let rounds: [(&[_], usize); 4] = [
        (&all_files, 0),
        (&just_the_file, 1),
        (&all_files, 2),
        (&the_directory, 1),
    ];
    for (files, refreshes) in rounds {
        // On a machine that was busy elsewhere it was away for longer.
        let mut in_time = false;
        while !in_time {
            let away = Instant::now();
            for (from, to) in files {
                if from.exists() {
                    fs::rename(from, to).unwrap();
                }
            }
            let outcomes: Vec<_> = (0..refreshes)
                .map(|_| sidebar.host.refresh()["outcome"].clone())
                .collect();
            assert_eq!(sidebar.source()["sessions"], KEPT.len());
            thread::sleep(Duration::from_millis(300).saturating_sub(away.elapsed()));
            for (from, to) in files {
                if to.exists() {
                    fs::rename(to, from).unwrap();
                }
            }
            in_time = away.elapsed() < Duration::from_millis(900);
            if in_time {
                assert!(
                    outcomes.iter().all(|outcome| outcome == "unconfirmed"),
                    "{outcomes:?}"
                );
            }
        }
        let listings = sidebar.host.status()["listings"].as_u64();
        sidebar.host.until_status("a listing after that", |status| {
            status["listings"].as_u64() > listings
        });
        sidebar.host.take_for(Duration::from_millis(1500));
        assert_eq!(sidebar.host.model.ids(), KEPT);
        assert_eq!(sidebar.source()["health"]["state"], "ok");
    }
    assert_eq!(sidebar.host.model.removed(), 0);
    let model = &sidebar.host.model;
    assert_eq!(model.of_type("change", before).len(), 0);
    assert_eq!(model.of_type("health", before).len(), 0);
}

/// The sessions of the database go once, with the health that says why, and not
/// before a second listing could say so too.
#[track_caller]
fn assert_goes(sidebar: &mut Sidebar, health: &str, earliest: Duration, harm: impl FnOnce()) {
    let before = sidebar.host.model.events.len();
    let harmed = Instant::now();
    harm();
    sidebar.host.until(health, |model| model.state() == health);
    assert!(harmed.elapsed() >= earliest, "{:?}", harmed.elapsed());
    sidebar.host.take_for(Duration::from_millis(1500));
    let model = &sidebar.host.model;
    let changes = model.of_type("change", before);
    assert_eq!(changes.len(), 1, "{changes:?}");
    let removed: Vec<_> = list(&changes[0]["removed"]).iter().map(text).collect();
    assert_eq!(removed, KEPT);
    assert_eq!(list(&changes[0]["upserted"]).len(), 0);
    assert_eq!(model.of_type("health", before).len(), 1);
    let source = sidebar.source();
    assert_eq!(source["health"]["state"], health);
    assert_eq!(source["sessions"], 0);
    assert_eq!(sidebar.host.refresh()["outcome"], "ok");
}

#[test]
fn a_database_that_is_deleted_for_good_is_believed_to_be_after_a_second() {
    let _limit = support::limit(60);
    let mut sidebar = Sidebar::closed();
    let files = sidebar.files();
    assert_goes(&mut sidebar, "missing", Duration::from_secs(1), || {
        for file in files {
            let _ = fs::remove_file(file);
        }
    });
    database(&sidebar.db, &OTHERS);
    sidebar
        .host
        .until("the new one", |model| model.state() == "ok");
    assert_eq!(sidebar.host.model.ids(), OTHERS);
}

#[test]
fn a_database_that_is_emptied_is_believed_to_be_when_it_is_not_young_any_more() {
    let _limit = support::limit(60);
    let mut sidebar = Sidebar::closed();
    let db = sidebar.db.clone();
    let bytes = fs::read(&db).unwrap();
    let empty = || {
        let file = File::options().write(true).open(&db).unwrap();
        file.set_len(0).unwrap();
    };
    // For a moment: somebody restores it.
    empty();
    assert_eq!(sidebar.host.refresh()["outcome"], "young");
    File::options()
        .write(true)
        .open(&db)
        .unwrap()
        .write_all(&bytes)
        .unwrap();
    assert_eq!(sidebar.host.refresh()["outcome"], "ok");
    assert_eq!(sidebar.host.model.removed(), 0);
    assert_eq!(sidebar.host.model.ids(), KEPT);
    // Two seconds young, one unconfirmed; a file's time is as coarse as the
    // system's clock tick.
    let earliest = Duration::from_millis(2900);
    assert_goes(&mut sidebar, "empty", earliest, empty);
    database(&sidebar.db, &OTHERS);
    sidebar
        .host
        .until("the new one", |model| model.state() == "ok");
    assert_eq!(sidebar.host.model.ids(), OTHERS);
}

#[test]
fn a_database_in_the_place_of_another_is_listed_instead() {
    let _limit = support::limit(60);
    let mut sidebar = Sidebar::closed();
    let before = sidebar.host.model.events.len();
    database(&sidebar.db, &OTHERS);
    sidebar
        .host
        .until("the other one", |model| model.ids() == OTHERS);
    quick_status(&sidebar.socket());
    let model = &sidebar.host.model;
    assert_eq!(model.of_type("change", before).len(), 1, "in one change");
    assert_eq!(model.of_type("health", before).len(), 0);
    assert_eq!(model.sessions, expected(&sidebar.db));
}

#[test]
fn a_failure_between_two_looks_confirms_nothing() {
    let _limit = support::limit(60);
    let mut sidebar = Sidebar::closed();
    let files = sidebar.files();
    for file in &files {
        let _ = fs::remove_file(file);
    }
    assert_eq!(sidebar.host.refresh()["outcome"], "unconfirmed");
    sidebar.helper.becomes("exits-with-error-io");
    assert_eq!(sidebar.host.refresh()["outcome"], "failed");
    thread::sleep(Duration::from_millis(1200));
    sidebar.helper.becomes(REAL);
    // The first look after the failure is a first look.
    assert_eq!(sidebar.host.refresh()["outcome"], "unconfirmed");
    assert_eq!(sidebar.host.model.ids(), KEPT);
    sidebar
        .host
        .until("the second", |model| model.state() == "missing");
    assert_eq!(sidebar.host.model.ids(), [""; 0]);
}
