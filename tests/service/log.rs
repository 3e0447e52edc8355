//! The log of a service, for people and in JSON.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use opencode_sessions::internals::text::is_unsafe_on_terminal;
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{made, state};
use crate::support::{self, Helper, Host, Made, REAL, serve};

/// Through all that there is to say.
fn eventful(arguments: &[&str]) -> (String, Made) {
    let made = made(&["ses_secret"]);
    made.run("UPDATE session SET title = 'A secret title', directory = '/secret'");
    let helper = Helper::new();
    let mut command = serve(&made.db, &state(&made));
    command
        .args(["--deadline", "1s", "--lister"])
        .arg(helper.program());
    fs::create_dir(state(&made)).unwrap();
    fs::write(state(&made).join("index"), "no snapshot").unwrap();
    let mut host = Host::well(command.args(arguments));
    for way in [
        "exits-with-error-io",
        "not-a-listing",
        "hangs-after-hello",
        "segfaults",
        REAL,
    ] {
        helper.becomes(way);
        host.refresh();
    }
    host.signal(Signal::HUP);
    host.say(b"nonsense\n");
    made.run("DROP TABLE session; CREATE VIEW session AS SELECT 1 AS other");
    host.refresh();
    made.run("DROP VIEW session");
    host.until("no tables of sessions", |model| {
        let reason = &model.only_health()["reason"];
        reason
            .as_str()
            .is_some_and(|reason| reason.contains("has no table session"))
    });
    let away = made.directory.path().join("away");
    for suffix in ["", "-wal", "-shm"] {
        let mut name = made.db.as_os_str().to_owned();
        name.push(suffix);
        fs::rename(&name, &away).unwrap();
    }
    host.until("no file", |model| model.state() == "missing");
    let (status, _, log) = host.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.lines().count() > 8, "{log}");
    (log, made)
}

#[track_caller]
fn assert_keeps_secrets(log: &str, made: &Made) {
    for secret in [
        "ecret",
        made.directory.path().to_str().unwrap(),
        "\u{1b}",
        "disco",
    ] {
        assert!(!log.contains(secret), "{secret:?}: {log}");
    }
}

/// Titles and paths are secrets.
#[test]
fn json_log_is_one_object_a_line_without_secrets() {
    let _limit = support::limit(60);
    let (log, made) = eventful(&["--log-format", "json"]);
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["level"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
        assert!(line["fields"]["message"].is_string(), "{line}");
    }
    assert_keeps_secrets(&log, &made);
}

#[test]
fn text_log_names_the_source_and_each_state_once() {
    let _limit = support::limit(60);
    let (log, made) = eventful(&[]);
    assert_keeps_secrets(&log, &made);
    assert!(log.contains("opencode.db"));
    let said = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(said(" missing "), 1, "{log}");
    assert_eq!(said("kind=\"schema\""), 1, "{log}");
    assert_eq!(said("snapshot"), 1, "{log}");
    // In debug it is all there.
    fs::remove_dir_all(state(&made)).unwrap();
    fs::create_dir(&made.db).unwrap();
    let mut host = Host::greeted(serve(&made.db, &state(&made)).arg("--debug"));
    host.until("a reason", |model| model.state() == "failing");
    let (_, _, log) = host.end_by(Signal::TERM);
    assert!(log.contains(made.db.to_str().unwrap()), "{log}");
}

/// A database of this name, which is served like any other.
#[track_caller]
fn assert_is_served(name: &[u8]) {
    let plain = made(&["ses_1"]);
    plain.run("PRAGMA wal_checkpoint(TRUNCATE)");
    let place = tempfile::tempdir().unwrap();
    let db = place.path().join(OsStr::from_bytes(name));
    fs::copy(&plain.db, &db).unwrap();
    let mut host = Host::well(&mut serve(&db, &place.path().join("state")));
    assert_eq!(host.model.ids(), ["ses_1"], "{db:?}");
    assert_eq!(host.refresh()["outcome"], "ok");
    fs::remove_file(&db).unwrap();
    host.until("its end", |model| model.state() == "missing");
    let (status, _, log) = host.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    let unsafe_in_a_log = |c: char| c != '\n' && is_unsafe_on_terminal(c);
    assert!(!log.contains(unsafe_in_a_log), "{log:?}");
    for line in log.lines() {
        assert!(line.starts_with("20"), "{log:?}");
    }
}

#[test]
fn database_name_with_a_newline_breaks_no_line() {
    let _limit = support::limit(60);
    assert_is_served(b"two words.db");
    assert_is_served(b"line\nend \x1b[31m \xc2\x9b.db");
}

#[test]
fn database_with_a_non_utf8_name_is_served() {
    let _limit = support::limit(60);
    assert_is_served(b"caf\xe9.db");
}
