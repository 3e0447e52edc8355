//! The sidebar survives whatever happens to the database: the service answers, says what is wrong,
//! loses nothing but what a valid listing no longer has, and recovers by itself.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::sidebar::{KEPT, OTHERS, Sidebar, database, with_suffix};
use crate::support::{self, Made, REAL, expected, list, quick_status, text};

#[test]
fn sidebar_survives_a_locked_database() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    let mut sidebar = Sidebar::of(tempfile::tempdir().unwrap(), made.db.clone());
    sidebar.survives(
        "database is locked by process",
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
fn sidebar_survives_a_truncated_or_overwritten_database() {
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
        "is not an SQLite database",
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
fn sidebar_survives_an_unreadable_database() {
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
    if rustix::process::geteuid().is_root() {
        support::skip("a file that may not be read: root reads everything");
    } else {
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
fn database_back_within_a_second_is_not_missed() {
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
        // Longer than a second look takes to confirm.
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
    // Nothing more happens.
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
fn deleted_database_is_confirmed_after_a_second() {
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
fn emptied_database_counts_once_it_is_not_young() {
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
fn replaced_database_is_listed_instead() {
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
fn failure_between_two_looks_confirms_nothing() {
    let _limit = support::limit(60);
    let mut sidebar = Sidebar::closed();
    let files = sidebar.files();
    for file in &files {
        let _ = fs::remove_file(file);
    }
    assert_eq!(sidebar.host.refresh()["outcome"], "unconfirmed");
    sidebar.helper.becomes("exits-with-error-io");
    assert_eq!(sidebar.host.refresh()["outcome"], "failed");
    // Longer than two looks must be apart to confirm.
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
