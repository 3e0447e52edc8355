//! The launcher with the real helper.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use opencode_sessions::in_process::InProcessLister;
use opencode_sessions::internals::text::is_unsafe_on_terminal;
use opencode_sessions::internals::wire::{DatabaseState, ErrorKind, Listing, Progress, VERSION};
use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{FailureReason, ListRequest, Lister};
use opencode_sessions::marker_text::MarkerText;

use crate::common::{LONG, Place, SHORT, broken, listing, refused, timed_out, timely};
use crate::in_process::alone;
use crate::support::{self, Made, endless};

/// A made database with two sessions, one of them with `marker`.
pub(crate) fn two_sessions(marker: &str) -> Made {
    let made = Made::new();
    made.session("ses_1", 1_000);
    made.session("ses_2", 2_000);
    made.part("ses_1", &format!(r#"{{"type":"text","text":"{marker}"}}"#));
    made
}

pub(crate) fn ids(listing: &Listing) -> Vec<String> {
    let ids = listing.sessions().map(|session| session.id.into());
    ids.collect()
}

fn marked(listing: &Listing) -> Vec<Option<bool>> {
    let marked = listing.sessions().map(|session| session.marked);
    marked.collect()
}

/// A made database that is locked as long as it lives.
pub(crate) fn locked() -> Made {
    let made = two_sessions("");
    made.run(
        "PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE; UPDATE session SET title = 'locked'",
    );
    made
}

#[test]
fn real_helper_lists_a_database() {
    let _limit = support::limit(60);
    let made = two_sessions(MarkerText::DEFAULT);
    let lister = ProcessLister::at(support::lister());
    let listing = listing(timely(&lister, &ListRequest::of(&made.db)));
    assert_eq!(ids(&listing), ["ses_2", "ses_1"]);
    assert_eq!(marked(&listing), [Some(false), Some(true)]);
    assert_eq!(listing.end.database, DatabaseState::Ready);
    assert_eq!(listing.helper_version, VERSION);
}

#[test]
fn request_options_reach_the_helper() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = two_sessions(MarkerText::DEFAULT);
    made.run("UPDATE session SET time_archived = 1 WHERE id = 'ses_1'");
    made.session("ses_child", 3_000);
    made.run("UPDATE session SET parent_id = 'ses_2' WHERE id = 'ses_child'");
    for lister in [
        &ProcessLister::at(support::lister()) as &dyn Lister,
        &InProcessLister,
    ] {
        let list = |children, archived| {
            let listing = listing(
                lister.list(
                    &ListRequest::of(&made.db)
                        .children(children)
                        .archived(archived),
                ),
            );
            ids(&listing).join(" ")
        };
        assert_eq!(list(false, false), "ses_2");
        assert_eq!(list(true, false), "ses_child ses_2");
        assert_eq!(list(false, true), "ses_2 ses_1");
        assert_eq!(list(true, true), "ses_child ses_2 ses_1");
        let unmarked = listing(lister.list(&ListRequest::of(&made.db).marker(None)));
        assert_eq!(marked(&unmarked), [None]);
    }
}

#[test]
fn custom_marker_is_sent_on_stdin() {
    let _limit = support::limit(60);
    let text = "it's $(another) \"marker\"";
    let made = two_sessions(r#"it's $(another) \"marker\""#);
    made.part("ses_2", text);
    let arguments = made.directory.path().join("arguments");
    let lister = ProcessLister::at(with_arguments_in(&arguments));
    let request = ListRequest::of(&made.db)
        .marker(Some(MarkerText::new(text).unwrap()))
        .deadline(LONG);
    let listing = listing(timely(&lister, &request));
    // LIKE sees the JSON as it is stored, with its backslashes.
    assert_eq!(marked(&listing), [Some(true), Some(false)]);
    let arguments = fs::read_to_string(arguments).unwrap();
    assert!(arguments.contains("--request-stdin"), "{arguments}");
    assert!(!arguments.contains("another"), "{arguments}");
}

/// A helper that writes its arguments to this file first.
fn with_arguments_in(file: &Path) -> PathBuf {
    let wrapper = file.with_extension("wrapper");
    let [to, helper] = [file, support::lister()].map(Path::display);
    support::script(
        &wrapper,
        &format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > '{to}'\nexec '{helper}' \"$@\"\n"),
    );
    wrapper
}

/// Else a listing whose deadline is shorter than the two seconds of the scan fails each
/// time, and what it has found out by then is lost.
#[test]
fn list_gives_the_scan_at_most_half_its_deadline() {
    let _limit = support::limit(60);
    let made = two_sessions(MarkerText::DEFAULT);
    let arguments = made.directory.path().join("arguments");
    let wrapper = with_arguments_in(&arguments);
    for (deadline, most) in [("20s", 2000), ("3s", 1500)] {
        let output = support::command(support::sessions())
            .args(["list", "--format", "ids", "--deadline", deadline, "--db"])
            .arg(&made.db)
            .arg("--lister")
            .arg(&wrapper)
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"ses_2\nses_1\n", "{output:?}");
        let arguments = fs::read_to_string(&arguments).unwrap();
        let (_, budget) = arguments.split_once("\n--scan-budget\n").unwrap();
        let budget: u32 = budget.lines().next().unwrap().parse().unwrap();
        // What the command had done before is missing.
        assert!((most / 2..=most).contains(&budget), "{arguments}");
    }
}

#[test]
fn locked_database_is_busy_before_the_deadline() {
    let _limit = support::limit(60);
    let made = locked();
    let lister = ProcessLister::at(support::lister());
    let request = ListRequest::of(&made.db).deadline(Duration::from_secs(4));
    let outcome = timely(&lister, &request);
    let said = outcome.to_string();
    assert!(said.contains("database is locked by process"), "{said:?}");
    assert_eq!(refused(outcome).error.kind, ErrorKind::Busy);
    made.run("COMMIT; PRAGMA locking_mode = normal; SELECT count(*) FROM session");
    assert_eq!(ids(&listing(timely(&lister, &request))), ["ses_2", "ses_1"]);
}

#[test]
fn refusals_of_the_real_helper_come_through() {
    let _limit = support::limit(60);
    let made = Made::new();
    let text = made.directory.path().join("text.db");
    fs::write(&text, "this is no database, whatever its name says").unwrap();
    let lister = ProcessLister::at(support::lister());
    for db in [text.as_path(), made.directory.path()] {
        let refusal = refused(timely(&lister, &ListRequest::of(db)));
        assert_eq!(refusal.error.kind, ErrorKind::NotADatabase);
        assert_eq!(refusal.helper_version, VERSION);
    }
    let absent = made.directory.path().join("absent.db");
    let listing = listing(timely(&lister, &ListRequest::of(absent)));
    assert_eq!(listing.end.database, DatabaseState::Missing);
}

#[test]
fn database_path_may_hold_any_bytes() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let plain = two_sessions("");
    plain.run("PRAGMA wal_checkpoint(TRUNCATE)");
    let up: PathBuf = std::env::current_dir()
        .unwrap()
        .components()
        .skip(1)
        .map(|_| "..")
        .collect();
    let lister = ProcessLister::at(support::lister());
    for name in [
        &b"two words.db"[..],
        b"it's \"quoted\" $(x) `y`.db",
        b"-rf",
        b"--help",
        b"caf\xe9 \xff.db",
        b"line\nend.db",
        b"100%?mode=memory#x.db",
        b"file:x?mode=memory",
        b" ",
    ] {
        let db = directory.path().join(OsStr::from_bytes(name));
        fs::copy(&plain.db, &db).unwrap();
        let relative = up.join(db.strip_prefix("/").unwrap());
        assert!(relative.is_relative());
        for db in [db, relative] {
            let listing = listing(timely(&lister, &ListRequest::of(&db)));
            assert_eq!(ids(&listing), ["ses_2", "ses_1"], "{db:?}");
        }
    }
    // And as a relative name, which only a process with that directory can have.
    for name in ["--db=-rf", "--db=--help", "--db=two words.db"] {
        let output = support::command(support::sessions())
            .args(["list", "--format", "ids", name])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"ses_2\nses_1\n", "{name}: {output:?}");
    }
}

#[test]
fn longest_deadline_is_accepted() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = two_sessions("");
    let output = support::command(support::sessions())
        .args(["list", "--format", "ids", "--deadline", "24h", "--db"])
        .arg(&made.db)
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"ses_2\nses_1\n", "{output:?}");
    for deadline in [Duration::from_secs(1_000_000), Duration::MAX] {
        let request = ListRequest::of(&made.db).deadline(deadline);
        let lister = ProcessLister::at(support::lister());
        assert_eq!(ids(&listing(lister.list(&request))).len(), 2);
        assert_eq!(ids(&listing(InProcessLister.list(&request))).len(), 2);
    }
}

#[test]
fn endless_query_is_killed_at_the_deadline() {
    let _limit = support::limit(60);
    let made = endless();
    let lister = ProcessLister::at(support::lister());
    let request = ListRequest::of(&made.db).deadline(SHORT);
    let timeout = timed_out(timely(&lister, &request));
    assert_eq!(timeout.progress, Progress::Sessions(0));
    assert_eq!(lister.stuck(), 0);
}

#[test]
fn exceeded_cpu_limit_is_reported_as_such() {
    let _limit = support::limit(120);
    let made = endless();
    // A limit lower than the launcher's comes from outside.
    let wrapper = made.directory.path().join("wrapper");
    let helper = support::lister().display();
    support::script(
        &wrapper,
        &format!("#!/bin/sh\nulimit -S -t 1\nexec '{helper}' \"$@\"\n"),
    );
    let lister = ProcessLister::at(wrapper);
    let request = ListRequest::of(&made.db).deadline(Duration::from_secs(90));
    let outcome = timely(&lister, &request);
    let said = outcome.to_string();
    assert!(said.contains("exceeded its CPU time limit"), "{said:?}");
    let (signal, progress) = (libc::SIGXCPU, Progress::Sessions(0));
    assert_eq!(
        broken(outcome).reason,
        FailureReason::Killed { signal, progress }
    );
}

#[test]
fn threads_may_share_a_lister() {
    let _limit = support::limit(90);
    let made = two_sessions("");
    let place = Place::new();
    let real = ProcessLister::at(support::lister());
    let hangs = ProcessLister::at(support::misbehaving(place.0.path(), "hangs-after-hello"));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..15 {
                    let listing = listing(timely(&real, &ListRequest::of(&made.db)));
                    assert_eq!(ids(&listing), ["ses_2", "ses_1"]);
                }
            });
            scope.spawn(|| {
                for _ in 0..5 {
                    let deadline = Duration::from_millis(100);
                    let request = ListRequest::of(&made.db).deadline(deadline);
                    timed_out(timely(&hangs, &request));
                }
            });
        }
    });
    assert_eq!(real.stuck() + hangs.stuck(), 0);
    place.assert_no_process_is_left();
}

#[test]
fn failed_listing_exits_1_with_one_sentence() {
    let _limit = support::limit(60);
    for way in [
        "exits-0-without-end",
        "prints-end-and-exits-3",
        "killed-by-signal",
        "not-a-listing",
        "says-much-and-exits-3",
        "exits-with-error-busy",
        "hangs-after-half-the-rows",
    ] {
        let place = Place::new();
        let output = support::command(support::sessions())
            .args(["list", "--deadline", "1s", "--db", "/nowhere", "--lister"])
            .arg(support::misbehaving(place.0.path(), way))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{way}: {output:?}");
        assert_eq!(output.stdout, b"", "{way}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let sentence = stderr.strip_suffix('\n').unwrap();
        assert!(sentence.starts_with("opencode-sessions: "), "{sentence:?}");
        assert!(!sentence.chars().any(is_unsafe_on_terminal), "{sentence:?}");
        place.assert_no_process_is_left();
    }
}
