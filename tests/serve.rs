//! What a running service says and is told, and the supervisors it runs under.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

#[cfg(target_os = "linux")]
#[path = "support/clock.rs"]
mod clock;
#[cfg(target_os = "linux")]
#[path = "support/preload.rs"]
mod preload;
#[path = "support/serving.rs"]
mod serving;
mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use opencode_sessions::marker_text::MarkerText;
use opencode_sessions::text::unsafe_on_a_terminal;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use serving::{
    Helper, Host, PATIENCE, REAL, ask_at, exit_of, expected, list, listed, quick_status, serve,
    text, wait_for,
};
use support::Made;

/// What the service promises for its end.
const END: Duration = Duration::from_secs(2);

/// A database with these sessions. The disk need not keep it.
fn made(ids: &[&str]) -> Made {
    let made = Made::new();
    made.run("PRAGMA synchronous = off");
    for (at, id) in (1..).zip(ids) {
        made.session(id, at);
    }
    made
}

/// Makes the files of a database look as if they had not changed for a minute, so
/// that nobody looks once more.
fn settle(made: &Made) {
    support::settle(&made.db);
    support::settle(&made.db.with_file_name("opencode.db-wal"));
}

/// A place for state beside a database.
fn state(made: &Made) -> PathBuf {
    made.directory.path().join("state")
}

fn start(made: &Made) -> Host {
    Host::well(&mut serve(&made.db, &state(made)))
}

fn socket(made: &Made) -> PathBuf {
    state(made).join("socket")
}

#[track_caller]
fn assert_keys(object: &Value, keys: &[&str]) {
    let found: BTreeSet<_> = object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(found, keys.iter().copied().collect(), "{object:#}");
}

/// `serve` for a supervisor that is no host. It does not survive the test.
struct Daemon {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Daemon {
    fn start(command: &mut Command) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = command
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    fn end_by(mut self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        (exit_of(&mut self.child), self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `serve` without standard input and output.
fn plain(db: &Path, state: &Path) -> Command {
    let mut command = support::command(support::sessions());
    command
        .args([OsStr::new("serve"), OsStr::new("--db"), db.as_os_str()])
        .args([OsStr::new("--state-dir"), state.as_os_str()])
        .stdin(Stdio::null());
    command
}

/// Waits until the service at this socket has listed.
#[track_caller]
fn until_listed(socket: &Path) {
    wait_for("the first listing", || {
        UnixStream::connect(socket).ok()?;
        let status = ask_at(socket, "status").0;
        (status["status"]["sources"][0]["health"]["state"] == "ok").then_some(())
    });
}

// ---- The protocol.

#[test]
fn a_service_says_who_it_is_and_then_all_it_knows() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2"]);
    let host = Host::greeted(&mut serve(&made.db, &state(&made)));
    let [hello, snapshot] = &host.model.events[..2] else {
        panic!();
    };
    assert_keys(
        hello,
        &[
            "type",
            "protocol",
            "version",
            "pid",
            "marker",
            "sources",
            "capabilities",
        ],
    );
    assert_eq!(hello["protocol"], 3);
    assert_eq!(hello["capabilities"], json!([]));
    assert_eq!(hello["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(hello["pid"], host.pid());
    assert!(hello["marker"].is_string());
    let path = made.db.canonicalize().unwrap();
    assert_eq!(
        hello["sources"],
        json!([{"source": "opencode.db", "path": path}])
    );
    assert_keys(snapshot, &["type", "revision", "sources", "sessions"]);
    let [source] = list(&snapshot["sources"]) else {
        panic!("{snapshot}");
    };
    assert_keys(source, &["source", "health"]);
    let mut without_marker = serve(&made.db, &made.directory.path().join("other"));
    let host = Host::greeted(without_marker.arg("--no-marker"));
    assert_eq!(host.model.events[0]["marker"], Value::Null);
}

#[test]
fn a_change_is_told_as_a_difference_of_what_a_list_shows() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2", "ses_3"]);
    let mut host = start(&made);
    assert_eq!(host.model.sessions, expected(&made.db));
    let before = host.model.events.len();
    made.run(
        "BEGIN; DELETE FROM session WHERE id = 'ses_1';
         UPDATE session SET title = 'another \u{1b}[31m' WHERE id = 'ses_2';
         INSERT INTO session SELECT 'ses_4', project_id, workspace_id, 'ses_3', slug, directory,
           path, title, version, share_url, summary_additions, summary_deletions, summary_files,
           summary_diffs, metadata, cost, tokens_input, tokens_output, tokens_reasoning,
           tokens_cache_read, tokens_cache_write, revert, permission, agent, model, time_created,
           time_updated, time_compacting, time_archived FROM session WHERE id = 'ses_3';
         COMMIT",
    );
    made.session("ses_5", 9);
    host.until("the changes", |model| {
        model.ids() == ["ses_2", "ses_3", "ses_5"]
    });
    assert_eq!(host.model.sessions, expected(&made.db));
    let changes = host.model.of_type("change", before);
    let upserted: Vec<_> = changes
        .iter()
        .flat_map(|change| list(&change["upserted"]))
        .collect();
    let ids: BTreeSet<_> = upserted
        .iter()
        .map(|session| text(&session["id"]))
        .collect();
    assert_eq!(
        ids,
        ["ses_2", "ses_5"].map(str::to_owned).into(),
        "{upserted:#?}"
    );
    let removed: Vec<_> = changes
        .iter()
        .flat_map(|change| list(&change["removed"]))
        .collect();
    assert_eq!(removed, ["ses_1"]);
    assert_keys(changes[0], &["type", "revision", "upserted", "removed"]);
    // Nothing is announced when nothing changed.
    let before = host.model.events.len();
    host.refresh();
    assert_eq!(host.model.events.len(), before + 1);
}

#[test]
fn a_health_says_its_state_and_why_it_fails() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let helper = Helper::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(helper.program()));
    let mut event = host.model.of_type("health", 0)[0].clone();
    let as_of = event.as_object_mut().unwrap().remove("asOf").unwrap();
    assert!(as_of.as_i64() > Some(1_700_000_000_000), "{as_of}");
    assert_eq!(
        event,
        json!({"type": "health", "source": "opencode.db", "health": {"state": "ok"}})
    );
    helper.becomes("exits-with-error-io");
    let outcome = host.refresh();
    assert_keys(&outcome, &["source", "outcome", "reason"]);
    assert_eq!(outcome["outcome"], "failed");
    let event = host.model.of_type("health", 0)[1].clone();
    let health = &event["health"];
    assert_keys(
        health,
        &["state", "since", "kind", "reason", "attempts", "nextTry"],
    );
    assert_eq!(health["state"], "failing");
    assert_eq!(health["attempts"], 1);
    assert_eq!(health["reason"], outcome["reason"]);
    let now = jiff::Timestamp::now().as_millisecond();
    let (since, next) = (
        health["since"].as_i64().unwrap(),
        health["nextTry"].as_i64().unwrap(),
    );
    assert!((now - 30_000..=now).contains(&since), "{health}");
    assert!((since + 700..since + 3_000).contains(&next), "{health}");
    let status = host.status();
    assert_eq!(status["failures"], json!({"io": 1}));
}

#[test]
fn a_reply_has_the_id_of_its_command_whatever_that_is() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut host = start(&made);
    for id in [
        json!(7),
        json!(-1),
        json!(i64::MAX),
        json!("a \u{1b} text"),
        json!(""),
        Value::Null,
    ] {
        for command in ["status", "snapshot", "refresh"] {
            host.say(format!("{}\n", json!({"id": id, "type": command})).as_bytes());
            let before = host.model.events.len();
            host.until("the reply", |model| {
                model.events.last().unwrap()["type"] == "reply"
            });
            let reply = host.model.events.last().unwrap().clone();
            assert_eq!(reply["id"], id);
            match command {
                "status" => assert_keys(&reply, &["type", "id", "status"]),
                "refresh" => assert_eq!(
                    reply["refreshed"],
                    json!([{"source": "opencode.db", "outcome": "ok"}])
                ),
                _ => {
                    assert_eq!(reply["done"], true);
                    let snapshots = host.model.of_type("snapshot", before);
                    assert_eq!(snapshots.len(), 1, "before its reply");
                }
            }
            host.say(b"\n \t\r\n");
            // So that the last event is no reply.
            host.say(b"{\"type\":\"snapshot\",\"id\":\"again\"}\n");
            host.until("the next", |model| {
                model.events.last().unwrap()["id"] == "again"
            });
            host.model.events.push(json!({"type": "none"}));
        }
    }
    host.say(b"{\"type\":\"status\"}\n");
    host.until("the reply", |model| {
        model.events.last().unwrap()["type"] == "reply"
    });
    assert_eq!(host.model.events.last().unwrap()["id"], Value::Null);
}

#[test]
fn a_status_has_the_health_and_the_counts() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2"]);
    let mut host = start(&made);
    let status = host.status();
    assert_keys(
        &status,
        &[
            "version",
            "pid",
            "uptimeMs",
            "revision",
            "sessions",
            "sources",
            "spawns",
            "listings",
            "failures",
            "latency",
            "bytesRead",
            "memory",
            "readers",
        ],
    );
    assert_keys(&status["latency"], &["count", "p50", "p99", "max"]);
    assert_eq!(status["pid"], host.pid());
    assert_eq!(status["sessions"], 2);
    assert_eq!(status["readers"], 1);
    assert_eq!(status["revision"], host.model.revision);
    assert!(status["spawns"].as_u64() >= Some(1));
    assert!(status["bytesRead"].as_u64() > Some(100));
    let source = &status["sources"][0];
    assert_keys(
        source,
        &[
            "source", "health", "asOf", "sessions", "watch", "listing", "scan", "stuck",
        ],
    );
    assert_eq!(source["health"], json!({"state": "ok"}));
    assert_eq!(source["watch"], "events");
    let before = status["spawns"].as_u64().unwrap();
    host.refresh();
    assert_eq!(host.status()["spawns"], before + 1);
}

#[test]
fn the_events_that_a_refresh_causes_come_before_its_reply() {
    let _limit = support::limit(60);
    let made = made(&[]);
    let mut host = start(&made);
    for n in 0..30 {
        let id = format!("ses_{n}");
        made.session(&id, n);
        assert_eq!(host.refresh()["outcome"], "ok");
        assert!(host.model.sessions.contains_key(&id), "{n}");
    }
    // Also a failure's, and what follows from it.
    made.run("DROP TABLE session; CREATE VIEW session AS SELECT 1 AS other");
    assert_eq!(host.refresh()["outcome"], "failed");
    assert_eq!(host.model.state(), "failing");
    assert_eq!(host.model.ids().len(), 30);
}

/// A helper that reads what it is to print, says so, and waits until it may end.
struct Scripted {
    helper: Helper,
    place: tempfile::TempDir,
}

impl Scripted {
    fn new() -> Self {
        let (helper, place) = (Helper::new(), tempfile::tempdir().unwrap());
        let scripted = Self { helper, place };
        scripted.prints(&[]);
        scripted.helper.becomes_script(&format!(
            "#!/bin/sh\ncd '{}'\necho begin >> log\ncat listing\nwhile [ -e hold ]; do sleep 0.02; done\necho end >> log\n",
            scripted.place.path().display()
        ));
        scripted
    }

    fn prints(&self, ids: &[&str]) {
        let mut lines = vec![json!({"type": "hello", "protocol": 1, "lister": "script"})];
        lines.extend(
            ids.iter()
                .map(|id| json!({"type": "session", "id": id, "store": "v1"})),
        );
        lines.push(
            json!({"type": "end", "sessions": ids.len(), "database": "ready", "elapsedMs": 1,
            "scan": {"mode": "none", "progress": 1.0, "frames": 0, "bytes": 0}}),
        );
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (new, listing) = (
            self.place.path().join("new"),
            self.place.path().join("listing"),
        );
        fs::write(&new, lines).unwrap();
        fs::rename(new, listing).unwrap();
    }

    fn hold(&self, on: bool) {
        let hold = self.place.path().join("hold");
        if on {
            File::create(hold).unwrap();
        } else {
            fs::remove_file(hold).unwrap();
        }
    }

    /// `begin` and `end` of every launch.
    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn begun(&self) -> usize {
        self.log().iter().filter(|line| *line == "begin").count()
    }
}

#[test]
fn there_is_one_listing_at_a_time_and_a_request_during_it_makes_one_more_follow() {
    let _limit = support::limit(60);
    let made = made(&[]);
    settle(&made);
    let scripted = Scripted::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    let before = scripted.begun();
    scripted.prints(&["ses_old"]);
    scripted.hold(true);
    // Else there is nothing to list.
    support::touch(&made.db);
    let first = host.tell("refresh");
    wait_for("the first launch", || {
        (scripted.begun() > before).then_some(())
    });
    // What the helper in flight has printed is older than these requests.
    thread::sleep(Duration::from_millis(200));
    scripted.prints(&["ses_new"]);
    let second: Vec<_> = (0..10).map(|_| host.tell("refresh")).collect();
    host.take_for(Duration::from_millis(300));
    assert_eq!(scripted.begun(), before + 1, "one at a time");
    assert_eq!(host.model.of_type("reply", 0).len(), 0);
    scripted.hold(false);
    host.reply(first);
    assert_eq!(host.model.ids(), ["ses_old"]);
    for id in second {
        host.until("the others", |model| {
            model
                .events
                .iter()
                .any(|event| event["type"] == "reply" && event["id"] == id)
        });
    }
    assert_eq!(
        host.model.ids(),
        ["ses_new"],
        "a later listing answers a later request"
    );
    assert_eq!(scripted.begun(), before + 2, "ten requests make one more");
    // Never two at once.
    let log = wait_for("the end", || {
        Some(scripted.log()).filter(|log| log.len().is_multiple_of(2))
    });
    assert!(
        log.chunks(2).all(|pair| pair == ["begin", "end"]),
        "{log:?}"
    );
}

#[test]
fn a_change_during_a_listing_makes_one_more_follow() {
    let _limit = support::limit(60);
    let made = made(&[]);
    let scripted = Scripted::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    for round in 0..2 {
        let before = scripted.begun();
        let (old, new) = (format!("ses_old_{round}"), format!("ses_new_{round}"));
        scripted.prints(&[&old]);
        scripted.hold(true);
        made.session(&old, round);
        wait_for("the first launch", || {
            (scripted.begun() > before).then_some(())
        });
        thread::sleep(Duration::from_millis(200));
        scripted.prints(&[&new]);
        made.session(&new, round);
        host.take_for(Duration::from_millis(200));
        assert_eq!(scripted.begun(), before + 1, "one at a time");
        scripted.hold(false);
        host.until("the old one", |model| model.ids() == [old.as_str()]);
        host.until("the new one", |model| model.ids() == [new.as_str()]);
    }
}

/// All that there is to see of the change is seen while the listing runs, also the
/// look at files that have come to rest.
#[test]
fn a_change_long_before_the_end_of_a_listing_makes_one_more_follow() {
    let _limit = support::limit(60);
    let made = made(&[]);
    let scripted = Scripted::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    let before = scripted.begun();
    scripted.prints(&["ses_old"]);
    scripted.hold(true);
    made.session("ses_old", 1);
    wait_for("the first launch", || {
        (scripted.begun() > before).then_some(())
    });
    thread::sleep(Duration::from_millis(200));
    scripted.prints(&["ses_new"]);
    made.session("ses_new", 2);
    host.take_for(Duration::from_secs(4));
    assert_eq!(scripted.begun(), before + 1, "one at a time");
    scripted.hold(false);
    host.until("the old one", |model| model.ids() == ["ses_old"]);
    host.until("the new one", |model| model.ids() == ["ses_new"]);
}

/// Its files look again as they did when they were last listed, and what was listed
/// meanwhile is another's.
#[test]
fn a_database_that_is_another_one_only_while_it_is_listed_is_listed_again() {
    let _limit = support::limit(60);
    let made = made(&[]);
    made.run("PRAGMA wal_checkpoint(TRUNCATE)");
    settle(&made);
    let (own, other) = (
        made.db.with_file_name("own.db"),
        made.db.with_file_name("other.db"),
    );
    fs::hard_link(&made.db, &own).unwrap();
    fs::copy(&made.db, &other).unwrap();
    let scripted = Scripted::new();
    scripted.prints(&["ses_own"]);
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    assert_eq!(host.model.ids(), ["ses_own"]);
    let before = scripted.begun();
    scripted.prints(&["ses_other"]);
    scripted.hold(true);
    fs::rename(&other, &made.db).unwrap();
    wait_for("a launch", || (scripted.begun() > before).then_some(()));
    thread::sleep(Duration::from_millis(200));
    scripted.prints(&["ses_own"]);
    fs::rename(&own, &made.db).unwrap();
    host.take_for(Duration::from_millis(500));
    scripted.hold(false);
    host.until("the other one", |model| model.ids() == ["ses_other"]);
    host.until("its own again", |model| model.ids() == ["ses_own"]);
}

/// The pauses after four failures are twelve seconds together, at the least.
#[test]
fn a_refresh_that_is_asked_for_does_not_wait_for_the_pause_after_a_failure() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let helper = Helper::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(helper.program()));
    helper.becomes("exits-with-error-io");
    let started = Instant::now();
    for _ in 0..4 {
        assert_eq!(host.refresh()["outcome"], "failed");
    }
    helper.becomes(REAL);
    assert_eq!(host.refresh()["outcome"], "ok");
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
}

/// SQLite writes to the log, may wait for the disk, and only then lets readers see
/// it, in a file that nobody watches.
#[test]
fn a_commit_that_shows_a_moment_after_the_file_has_changed_is_not_overlooked() {
    let _limit = support::limit(60);
    let made = made(&[]);
    let scripted = Scripted::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    let before = host.status()["listings"].as_u64();
    made.session("ses_1", 1);
    host.until_status("a listing", |status| status["listings"].as_u64() > before);
    scripted.prints(&["ses_1"]);
    host.until("the session", |model| model.ids() == ["ses_1"]);
}

#[test]
fn a_change_is_told_soon_and_a_busy_database_is_listed_at_a_pace() {
    let _limit = support::limit(60);
    let made = made(&[]);
    let mut host = start(&made);
    let quickest = (0..4)
        .map(|n| {
            // Not so soon after the last listing that this one has to wait.
            host.take_for(Duration::from_millis(600));
            let id = format!("ses_{n}");
            made.session(&id, n);
            let committed = Instant::now();
            host.until("the change", |model| model.ids().contains(&id.as_str()));
            committed.elapsed()
        })
        .min();
    assert!(quickest < Some(Duration::from_millis(450)), "{quickest:?}");
    let before = host.status()["spawns"].as_u64().unwrap();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        made.run("UPDATE session SET time_updated = time_updated + 1");
        host.take_for(Duration::from_millis(10));
    }
    // Two a second.
    let spawns = host.status()["spawns"].as_u64().unwrap() - before;
    assert!((2..=8).contains(&spawns), "{spawns}");
}

#[test]
fn sessions_are_looked_up_in_all_sources_at_once() {
    let _limit = support::limit(60);
    let (one, other) = (
        made(&["ses_one", "ses_both"]),
        made(&["ses_other", "ses_both"]),
    );
    one.run("UPDATE session SET time_archived = 1, time_updated = 99 WHERE id = 'ses_both'");
    other.run(
        "UPDATE session SET parent_id = 'ses_both' WHERE id = 'ses_other';
         UPDATE session SET title = 'the older one' WHERE id = 'ses_both'",
    );
    let directory = one.directory.path().join("other");
    symlink(other.directory.path(), &directory).unwrap();
    let mut command = serve(&one.db, &state(&one));
    command.arg("--db").arg(directory.join("opencode.db"));
    let mut host = Host::greeted(&mut command);
    let ask = |host: &mut Host, command: &str, ids: &[&str]| {
        let question = json!({"type": command, "ids": ids, "id": "a question"});
        host.say(format!("{question}\n").as_bytes());
        host.until("the answers", |model| {
            let last = model.events.last().unwrap();
            last["type"] == "reply" && last["id"] == "a question"
        });
        let reply = host.model.events.last().unwrap().clone();
        // So that the last event is no reply.
        host.model.events.push(json!({"type": "none"}));
        reply
    };
    let reply = ask(&mut host, "get", &["ses_other", "ses_none", "ses_both"]);
    let answers = list(&reply["answers"]);
    assert_eq!(answers.len(), 3);
    assert_eq!(
        (&answers[0]["type"], &answers[0]["id"]),
        (&json!("session"), &json!("ses_other"))
    );
    assert_eq!(answers[0]["parentId"], "ses_both");
    assert!(answers[0]["project"].is_string());
    assert_eq!(answers[1], json!({"type": "absent", "id": "ses_none"}));
    assert_eq!(answers[2]["title"], "Title of ses_both", "the newer one");
    assert_eq!(answers[2]["timeArchived"], 1);
    assert_ne!(answers[0]["source"], answers[2]["source"]);
    let reply = ask(&mut host, "roots", &["ses_other", "ses_none"]);
    let root = json!({"type": "root", "id": "ses_other", "root": "ses_both", "directory": "/usr",
        "source": answers[0]["source"]});
    let unresolved = json!({"type": "unresolved", "id": "ses_none", "reason": "absent"});
    assert_eq!(reply["answers"], json!([root, unresolved]));
    // Nobody can say that there is none where one of the sources cannot be asked.
    other.run("DROP TABLE session; CREATE VIEW session AS SELECT 1 AS id");
    let reply = ask(&mut host, "get", &["ses_none", "ses_one"]);
    assert_eq!(reply["answers"][0]["type"], "failed");
    assert_eq!(reply["answers"][1]["type"], "session");
    for ids in [vec![], vec!["x"; 1001], vec!["a\nb"]] {
        let ids = json!({"type": "get", "ids": ids, "id": 7}).to_string();
        host.say(format!("{ids}\n").as_bytes());
        host.until("an error", |model| {
            model.events.last().unwrap()["error"].is_object()
        });
        host.model.events.push(json!({"type": "none"}));
    }
    assert_eq!(host.status()["sources"].as_array().unwrap().len(), 2);
}

#[test]
fn look_ups_by_a_helper_that_hangs_end_and_hold_up_nothing() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let helper = Helper::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(helper.program()));
    helper.becomes("hangs-after-hello");
    for _ in 0..9 {
        host.say(b"{\"type\":\"get\",\"ids\":[\"ses_1\"],\"id\":1}\n");
    }
    // One too many.
    host.until("a refusal", |model| {
        model.events.last().unwrap()["error"].is_object()
    });
    quick_status(&socket(&made));
    host.until("the answers", |model| {
        let replies = model.of_type("reply", 0);
        replies
            .iter()
            .filter(|reply| reply["answers"][0]["type"] == "failed")
            .count()
            == 8
    });
    // And at the end they are ended.
    let before = helper.pids().len();
    host.say(b"{\"type\":\"roots\",\"ids\":[\"ses_1\"]}\n");
    wait_for("its launch", || {
        (helper.pids().len() > before).then_some(())
    });
    let started = Instant::now();
    host.leave();
    host.end();
    assert!(started.elapsed() < END);
    assert_eq!(helper.running(), []);
}

/// A listing does not wait for the marker: what it did not find out in its budget,
/// the next ones do, and each mark is told when it is known.
#[test]
fn a_mark_that_becomes_known_later_is_told_as_a_change() {
    let _limit = support::limit(90);
    let made = made(&["ses_marked", "ses_other"]);
    made.run("BEGIN");
    for _ in 0..600 {
        made.part("ses_other", &"x".repeat(60_000));
    }
    made.part("ses_marked", MarkerText::DEFAULT);
    made.run("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)");
    settle(&made);
    let helper = Helper::new();
    // The real one, with one of the two seconds that the service gives it in a
    // thousand.
    helper.becomes_script(
        "#!/bin/sh\nfor word; do\n  shift\n  [ \"$word\" = 2000 ] && word=2\n  set -- \"$@\" \"$word\"\ndone\n\
         exec \"${0%/*}/opencode-lister\" \"$@\"\n",
    );
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(helper.program()));
    let mark = |sessions: &[Value], id: &str| {
        let session = sessions.iter().find(|session| session["id"] == id);
        session.map(|session| session["marked"].clone())
    };
    host.until("all marks", |model| {
        model
            .sessions
            .values()
            .all(|session| session["marked"].is_boolean())
    });
    let told = |id| {
        let changes = host.model.of_type("change", 0);
        let marks = changes
            .iter()
            .filter_map(|change| mark(list(&change["upserted"]), id));
        marks.collect::<Vec<_>>()
    };
    assert_eq!(told("ses_marked"), [Value::Null, Value::Bool(true)]);
    assert_eq!(told("ses_other"), [Value::Null, Value::Bool(false)]);
    let status = host.status();
    assert_eq!(status["sources"][0]["scan"]["progress"], 1.0, "{status}");
    assert!(status["listings"].as_u64().unwrap() > 2, "{status}");
}

#[test]
fn a_line_that_is_no_command_is_told_why_and_changes_nothing() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut host = start(&made);
    let before = host.status();
    let deep = "[".repeat(100_000);
    let wrong: [(&[u8], &str); 13] = [
        (b"hello", "not_an_object"),
        (b"{", "not_an_object"),
        (b"{}", "invalid"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"\"refresh\"", "not_an_object"),
        (br#"{"type":"nonsense"}"#, "unknown_command"),
        (br#"{"type":"Refresh"}"#, "unknown_command"),
        (br#"{"type":7}"#, "invalid"),
        (br#"{"type":"refresh"} {"type":"refresh"}"#, "not_an_object"),
        (b"{\"type\":\"refresh\",\"id\":\"\xff\"}", "not_an_object"),
        (b"\x00\x1b[31m\x7f", "not_an_object"),
        (deep.as_bytes(), "not_an_object"),
    ];
    for (line, code) in wrong {
        host.say(line);
        host.say(b"\n");
        host.until("an error", |model| {
            model.events.last().unwrap()["type"] == "reply"
                && model.events.last().unwrap()["error"].is_object()
        });
        let reply = host.model.events.last().unwrap().clone();
        assert_keys(&reply, &["type", "id", "error"]);
        assert_keys(&reply["error"], &["code", "message"]);
        assert_eq!(reply["error"]["code"], code, "{reply}");
        // So that the next one is another.
        host.model.events.push(json!({"type": "none"}));
    }
    let after = host.status();
    for same in ["revision", "spawns", "listings", "failures", "readers"] {
        assert_eq!(after[same], before[same], "{same}");
    }
}

#[test]
fn an_over_long_line_is_refused_as_a_whole() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut host = start(&made);
    let long = |length: usize| "x".repeat(length);
    for line in [
        format!("{{\"type\":\"shutdown\",\"id\":\"{}\"}}", long(2 << 20)),
        format!("{}{{\"type\":\"shutdown\"}}", long(1 << 20)),
        long((1 << 20) + 1),
        long(1 << 20),
    ] {
        host.say(line.as_bytes());
        host.say(b"\n{\"type\":\"status\",\"id\":\"after\"}\n");
        let before = host.model.events.len();
        host.until("the next reply", |model| {
            model.events.last().unwrap()["id"] == "after"
        });
        let replies = host.model.of_type("reply", before);
        assert_eq!(replies.len(), 2, "one for the whole line: {replies:?}");
        let said = text(&replies[0]["error"]["message"]);
        assert!(said.contains("at most 1048576 bytes"), "{said}");
        assert_eq!(replies[0]["error"]["code"], "too_long");
        host.model.events.push(json!({"type": "none"}));
    }
    // As long as may be.
    let more = long((1 << 20) - 1 - r#"{"type":"status","id":"all","more":""}"#.len());
    let line = format!("{{\"type\":\"status\",\"id\":\"all\",\"more\":\"{more}\"}}\n");
    assert_eq!(line.len(), 1 << 20);
    host.say(line.as_bytes());
    host.until("the reply", |model| {
        model.events.last().unwrap()["type"] == "reply"
    });
    let reply = host.model.events.last().unwrap();
    assert_eq!(reply["id"], "all");
    assert!(reply["status"].is_object());
}

// ---- The end.

#[test]
fn the_end_of_standard_input_ends_it_with_a_bye() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut host = start(&made);
    // A last command without a line end is one.
    host.say(b"{\"type\":\"status\",\"id\":\"last\"}");
    host.leave();
    let (status, model, log) = host.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(model.of_type("reply", 0).len(), 1);
    let bye = model.events.last().unwrap();
    assert_eq!(
        *bye,
        json!({"type": "bye", "code": "ended", "reason": "its standard input ended"})
    );
    assert!(!socket(&made).exists());
}

#[test]
fn a_shutdown_is_replied_to_and_ends_it() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut host = start(&made);
    host.tell("shutdown");
    let (status, model, log) = host.end();
    assert_eq!(status.code(), Some(0), "{log}");
    let [.., reply, bye] = &model.events[..] else {
        panic!();
    };
    assert_eq!(*reply, json!({"type": "reply", "id": 1, "done": true}));
    assert_eq!(bye["type"], "bye");
}

#[test]
fn a_signal_ends_it_in_time_also_while_a_helper_hangs() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let hanging = [
        "ignores-every-signal",
        "stops-itself",
        "drips",
        "grandchild-of-a-hanging-helper",
    ];
    for (way, signal) in hanging
        .into_iter()
        .zip([Signal::TERM, Signal::INT].into_iter().cycle())
    {
        let helper = Helper::new();
        helper.becomes(way);
        let mut command = serve(&made.db, &state(&made));
        let host = Host::greeted(command.arg("--lister").arg(helper.program()));
        wait_for("the helper", || {
            (!helper.running().is_empty()).then_some(())
        });
        let asked = Instant::now();
        let (status, model, log) = host.end_by(signal);
        assert!(asked.elapsed() < END, "{way}: {:?}", asked.elapsed());
        assert_eq!(status.code(), Some(0), "{way}: {log}");
        let name = if signal == Signal::TERM {
            "SIGTERM"
        } else {
            "SIGINT"
        };
        assert_eq!(
            *model.events.last().unwrap(),
            json!({"type": "bye", "code": "ended", "reason": name})
        );
        wait_for("the helper's end", || {
            helper.running().is_empty().then_some(())
        });
    }
}

#[test]
fn it_ends_in_time_also_where_nobody_reads_its_output() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    for n in 0..500 {
        made.session(&format!("ses_more_{n}"), n);
    }
    for leaves in [true, false] {
        let mut host = start(&made);
        let unread = host.stop_reading();
        for _ in 0..20 {
            host.tell("snapshot");
        }
        // It has all that it can read.
        thread::sleep(Duration::from_millis(300));
        let asked = Instant::now();
        if leaves {
            host.leave();
        } else {
            host.signal(Signal::TERM);
        }
        wait_for("the end", || (!socket(&made).exists()).then_some(()));
        wait_for("its exit", || host.has_exited().then_some(()));
        assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
        drop(unread);
    }
}

#[test]
fn it_ends_in_time_also_where_nobody_reads_either_output() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    for n in 0..500 {
        made.session(&format!("ses_more_{n}"), n);
    }
    let (_unread, full) = full_pipe();
    let mut child = serve(&made.db, &state(&made))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(full)
        .spawn()
        .unwrap();
    until_listed(&socket(&made));
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..20 {
        stdin.write_all(b"{\"type\":\"snapshot\"}\n").unwrap();
    }
    thread::sleep(Duration::from_millis(300));
    let asked = Instant::now();
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(exit_of(&mut child).code(), Some(0));
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
}

#[test]
fn a_host_that_closes_its_output_ends_it() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut child = serve(&made.db, &state(&made))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    drop(lines);
    made.session("ses_2", 2);
    assert_eq!(exit_of(&mut child).code(), Some(0));
}

// ---- A reader that stops reading.

#[test]
fn a_reader_that_stops_reading_holds_up_nobody_and_is_brought_up_again() {
    let _limit = support::limit(90);
    let made = made(&["ses_1", "ses_2"]);
    for n in 0..100 {
        made.session(&format!("ses_more_{n}"), n);
    }
    let mut host = start(&made);
    let unread = host.stop_reading();
    // A connection that never reads, too.
    let silent = UnixStream::connect(socket(&made)).unwrap();
    let mut asking = silent.try_clone().unwrap();
    thread::spawn(move || {
        // It waits as soon as too many are not answered.
        while asking.write_all(b"{\"type\":\"snapshot\"}\n").is_ok() {}
    });
    for _ in 0..600 {
        host.tell("snapshot");
    }
    for batch in 0..10 {
        made.run("BEGIN");
        for n in 0..100 {
            made.session(&format!("ses_{batch}_{n}"), n);
        }
        made.run("DELETE FROM session WHERE id LIKE 'ses_more_%' AND time_updated % 10 = 0");
        made.run(&format!(
            "UPDATE session SET title = 'batch {batch}' WHERE id = 'ses_1'; COMMIT"
        ));
        let (reply, _) = ask_at(&socket(&made), "refresh");
        assert_eq!(reply["refreshed"][0]["outcome"], "ok");
        let status = quick_status(&socket(&made));
        assert_eq!(
            status["sessions"].as_u64(),
            Some(2 + 90 + 100 * (batch + 1))
        );
    }
    drop(unread);
    let _ = silent.shutdown(Shutdown::Both);
    let all = expected(&made.db);
    host.until("the fresh snapshot", |model| model.sessions == all);
    let snapshots = host.model.of_type("snapshot", 0).len();
    assert!(snapshots < 400, "{snapshots} were kept for it");
    // And it goes on from there.
    made.session("ses_last", 1);
    host.until("one more change", |model| model.ids().contains(&"ses_last"));
    let last = host.model.events.last().unwrap();
    assert_eq!(last["type"], "change");
    assert_eq!(list(&last["upserted"]).len(), 1);
}

/// Nothing is lost of what a slow reader asks, and nothing piles up: what it has not read
/// the replies to is not taken.
#[test]
fn a_reader_that_does_not_read_its_replies_is_not_read_from_and_loses_none() {
    const COMMANDS: usize = 20_000;
    let _limit = support::limit(120);
    let made = made(&["ses_1"]);
    settle(&made);
    let mut host = start(&made);
    let mut silent = UnixStream::connect(socket(&made)).unwrap();
    let before = host.status()["memory"].as_u64().unwrap();
    let mut writing = silent.try_clone().unwrap();
    let writer = thread::spawn(move || {
        for id in 0..COMMANDS {
            let what = ["status", "snapshot", "nonsense"][id % 3];
            let line = format!("{{\"type\":\"{what}\",\"id\":{id}}}\n");
            writing.write_all(line.as_bytes()).unwrap();
        }
    });
    for _ in 0..50 {
        quick_status(&socket(&made));
    }
    assert!(!writer.is_finished(), "all of it was taken");
    let after = host.status()["memory"].as_u64().unwrap();
    assert!(after < before + (8 << 20), "from {before} to {after} bytes");
    // And now it reads.
    silent
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let lines = BufReader::new(&mut silent).lines().map(Result::unwrap);
    let mut ids = lines.filter_map(|line| {
        let event: Value = serde_json::from_str(&line).unwrap();
        (event["type"] == "reply").then(|| event["id"].as_u64())
    });
    for id in 0..COMMANDS {
        assert_eq!(ids.next(), Some(Some(id as u64)));
    }
    writer.join().unwrap();
    assert_eq!(host.refresh()["outcome"], "ok");
}

// ---- Clients of the socket that do half of what clients do.

/// Does with a connection what a client is not to do.
#[cfg(target_os = "linux")]
type HalfClient = fn(UnixStream) -> Leave;

/// Ends a client, after it has seen what it was to see.
#[cfg(target_os = "linux")]
type Leave = Box<dyn FnOnce()>;

/// A program whose standard input is this connection. It is killed, whatever state it is in.
#[cfg(target_os = "linux")]
struct Program(Child);

#[cfg(target_os = "linux")]
impl Program {
    fn start(script: &str, stream: UnixStream) -> Self {
        let mut command = support::command(Path::new("/bin/sh"));
        let command = command.args(["-c", script]);
        let command = command.stdin(std::os::fd::OwnedFd::from(stream));
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }
}

#[cfg(target_os = "linux")]
impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads until the reply with this id.
#[cfg(target_os = "linux")]
fn read_reply(stream: &UnixStream, id: &str) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = format!("\"id\":\"{id}\"");
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("{\"type\":\"reply\"") && line.contains(&end)));
}

/// The other half comes at the end, and counts.
#[cfg(target_os = "linux")]
fn half_a_line(mut stream: UnixStream) -> Leave {
    stream.write_all(b"{\"type\":\"status\",").unwrap();
    Box::new(move || {
        stream.write_all(b"\"id\":\"half\"}\n").unwrap();
        read_reply(&stream, "half");
    })
}

#[cfg(target_os = "linux")]
fn half_a_line_and_no_more(mut stream: UnixStream) -> Leave {
    stream.write_all(b"{\"type\":\"status\"").unwrap();
    Box::new(move || drop(stream))
}

/// Far more than the longest command.
#[cfg(target_os = "linux")]
fn line_without_an_end(mut stream: UnixStream) -> Leave {
    let mut writing = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        for _ in 0..16 {
            writing.write_all(&[b'x'; 1 << 20]).unwrap();
        }
    });
    Box::new(move || {
        writer.join().unwrap();
        stream
            .write_all(b"\n{\"type\":\"status\",\"id\":\"next\"}\n")
            .unwrap();
        read_reply(&stream, "next");
    })
}

/// As one byte a second, but that nobody waits so long for the end of it.
#[cfg(target_os = "linux")]
fn byte_after_byte(stream: UnixStream) -> Leave {
    let mut writing = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        for byte in b"{\"type\":\"status\",\"id\":\"slow\"}\n" {
            writing.write_all(&[*byte]).unwrap();
            thread::sleep(Duration::from_millis(50));
        }
    });
    Box::new(move || {
        read_reply(&stream, "slow");
        writer.join().unwrap();
    })
}

/// It still gets the changes.
#[cfg(target_os = "linux")]
fn no_more_commands(stream: UnixStream) -> Leave {
    stream.shutdown(Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Box::new(move || {
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.starts_with("{\"type\":\"change\"")));
    })
}

/// Nothing can be said to it any more, so its connection is over.
#[cfg(target_os = "linux")]
fn no_more_events(stream: UnixStream) -> Leave {
    stream.shutdown(Shutdown::Read).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let writer = thread::spawn(move || {
        let mut stream = stream;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Err(error) = stream.write_all(b"{\"type\":\"snapshot\"}\n") {
                return Some(error.kind());
            }
        }
        None
    });
    Box::new(move || {
        let ended = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        let error = writer.join().unwrap();
        assert!(error.is_some_and(|kind| ended.contains(&kind)), "{error:?}");
    })
}

#[cfg(target_os = "linux")]
fn stopped_with_a_full_buffer(mut stream: UnixStream) -> Leave {
    stream.set_nonblocking(true).unwrap();
    // More than the service takes without being read.
    while stream.write_all(b"{\"type\":\"snapshot\"}\n").is_ok() {}
    stream.set_nonblocking(false).unwrap();
    let program = Program::start("exec cat > /dev/null", stream);
    kill_process(Pid::from_child(&program.0), Signal::STOP).unwrap();
    Box::new(move || drop(program))
}

#[cfg(target_os = "linux")]
fn killed_in_a_snapshot(stream: UnixStream) -> Leave {
    let mut program = Program::start("head -c 100000 > /dev/null; echo; exec sleep 1000", stream);
    let mut word = [0];
    let mut output = program.0.stdout.take().unwrap();
    output.read_exact(&mut word).unwrap();
    Box::new(move || drop(program))
}

/// Threads and descriptors of a process.
#[cfg(target_os = "linux")]
fn kept_by(pid: u32) -> [usize; 2] {
    ["task", "fd"].map(|what| {
        let entries = fs::read_dir(format!("/proc/{pid}/{what}"));
        entries.unwrap().count()
    })
}

/// The same when nothing has ended or begun for a while: listings have threads, too.
#[cfg(target_os = "linux")]
fn kept_at_rest(pid: u32) -> [usize; 2] {
    wait_for("rest", || {
        let before = kept_by(pid);
        let is_at_rest = (0..10).all(|_| {
            thread::sleep(Duration::from_millis(50));
            kept_by(pid) == before
        });
        is_at_rest.then_some(before)
    })
}

#[cfg(target_os = "linux")]
#[test]
fn half_clients_delay_nobody_and_leave_nothing() {
    const CLIENTS: usize = 8;
    let _limit = support::limit(240);
    let made = made(&["ses_1"]);
    made.run("BEGIN");
    // A snapshot is more than a buffer of the system holds.
    for n in 0..2_000 {
        made.session(&format!("ses_more_{n}"), n);
    }
    made.run("COMMIT");
    settle(&made);
    let mut host = start(&made);
    let socket = socket(&made);
    quick_status(&socket);
    host.until_status("one reader", |status| status["readers"] == 1);
    let before = kept_at_rest(host.pid());
    let clients: [(&str, HalfClient); 8] = [
        ("half a line", half_a_line),
        ("half a line and no more", half_a_line_and_no_more),
        ("a line without an end", line_without_an_end),
        ("byte after byte", byte_after_byte),
        ("no more commands", no_more_commands),
        ("no more events", no_more_events),
        ("stopped with a full buffer", stopped_with_a_full_buffer),
        ("killed in a snapshot", killed_in_a_snapshot),
    ];
    for (at, (what, client)) in clients.into_iter().enumerate() {
        println!("{what}");
        let memory = host.status()["memory"].as_u64().unwrap();
        let connected = (0..CLIENTS).map(|_| client(UnixStream::connect(&socket).unwrap()));
        let leave: Vec<_> = connected.collect();
        for n in 0..10 {
            let title = format!("{at}.{n}");
            made.run(&format!(
                "UPDATE session SET title = '{title}' WHERE id = 'ses_1'"
            ));
            assert_eq!(host.refresh()["outcome"], "ok");
            assert_eq!(host.model.sessions["ses_1"]["title"], title);
            quick_status(&socket);
        }
        let after = host.status()["memory"].as_u64().unwrap();
        assert!(
            after < memory + (32 << 20),
            "{what}: from {memory} to {after} bytes"
        );
        for leave in leave {
            leave();
        }
        host.until_status(what, |status| status["readers"] == 1);
        wait_for(what, || (kept_by(host.pid()) == before).then_some(()));
    }
    // Nor do they hold up the end.
    let those_that_stay = [half_a_line, no_more_commands, stopped_with_a_full_buffer];
    let connected = those_that_stay.map(|client| client(UnixStream::connect(&socket).unwrap()));
    let asked = Instant::now();
    let (status, ..) = host.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0));
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
    drop(connected);
}

#[cfg(target_os = "linux")]
#[test]
fn silent_connections_up_to_the_limit_leave_room_when_they_go() {
    const CONNECTIONS: usize = 64;
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    settle(&made);
    let mut host = start(&made);
    let socket = socket(&made);
    let first_line = || {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (stream, serde_json::from_str::<Value>(&line).unwrap())
    };
    host.until_status("one reader", |status| status["readers"] == 1);
    let before = kept_at_rest(host.pid());
    let memory = host.status()["memory"].as_u64().unwrap();
    let mut silent: Vec<_> = (0..CONNECTIONS)
        .map(|n| {
            let (stream, first) = first_line();
            assert_eq!(first["type"], "hello", "connection {n}: {first}");
            stream
        })
        .collect();
    for _ in 0..100 {
        let (mut stream, first) = first_line();
        assert_eq!(first["type"], "bye", "{first}");
        assert_eq!(first["code"], "full", "{first}");
        // Nothing follows.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    // The host's own is none of them.
    let asked = Instant::now();
    assert_eq!(host.status()["readers"], 1 + CONNECTIONS);
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    let after = host.status()["memory"].as_u64().unwrap();
    assert!(
        after < memory + (32 << 20),
        "from {memory} to {after} bytes"
    );
    drop(silent.pop());
    wait_for("the next to be served", || {
        let (stream, first) = first_line();
        (first["type"] == "hello").then_some(stream)
    });
    drop(silent);
    host.until_status("them to be forgotten", |status| status["readers"] == 1);
    wait_for("their threads to end", || {
        (kept_by(host.pid()) == before).then_some(())
    });
    assert_eq!(first_line().1["type"], "hello");
}

// ---- The second service.

#[test]
fn a_second_host_with_the_same_sources_gets_the_first_ones_events() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut first = start(&made);
    let link = made.directory.path().join("link.db");
    symlink(&made.db, &link).unwrap();
    for db in [&made.db, &link] {
        let mut second = Host::well(&mut serve(db, &state(&made)));
        assert_eq!(
            second.model.events[0], first.model.events[0],
            "the first one's hello"
        );
        assert_eq!(second.model.sessions, first.model.sessions);
        let id = format!("ses_of_{}", second.pid());
        made.session(&id, 2);
        for host in [&mut first, &mut second] {
            host.until("the change", |model| model.ids().contains(&id.as_str()));
        }
        assert_eq!(second.refresh()["outcome"], "ok");
        assert_eq!(second.status()["pid"], first.pid());
        second.say(b"nonsense\n");
        second.until("an error", |model| {
            model.events.last().unwrap()["error"].is_object()
        });
        second.leave();
        let (status, _, log) = second.end();
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(first.refresh()["outcome"], "ok", "the first one goes on");
    }
    // The second one goes on when the first one ends.
    let mut second = Host::well(&mut serve(&made.db, &state(&made)));
    let before = second.model.events.len();
    first.end_by(Signal::TERM);
    made.session("ses_after", 9);
    second.until("what came after", |model| {
        model.ids().contains(&"ses_after") && model.state() == "ok"
    });
    assert_eq!(second.model.of_type("snapshot", before).len(), 1);
    // It has the socket, too.
    let (reply, _) = ask_at(&socket(&made), "status");
    assert_eq!(reply["status"]["pid"], second.pid());
    assert_eq!(second.model.of_type("bye", 0).len(), 0);
    assert_eq!(second.model.of_type("hello", 0).len(), 1);
    let (status, model, log) = second.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(model.events.last().unwrap()["type"], "bye");
}

#[test]
fn hosts_that_start_at_once_are_all_served() {
    let _limit = support::limit(90);
    for round in 0..15 {
        let made = made(&["ses_1"]);
        let (db, state) = (&made.db, &state(&made));
        let start = || {
            let mut host = Host::start(&mut serve(db, state));
            host.until("a listing", |model| {
                model.events.len() > 1 && model.state() == "ok"
            });
            host
        };
        let hosts: Vec<_> = thread::scope(|scope| {
            let starting: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
            starting
                .into_iter()
                .map(|host| host.join().unwrap())
                .collect()
        });
        let served_by = |host: &Host| host.model.events[0]["pid"].as_u64();
        let by: BTreeSet<_> = hosts.iter().map(served_by).collect();
        assert_eq!(by.len(), 1, "round {round}: by one of them");
    }
}

/// Between taking the index and answering there is a moment. Here the first
/// service is this test, which takes its time.
#[test]
fn a_second_host_waits_for_a_first_one_that_is_just_starting() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    fs::create_dir(state(&made)).unwrap();
    let lock = File::create(state(&made).join("lock")).unwrap();
    lock.try_lock().unwrap();
    let mut host = Host::start(&mut serve(&made.db, &state(&made)));
    thread::sleep(Duration::from_millis(300));
    let listener = UnixListener::bind(socket(&made)).unwrap();
    let path = made.db.canonicalize().unwrap();
    let hello = json!({"type": "hello", "protocol": 3, "version": "0", "pid": 1,
        "marker": MarkerText::DEFAULT, "sources": [{"source": "opencode.db", "path": path}]});
    let snapshot = json!({"type": "snapshot", "revision": 0, "sources": [], "sessions": []});
    thread::spawn(move || {
        // For as long as somebody listens.
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = write!(stream, "{hello}\n{snapshot}\n");
            thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    host.until("the other one's snapshot", |model| model.events.len() > 1);
    assert_eq!(host.model.events[0]["pid"], 1);
}

#[test]
fn a_host_beside_a_system_service_gets_that_ones_events() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let daemon = Daemon::start(&mut plain(&made.db, &state(&made)));
    until_listed(&socket(&made));
    let mut host = Host::well(&mut serve(&made.db, &state(&made)));
    assert_eq!(host.model.events[0]["pid"], daemon.child.id());
    made.session("ses_2", 2);
    host.until("the change", |model| model.ids().len() == 2);
    // One that is gone is not gone for the host.
    drop(daemon);
    made.session("ses_3", 3);
    host.until("the next change", |model| model.ids().len() == 3);
    assert_eq!(host.refresh()["outcome"], "ok");
}

/// SIGHUP means the same to a host whoever keeps the index; a configuration that is wrong
/// ends nobody, then or when the other one has ended.
#[test]
fn a_host_that_passes_on_reads_its_configuration_again_and_keeps_the_old_one() {
    let _limit = support::limit(60);
    let (made, other) = (made(&["ses_1"]), Made::new());
    other.session("ses_other", 1);
    settle(&made);
    let config = made.directory.path().join("config.toml");
    let configure = |sources: &[&Path]| {
        let source = |db: &&Path| format!("[[source]]\ndb = {:?}\n", db.to_str().unwrap());
        fs::write(&config, sources.iter().map(source).collect::<String>()).unwrap();
    };
    let configured = || {
        let mut command = support::command(support::sessions());
        command.args(["serve", "--stdio", "--config"]).arg(&config);
        command.arg("--state-dir").arg(state(&made));
        command
    };
    configure(&[&made.db]);
    let first = Host::well(&mut configured());
    let mut second = Host::well(&mut configured());
    assert_eq!(second.model.events[0]["pid"], first.pid());
    // No file has changed, and the service makes sure of that.
    let as_of = |status: &Value| status["sources"][0]["asOf"].as_i64();
    let before = as_of(&second.status());
    second.signal(Signal::HUP);
    second.until_status("a listing", |status| as_of(status) > before);
    fs::write(&config, "this is no configuration").unwrap();
    let before = second.log().matches("the old one stays").count();
    second.signal(Signal::HUP);
    wait_for("the refusal", || {
        (second.log().matches("the old one stays").count() > before).then_some(())
    });
    assert_eq!(second.status()["pid"], first.pid());
    first.kill();
    made.session("ses_2", 2);
    second.until("the change", |model| model.ids().len() == 2);
    assert_eq!(second.status()["pid"], second.pid());
    assert_eq!(second.model.of_type("hello", 0).len(), 1);
    // And where it is right again it is taken.
    configure(&[&other.db]);
    second.signal(Signal::HUP);
    second.until("the other source", |model| model.ids() == ["ses_other"]);
}

#[test]
fn a_second_service_that_is_no_hosts_says_who_holds_the_index_and_exits_75() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut first = start(&made);
    let other = Made::new();
    for db in [&made.db, &other.db] {
        let mut command = plain(db, &state(&made));
        let output = command.stdin(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(75), "{output:?}");
        assert_eq!(output.stdout, b"");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let holder = format!("process {}", first.pid());
        assert!(
            stderr.contains(&holder) && stderr.contains("--state-dir"),
            "{stderr}"
        );
    }
    assert_eq!(first.refresh()["outcome"], "ok");
}

#[test]
fn a_host_of_another_configuration_has_an_index_of_its_own() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut first = start(&made);
    let other = Made::new();
    other.session("ses_other", 1);
    let mut both = serve(&made.db, &state(&made));
    both.arg("--db").arg(&other.db);
    let mut marker = serve(&made.db, &state(&made));
    marker.args(["--marker", "another tool's marker"]);
    let mut hosts: Vec<_> = [serve(&other.db, &state(&made)), both, marker]
        .iter_mut()
        .map(Host::greeted)
        .collect();
    for (host, ids) in
        hosts
            .iter_mut()
            .zip([&["ses_other"][..], &["ses_1", "ses_other"], &["ses_1"]])
    {
        host.until("its own sessions", |model| model.ids() == ids);
        assert_eq!(host.status()["pid"], host.pid());
    }
    // And the next one of the same shares it.
    let second = Host::well(&mut serve(&other.db, &state(&made)));
    assert_eq!(second.model.events[0]["pid"], hosts[0].pid());
    assert_eq!(first.refresh()["outcome"], "ok");
}

// ---- The socket.

/// A user's environment, in directories of the test's own.
fn user(command: &mut Command, home: &Path) {
    for (name, directory) in [
        ("HOME", ""),
        ("XDG_RUNTIME_DIR", "run"),
        ("XDG_STATE_HOME", "state"),
        ("XDG_DATA_HOME", "data"),
    ] {
        command.env(name, home.join(directory));
    }
}

/// The main program beside which there is no helper.
fn sessions_alone(directory: &Path) -> PathBuf {
    link_or_copy(support::sessions(), directory)
}

/// The program in another directory. Another process copies it: were it open for
/// writing here, a child of another thread could inherit that, and running it
/// would fail with "text file busy".
fn link_or_copy(program: &Path, directory: &Path) -> PathBuf {
    let to = directory.join(program.file_name().unwrap());
    let status = support::command(Path::new("/bin/sh"))
        .args(["-c", r#"ln "$1" "$2" 2>/dev/null || cp "$1" "$2""#, "sh"])
        .args([program, &to])
        .status()
        .unwrap();
    assert!(status.success());
    to
}

/// A list is not worse for what is in a service's place.
#[test]
fn a_service_that_does_not_answer_is_passed_over() {
    let _limit = support::limit(60);
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run/opencode-sessions");
    fs::create_dir_all(&run).unwrap();
    let made = made(&["ses_1"]);
    let path = made.db.canonicalize().unwrap();
    let hello = |protocol: u32| {
        json!({"type": "hello", "protocol": protocol, "version": "0", "pid": 1,
            "marker": MarkerText::DEFAULT, "sources": [{"source": "opencode.db", "path": path}]})
    };
    let bad_sessions = json!({"type": "snapshot", "revision": 0, "sessions": [{"id": 7}],
        "sources": [{"source": "opencode.db", "health": {"state": "ok"}}]});
    for says in [
        String::new(),
        "garbage\n".to_owned(),
        "{\"type\":\"hello\"}\n".to_owned(),
        format!("{}\n", hello(2)),
        // It goes no further.
        format!("{}\n", hello(3)),
        format!("{}\n{{\"type\":\"snapshot\"}}\n", hello(3)),
        format!(
            "{}\n{bad_sessions}\n{{\"type\":\"reply\",\"id\":null}}\n",
            hello(3)
        ),
    ] {
        let socket = run.join("socket");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let words = says.clone();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(words.as_bytes());
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let mut command = support::command(support::sessions());
        user(&mut command, home.path());
        command
            .args(["list", "--format", "ids", "--db"])
            .arg(&made.db);
        let started = Instant::now();
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"ses_1\n", "{says}: {output:?}");
        assert!(started.elapsed() < Duration::from_secs(8), "{says}");
    }
}

/// A command has one deadline, whatever it asks one after the other.
#[test]
fn what_a_service_took_is_missing_to_the_listing() {
    let _limit = support::limit(60);
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run/opencode-sessions");
    fs::create_dir_all(&run).unwrap();
    let (config, far) = (home.path().join("config.toml"), home.path().join("far"));
    support::script(&far, "#!/bin/sh\nexec sleep 60\n");
    let text = format!("[[source]]\nname = \"far\"\ncommand = [{far:?}]\n");
    fs::write(&config, text).unwrap();
    let hello = json!({"type": "hello", "protocol": 3, "version": "0", "pid": 1,
        "marker": MarkerText::DEFAULT,
        "sources": [{"source": "far", "command": [far]}]});
    let listener = UnixListener::bind(run.join("socket")).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(format!("{hello}\n").as_bytes());
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut command = support::command(support::sessions());
    user(&mut command, home.path());
    command.args(["list", "--deadline", "3s", "--config"]);
    let output = command.arg(&config).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let (_, within) = said.split_once("within ").expect(&said);
    let (seconds, _) = within.split_once("s and was stopped").expect(&said);
    let seconds: f64 = seconds.parse().expect(&said);
    assert!(seconds <= 1.6, "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_list_is_answered_by_a_service_where_that_knows_exactly_what_was_asked() {
    let _limit = support::limit(90);
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("run")).unwrap();
    let made = made(&["ses_1", "ses_3", "ses_2"]);
    made.session("ses_b", 2);
    made.run(
        "UPDATE session SET title = 'Zebra \u{9b}31m' WHERE id = 'ses_1';
         UPDATE session SET title = 'New session - 2026-11-22T09:14:59.002Z' WHERE id = 'ses_2';
         UPDATE session SET directory = '/elsewhere', time_updated = 0 WHERE id = 'ses_3'",
    );
    let db = made.db.to_str().unwrap();
    let mut command = support::command(support::sessions());
    user(&mut command, home.path());
    let mut host = Host::well(command.args(["serve", "--stdio", "--db", db]));
    assert_eq!(host.model.ids().len(), 4);
    let alone = sessions_alone(home.path());
    let ask = |args: &[&str]| -> Output {
        let mut command = support::command(&alone);
        user(&mut command, home.path());
        command.arg("list").args(args).output().unwrap()
    };
    // A file that was just written to is listed again.
    settle(&made);
    assert_eq!(host.refresh()["outcome"], "ok");
    // That the file has another time is a change, too, and is listed at the pace.
    host.take_for(Duration::from_millis(800));
    let before = host.status()["spawns"].clone();
    for args in [
        &["--format", "json"][..],
        &["--format", "ndjson"],
        &["--format", "tsv"],
        &["--format", "ids"],
        &["--format", "table"],
        &["--format", "json", "--sort", "title"],
        &["--format", "json", "--sort", "created", "--limit", "2"],
        &["--format", "ids", "--project", "/elsewhere"],
    ] {
        let output = ask(&[&["--db", db], args].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert_eq!(
            String::from_utf8(output.stdout),
            String::from_utf8(listed(&made.db, args)),
            "{args:?}"
        );
    }
    let link = home.path().join("link.db");
    symlink(&made.db, &link).unwrap();
    let output = ask(&["--format", "ids", "--db", link.to_str().unwrap()]);
    assert_eq!(
        output.stdout,
        listed(&made.db, &["--format", "ids"]),
        "{output:?}"
    );
    assert_eq!(host.status()["spawns"], before);
    // Anything else it lists by itself, and here there is nothing to do so with.
    let other = Made::new();
    for args in [
        &["--db", db, "--archived"][..],
        &["--db", db, "--children"],
        &["--db", db, "--no-service"],
        &["--db", db, "--no-marker"],
        &["--db", db, "--marker", "another tool's marker"],
        &["--db", db, "--lister", "/nowhere/opencode-lister"],
        &["--db", other.db.to_str().unwrap()],
        &[],
    ] {
        let output = ask(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("there is no helper"), "{args:?}: {stderr}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
    // A service that is not well does not know.
    made.run("DROP TABLE session; CREATE VIEW session AS SELECT 1 AS other");
    assert_eq!(host.refresh()["outcome"], "failed");
    let output = ask(&["--db", db]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

/// What it knows is of before its restart.
#[test]
fn a_list_is_not_answered_by_a_service_that_has_not_listed_yet() {
    let _limit = support::limit(60);
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("run")).unwrap();
    let made = made(&["ses_1"]);
    let helper = Helper::new();
    let serve = || {
        let mut command = support::command(support::sessions());
        user(&mut command, home.path());
        command.args(["serve", "--stdio", "--deadline", "60s", "--db"]);
        command.arg(&made.db).arg("--lister").arg(helper.program());
        command
    };
    Host::well(&mut serve()).end_by(Signal::TERM);
    helper.becomes("hangs-before-output");
    let host = Host::greeted(&mut serve());
    assert_eq!(host.model.state(), "stale");
    assert_eq!(host.model.ids(), ["ses_1"]);
    let mut command = support::command(&sessions_alone(home.path()));
    user(&mut command, home.path());
    let output = command
        .args(["list", "--db"])
        .arg(&made.db)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("there is no helper"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_status_command_shows_how_the_service_is_doing() {
    let _limit = support::limit(60);
    let home = tempfile::tempdir().unwrap();
    let made = made(&["ses_1"]);
    let status = |args: &[&str]| {
        let mut command = support::command(support::sessions());
        user(&mut command, home.path());
        command.arg("status").args(args).output().unwrap()
    };
    let none = status(&[]);
    assert_eq!(none.status.code(), Some(1));
    let stderr = String::from_utf8(none.stderr).unwrap();
    assert!(stderr.contains("no service is running"), "{stderr}");
    // OpenCode's own database is the one that nobody names.
    let data = home.path().join("data/opencode");
    fs::create_dir_all(&data).unwrap();
    made.run("PRAGMA wal_checkpoint(TRUNCATE)");
    fs::copy(&made.db, data.join("opencode.db")).unwrap();
    let mut command = support::command(support::sessions());
    user(&mut command, home.path());
    let host = Host::well(command.args(["serve", "--stdio"]));
    let json: Value = serde_json::from_slice(&status(&["--json"]).stdout).unwrap();
    assert_eq!(json["pid"], host.pid());
    let shown = String::from_utf8(status(&[]).stdout).unwrap();
    for part in ["process", "opencode.db", "health    ok", "sessions  1"] {
        assert!(shown.contains(part), "{shown}");
    }
    // It is found where it was named.
    let elsewhere = state(&made);
    let _other = Host::well(&mut serve(&made.db, &elsewhere));
    let named = status(&["--json", "--state-dir", elsewhere.to_str().unwrap()]);
    let named: Value = serde_json::from_slice(&named.stdout).unwrap();
    assert_ne!(named["pid"], host.pid());
}

#[track_caller]
fn assert_mode(path: &Path, mode: u32) {
    let found = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(found & 0o7777, mode, "{}", path.display());
}

#[test]
fn what_a_service_makes_is_its_users_alone() {
    let _limit = support::limit(60);
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("run")).unwrap();
    let made = made(&["ses_1"]);
    let mut command = support::command(Path::new("/bin/sh"));
    user(&mut command, home.path());
    command
        .args(["-c", r#"umask 0; exec "$0" "$@""#])
        .arg(support::sessions())
        .args(["serve", "--stdio", "--db"])
        .arg(&made.db);
    let host = Host::well(&mut command);
    let (run, state) = (
        home.path().join("run/opencode-sessions"),
        home.path().join("state/opencode-sessions"),
    );
    assert_mode(&run, 0o700);
    assert_mode(&run.join("socket"), 0o600);
    assert_mode(&state, 0o700);
    assert_mode(&state.join("lock"), 0o600);
    wait_for("the snapshot", || {
        state.join("index").exists().then_some(())
    });
    assert_mode(&state.join("index"), 0o600);
    host.end_by(Signal::TERM);
    assert!(!run.join("socket").exists());
}

#[test]
fn a_program_of_another_user_is_turned_away() {
    let _limit = support::limit(60);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let made = made(&["ses_1"]);
    let _host = start(&made);
    // The directory and the mode would do; this is what is left without them.
    let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    for path in [made.directory.path(), &state(&made), &socket(&made)] {
        open(path);
    }
    let theirs = tempfile::tempdir().unwrap();
    open(theirs.path());
    let program = link_or_copy(support::sessions(), theirs.path());
    let status = |uid: u32| {
        let mut command = support::command(&program);
        command.args(["status", "--state-dir"]).arg(state(&made));
        command.uid(uid).gid(uid).current_dir("/").output().unwrap()
    };
    assert_eq!(status(NOBODY).status.code(), Some(1));
    assert_eq!(status(0).status.code(), Some(0));
}

/// Such as a program in a container, whose process id nobody else sees.
#[cfg(target_os = "linux")]
#[test]
fn program_of_another_pid_namespace_is_answered() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    settle(&made);
    let unshared = |command: &Command| {
        let mut unshared = support::command(Path::new("unshare"));
        unshared.args(["--pid", "--fork", "--kill-child"]);
        if !rustix::process::geteuid().is_root() {
            unshared.args(["--user", "--map-current-user"]);
        }
        unshared.arg(command.get_program()).args(command.get_args());
        unshared
    };
    let can = unshared(&Command::new("true")).output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: there are no pid namespaces of one's own here");
        return;
    }
    let status = |is_inside: bool| {
        let mut command = support::command(support::sessions());
        command.args(["status", "--json", "--state-dir"]);
        command.arg(state(&made));
        let mut command = match is_inside {
            true => unshared(&command),
            false => command,
        };
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    };
    // The peer is inside, then the service is.
    let host = start(&made);
    status(true);
    drop(host.end_by(Signal::TERM));
    let mut host = Host::well(&mut unshared(&serve(&made.db, &state(&made))));
    status(false);
    host.leave();
    assert_eq!(host.end().0.code(), Some(0));
}

#[test]
fn the_socket_of_a_dead_service_is_replaced() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let host = start(&made);
    host.kill();
    assert!(socket(&made).exists() && UnixStream::connect(socket(&made)).is_err());
    let host = start(&made);
    assert_eq!(quick_status(&socket(&made))["pid"], host.pid());
}

#[test]
fn the_socket_of_another_program_is_left_alone() {
    let _limit = support::limit(60);
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run/opencode-sessions");
    fs::create_dir_all(&run).unwrap();
    let other = UnixListener::bind(run.join("socket")).unwrap();
    let made = made(&["ses_1"]);
    let mut command = support::command(support::sessions());
    user(&mut command, home.path());
    let host = Host::well(command.args(["serve", "--stdio", "--db"]).arg(&made.db));
    let ours = home.path().join("state/opencode-sessions/socket");
    assert_eq!(quick_status(&ours)["pid"], host.pid());
    drop(host);
    assert!(UnixStream::connect(run.join("socket")).is_ok());
    drop(other);
}

#[test]
fn a_connection_that_is_closed_is_forgotten_though_nothing_happens() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut host = start(&made);
    for n in 0..200 {
        let mut stream = UnixStream::connect(socket(&made)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"{\"type\":\"status\"}\n").unwrap();
        let answered = BufReader::new(&stream)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.starts_with("{\"type\":\"reply\""));
        assert!(answered, "connection {n} is turned away:\n{}", host.log());
    }
    host.until_status("them to be forgotten", |status| status["readers"] == 1);
}

#[test]
fn a_peer_that_only_ends_its_commands_still_gets_events() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let _host = start(&made);
    let mut stream = UnixStream::connect(socket(&made)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"{\"type\":\"status\"}\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("{\"type\":\"reply\"")));
}

// ---- Supervisors.

/// Nobody: no home, no rights.
const NOBODY: u32 = 65534;

/// A user that the system does not know.
const UNKNOWN: u32 = 54321;

/// Both programs where anybody can run them, with a place for anybody's files.
fn for_anybody() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    link_or_copy(support::lister(), directory.path());
    let sessions = link_or_copy(support::sessions(), directory.path());
    (directory, sessions)
}

/// A database that belongs to this user.
fn database_of(uid: u32, directory: &Path) -> PathBuf {
    let data = directory.join("data");
    fs::create_dir(&data).unwrap();
    let (made, db) = (made(&["ses_1"]), data.join("opencode.db"));
    made.run("PRAGMA wal_checkpoint(TRUNCATE)");
    fs::copy(&made.db, &db).unwrap();
    if rustix::process::geteuid().is_root() {
        for path in [&data, &db] {
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
        }
    }
    db
}

/// As this user, where the one who tests can be that.
fn as_user(command: &mut Command, uid: u32) -> &mut Command {
    if rustix::process::geteuid().is_root() {
        command.uid(uid).gid(uid);
    } else {
        command.env("HOME", "/nonexistent");
    }
    command.current_dir("/")
}

#[test]
fn a_supervisor_that_ignores_sigchld_does_no_harm() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let helper = Helper::new();
    let mut command = serve(&made.db, &state(&made));
    command.arg("--lister").arg(helper.program());
    // SAFETY: signal may be called between fork and exec, and SIG_IGN is an action
    // for SIGCHLD.
    #[expect(unsafe_code, reason = "what a program inherits is set before exec")]
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut host = Host::well(&mut command);
    for way in ["exits-1-without-end", "segfaults", REAL] {
        helper.becomes(way);
        let outcome = host.refresh();
        let expected = if way == REAL { "ok" } else { "failed" };
        assert_eq!(outcome["outcome"], expected, "{outcome}");
    }
    let (status, ..) = host.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0));
}

/// `sh -c 'exec PROGRAM ARGS <&-'`
fn with_closed(command: &Command, closed: &str) -> Command {
    let mut shell = support::command(Path::new("/bin/sh"));
    shell
        .args(["-c", &format!(r#"exec "$0" "$@" {closed}"#)])
        .arg(command.get_program())
        .args(command.get_args());
    shell
}

#[test]
fn a_service_without_standard_input_or_anything_else_open_works() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    for closed in ["<&-", "<&- >&-", "<&- >&- 2>&-"] {
        let mut command = with_closed(&plain(&made.db, &state(&made)), closed);
        let daemon = Daemon::start(&mut command);
        until_listed(&socket(&made));
        let (reply, _) = ask_at(&socket(&made), "refresh");
        assert_eq!(reply["refreshed"][0]["outcome"], "ok");
        let (status, log) = daemon.end_by(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{closed}: {log}");
    }
}

#[test]
fn a_host_that_closed_standard_input_is_one_that_is_gone() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let host = Host::greeted(&mut with_closed(&serve(&made.db, &state(&made)), "<&-"));
    let (status, model, log) = host.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(model.events.last().unwrap()["type"], "bye");
}

#[test]
fn without_a_home_a_database_must_be_named() {
    let _limit = support::limit(60);
    if !rustix::process::geteuid().is_root() {
        // A user that the system knows always has a home.
        return;
    }
    let (place, program) = for_anybody();
    let mut command = support::command(&program);
    let output = as_user(command.args(["serve", "--stdio"]), UNKNOWN)
        .stdin(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert_eq!(output.stdout, b"");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("no home directory") && stderr.contains("--db"),
        "{stderr}"
    );
    let db = database_of(UNKNOWN, place.path());
    let mut command = support::command(&program);
    let mut host = Host::well(as_user(
        command.args(["serve", "--stdio", "--db"]).arg(&db),
        UNKNOWN,
    ));
    assert_eq!(host.model.ids(), ["ses_1"]);
    assert_eq!(host.refresh()["outcome"], "ok");
    let log = host.log();
    let said = log.lines().filter(|line| line.contains("after a restart"));
    assert_eq!(said.count(), 1, "{log}");
}

#[test]
fn where_opencode_keeps_no_file_there_is_nothing_to_serve() {
    let _limit = support::limit(60);
    let home = tempfile::tempdir().unwrap();
    let mut command = support::command(support::sessions());
    user(&mut command, home.path());
    command.env("OPENCODE_DB", ":memory:");
    let output = command.args(["serve", "--stdio"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert_eq!(output.stdout, b"");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_state_directory_too_deep_for_a_socket_is_said_and_no_obstacle() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let deep = made.directory.path().join("deep".repeat(40));
    let mut host = Host::well(&mut serve(&made.db, &deep));
    assert_eq!(host.refresh()["outcome"], "ok");
    let (_, _, log) = host.end_by(Signal::TERM);
    assert!(log.contains("no socket"), "{log}");
    assert!(deep.join("index").exists());
}

#[test]
fn a_user_without_a_home_directory_is_served() {
    let _limit = support::limit(60);
    let (place, program) = for_anybody();
    let db = database_of(NOBODY, place.path());
    let mut command = support::command(&program);
    let mut host = Host::well(as_user(
        command.args(["serve", "--stdio", "--db"]).arg(&db),
        NOBODY,
    ));
    assert_eq!(host.model.ids(), ["ses_1"]);
    assert_eq!(host.refresh()["outcome"], "ok");
    let log = host.log();
    let said = log.lines().filter(|line| line.contains("after a restart"));
    assert_eq!(said.count(), 1, "{log}");
    // And without a database to be named.
    let mut command = support::command(&program);
    let mut host = Host::greeted(as_user(command.args(["serve", "--stdio"]), NOBODY));
    host.until("the first listing", |model| model.state() == "missing");
}

#[test]
fn a_directory_that_cannot_be_written_to_is_no_obstacle() {
    let _limit = support::limit(60);
    let (place, program) = for_anybody();
    let db = database_of(NOBODY, place.path());
    let locked = place.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, Permissions::from_mode(0o555)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&locked, Some(NOBODY), None).unwrap();
    }
    for state in [locked.clone(), locked.join("state")] {
        let mut command = support::command(&program);
        command.args(["serve", "--stdio", "--db"]).arg(&db);
        as_user(command.arg("--state-dir").arg(&state), NOBODY).current_dir(&locked);
        let mut host = Host::well(&mut command);
        assert_eq!(host.refresh()["outcome"], "ok");
        let (status, _, log) = host.end_by(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{log}");
        let said = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        assert_eq!(said("cannot be used"), 1, "{log}");
        assert_eq!(said("no socket"), 1, "{log}");
    }
    assert_eq!(fs::read_dir(&locked).unwrap().count(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_clock_that_is_set_back_holds_up_nothing() {
    const DAY: i64 = 24 * 60 * 60;
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let helper = Helper::new();
    let mut command = serve(&made.db, &state(&made));
    command.arg("--lister").arg(helper.program());
    let clock = clock::Clock::of(&mut command);
    let mut host = Host::well(&mut command);
    // It fails, and waits until it tries again.
    helper.becomes_nothing();
    made.session("ses_2", 2);
    host.until("the failure", |model| model.state() == "failing");
    let since = host.model.health["opencode.db"]["since"].as_i64().unwrap();
    clock.set(-DAY);
    helper.becomes(REAL);
    host.until("the recovery", |model| model.state() == "ok");
    assert_eq!(host.model.ids().len(), 2);
    made.session("ses_3", 3);
    host.until("the next change", |model| model.ids().len() == 3);
    assert_eq!(host.refresh()["outcome"], "ok");
    helper.becomes_nothing();
    support::touch(&made.db);
    assert_eq!(host.refresh()["outcome"], "failed");
    let now = host.model.health["opencode.db"]["since"].as_i64().unwrap();
    assert!(now < since - DAY * 900, "the clock was not set");
    let known = host.model.sessions.clone();
    let begun = Instant::now();
    let (status, _, log) = host.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(begun.elapsed() < END, "{:?}", begun.elapsed());
    // Its snapshot is of the future now.
    clock.set(-2 * DAY);
    let mut host = Host::greeted(&mut command);
    assert_eq!(host.model.sessions, known);
    helper.becomes(REAL);
    made.session("ses_4", 4);
    host.until("the last change", |model| model.ids().len() == 4);
}

/// Where systemd would listen.
struct Notified(UnixDatagram);

impl Notified {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    /// The next one that is no sign of life.
    fn next_news(&self) -> String {
        loop {
            let message = self.next();
            if message.trim() != "WATCHDOG=1" {
                return message.trim().to_owned();
            }
        }
    }
}

/// A service of this database under systemd, and what it says to it.
fn under_systemd(made: &Made, command: &Command, watchdog: &str) -> (Notified, Daemon) {
    let path = made.directory.path().join("notify");
    let _ = fs::remove_file(&path);
    let notified = Notified::at(&path);
    let daemon = Daemon::start(&mut notifying(command, &path, watchdog));
    (notified, daemon)
}

/// The service as systemd starts it, which knows its process id.
fn notifying(command: &Command, notify: &Path, watchdog: &str) -> Command {
    let mut shell = support::command(Path::new("/bin/sh"));
    shell
        .args(["-c", &format!(r#"{watchdog} exec "$0" "$@""#)])
        .arg(command.get_program())
        .args(command.get_args())
        .env("NOTIFY_SOCKET", notify)
        .stdin(Stdio::null());
    shell
}

#[test]
fn systemd_is_told_of_the_start_the_state_a_reload_and_the_end() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2"]);
    let helper = Helper::new();
    helper.becomes("hangs-before-output");
    let mut command = plain(&made.db, &state(&made));
    command
        .args(["--deadline", "3s", "--lister"])
        .arg(helper.program());
    let watchdog = "WATCHDOG_PID=$$ WATCHDOG_USEC=800000";
    let (notified, daemon) = under_systemd(&made, &command, watchdog);
    assert_eq!(notified.next().trim(), "READY=1");
    // Commands are answered, and nothing has been listed.
    let status = quick_status(&socket(&made));
    assert_eq!(status["latency"]["count"], 0);
    assert_eq!(status["sources"][0]["health"]["state"], "starting");
    // Also while the helper hangs it is alive, at half the interval.
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(notified.next().trim(), "WATCHDOG=1");
    }
    let pause = started.elapsed() / 5;
    assert!(
        (Duration::from_millis(130)..Duration::from_millis(1200)).contains(&pause),
        "{pause:?}"
    );
    assert_eq!(
        notified.next_news(),
        "STATUS=0 sessions; opencode.db is failing"
    );
    helper.becomes(REAL);
    let mut last = 0;
    for round in 0..2 {
        daemon.signal(Signal::HUP);
        let reloading = notified.next_news();
        let (word, time) = reloading.split_once('\n').unwrap();
        assert_eq!(word, "RELOADING=1");
        let time: u64 = time
            .strip_prefix("MONOTONIC_USEC=")
            .unwrap()
            .parse()
            .unwrap();
        assert!(time > last);
        last = time;
        if round == 0 {
            // Two events; the line is sent when it has changed.
            let first = notified.next_news();
            if first != "STATUS=2 sessions" {
                assert_eq!(first, "STATUS=2 sessions; opencode.db is failing");
                assert_eq!(notified.next_news(), "STATUS=2 sessions");
            }
        }
        assert_eq!(notified.next_news(), "READY=1");
    }
    let (status, log) = daemon.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(notified.next_news(), "STOPPING=1");
}

#[test]
fn a_supervisor_that_does_not_read_what_it_is_told_holds_up_nothing() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let command = plain(&made.db, &state(&made));
    // A sign of life every five milliseconds: more than any queue holds.
    let watchdog = "WATCHDOG_PID=$$ WATCHDOG_USEC=10000";
    let (_unread, daemon) = under_systemd(&made, &command, watchdog);
    until_listed(&socket(&made));
    thread::sleep(Duration::from_secs(1));
    quick_status(&socket(&made));
    let asked = Instant::now();
    let (status, log) = daemon.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
}

/// What is said of the state is no sign of life to systemd.
#[test]
fn a_busy_database_does_not_starve_the_watchdog() {
    let _limit = support::limit(60);
    let made = made(&["ses_0"]);
    let command = plain(&made.db, &state(&made));
    let watchdog = "WATCHDOG_PID=$$ WATCHDOG_USEC=1600000";
    let (notified, _daemon) = under_systemd(&made, &command, watchdog);
    notified.0.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    let (mut alive, mut states) = (0, 0);
    for n in 1..450 {
        made.session(&format!("ses_{n}"), n);
        thread::sleep(Duration::from_millis(10));
        while let Ok(count) = notified.0.recv(&mut buffer) {
            alive += usize::from(buffer[..count].starts_with(b"WATCHDOG=1"));
            states += usize::from(buffer[..count].starts_with(b"STATUS="));
        }
    }
    // Every 0.8 seconds, in at least four and a half; and the state twice a second.
    assert!(states >= 3, "{states}");
    assert!(alive >= 2, "{alive} signs of life");
}

/// A thread of another program that stands still until this is dropped, while that
/// program's other threads go on.
#[cfg(target_os = "linux")]
struct Stopped(libc::pid_t);

#[cfg(target_os = "linux")]
impl Stopped {
    /// The thread of this name; `None` where the system does not let us.
    fn thread_of(pid: u32, name: &str) -> Option<Self> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut threads = threads.map(|thread| thread.unwrap().path());
        let thread = threads
            .find(|thread| fs::read_to_string(thread.join("comm")).unwrap().trim() == name)
            .expect("a thread of this name");
        let tid: libc::pid_t = thread.file_name()?.to_str()?.parse().unwrap();
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: neither request reads or writes memory of this process, and the
        // thread is one of our own child's.
        #[expect(unsafe_code, reason = "neither std nor rustix has this call")]
        unsafe {
            if libc::ptrace(libc::PTRACE_SEIZE, tid, none, none) != 0 {
                return None;
            }
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none), 0);
            assert_eq!(libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL), tid);
        }
        Some(Self(tid))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; the thread stands still.
        #[expect(unsafe_code, reason = "neither std nor rustix has this call")]
        unsafe {
            libc::ptrace(libc::PTRACE_DETACH, self.0, none, none);
        }
    }
}

/// A thread that does nothing else could go on feeding the watchdog of a service
/// that answers nobody any more.
#[cfg(target_os = "linux")]
#[test]
fn a_loop_that_is_stuck_gives_no_sign_of_life() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let command = plain(&made.db, &state(&made));
    let watchdog = "WATCHDOG_PID=$$ WATCHDOG_USEC=200000";
    let (notified, daemon) = under_systemd(&made, &command, watchdog);
    until_listed(&socket(&made));
    let alive = |notified: &Notified| while notified.next().trim() != "WATCHDOG=1" {};
    alive(&notified);
    let Some(stuck) = Stopped::thread_of(daemon.child.id(), "owner") else {
        return;
    };
    notified.0.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while notified.0.recv(&mut buffer).is_ok() {}
    thread::sleep(Duration::from_secs(1));
    let said = notified.0.recv(&mut buffer);
    assert!(
        said.is_err(),
        "{:?}",
        String::from_utf8_lossy(&buffer[..40])
    );
    notified.0.set_nonblocking(false).unwrap();
    drop(stuck);
    alive(&notified);
    let (status, log) = daemon.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_watchdog_of_another_process_or_none_is_not_fed() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    for watchdog in ["WATCHDOG_PID=1 WATCHDOG_USEC=100000", ""] {
        let command = plain(&made.db, &state(&made));
        let (notified, daemon) = under_systemd(&made, &command, watchdog);
        assert_eq!(notified.next().trim(), "READY=1");
        assert_eq!(notified.next().trim(), "STATUS=1 sessions");
        thread::sleep(Duration::from_millis(700));
        daemon.end_by(Signal::TERM);
        assert_eq!(notified.next().trim(), "STOPPING=1");
    }
}

/// A pipe that nobody reads and that takes no more.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (unread, mut full) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while full.write(&[b'x'; 512]).is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    (unread, full)
}

#[test]
fn a_supervisor_that_does_not_read_standard_error_holds_up_nothing() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let (_unread, full) = full_pipe();
    let mut child = plain(&made.db, &state(&made))
        .arg("--debug")
        .stdout(Stdio::null())
        .stderr(full)
        .spawn()
        .unwrap();
    until_listed(&socket(&made));
    let hangup = || rustix::process::kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    for n in 0..50 {
        hangup();
        made.session(&format!("ses_{n}_more"), n);
    }
    let (reply, _) = ask_at(&socket(&made), "refresh");
    assert_eq!(reply["refreshed"][0]["outcome"], "ok");
    assert_eq!(quick_status(&socket(&made))["sessions"], 51);
    let asked = Instant::now();
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(exit_of(&mut child).code(), Some(0));
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
}

// ---- What it costs, and what it sees.

#[test]
fn an_idle_database_costs_no_launch() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    settle(&made);
    let mut host = start(&made);
    host.take_for(Duration::from_secs(1));
    assert_eq!(host.status()["spawns"], 1, "the first listing says it all");
    // A reader of the database is no change, though it touches the files beside it.
    for _ in 0..3 {
        listed(&made.db, &[]);
        host.take_for(Duration::from_millis(700));
    }
    assert_eq!(host.status()["spawns"], 1);
    // After a change it is idle again, as soon as a second change could not go unseen.
    made.session("ses_2", 2);
    host.until("the change", |model| model.ids().len() == 2);
    host.take_for(Duration::from_secs(5));
    let spawns = host.status()["spawns"].clone();
    assert!(spawns.as_u64() <= Some(4), "{spawns}");
    host.take_for(Duration::from_secs(3));
    assert_eq!(host.status()["spawns"], spawns);
}

/// As a reader does it that SQLite has make a log, or set the owner of one.
#[test]
fn an_empty_log_and_another_time_of_the_inode_are_no_change() {
    let _limit = support::limit(60);
    let plain = made(&["ses_1"]);
    plain.run("PRAGMA wal_checkpoint(TRUNCATE)");
    let place = tempfile::tempdir().unwrap();
    let db = place.path().join("opencode.db");
    fs::copy(&plain.db, &db).unwrap();
    support::settle(&db);
    let scripted = Scripted::new();
    let mut command = serve(&db, &place.path().join("state"));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    host.take_for(Duration::from_millis(500));
    assert_eq!(host.status()["spawns"], 1);
    let log = place.path().join("opencode.db-wal");
    let of_all = Permissions::from_mode(0o644);
    for _ in 0..3 {
        File::create(&log).unwrap();
        host.take_for(Duration::from_millis(300));
        fs::set_permissions(&db, of_all.clone()).unwrap();
        host.take_for(Duration::from_millis(300));
        fs::remove_file(&log).unwrap();
        host.take_for(Duration::from_millis(300));
    }
    assert_eq!(host.status()["spawns"], 1);
}

#[test]
fn a_directory_that_is_made_later_is_found() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("not/yet.d");
    let db = directory.join("opencode.db");
    let mut host = Host::greeted(&mut serve(&db, &place.path().join("state")));
    host.until("the first listing", |model| model.state() == "missing");
    let status = host.until_status("how it is watched", |status| {
        text(&status["sources"][0]["watch"]).starts_with("polling")
    });
    assert!(
        text(&status["sources"][0]["watch"]).contains("directory"),
        "{status}"
    );
    fs::create_dir_all(&directory).unwrap();
    host.until_status("the directory to be watched", |status| {
        status["sources"][0]["watch"] == "events"
    });
    let made = made(&["ses_1"]);
    made.run("PRAGMA wal_checkpoint(TRUNCATE)");
    fs::copy(&made.db, directory.join("new")).unwrap();
    fs::rename(directory.join("new"), &db).unwrap();
    host.until("the database", |model| model.state() == "ok");
    assert_eq!(host.model.ids(), ["ses_1"]);
    // And gone again, when nothing else happens.
    host.take_for(Duration::from_secs(2));
    let away = place.path().join("away");
    fs::rename(&directory, &away).unwrap();
    host.until("its end", |model| model.state() == "missing");
    fs::rename(&away, &directory).unwrap();
    host.until("its return", |model| model.state() == "ok");
    let (_, _, log) = host.end_by(Signal::TERM);
    let said = log.lines().filter(|line| line.contains("polling")).count();
    assert!((1..=2).contains(&said), "once each time: {log}");
}

#[test]
fn one_sources_trouble_does_not_delay_anothers() {
    let _limit = support::limit(60);
    let (good, bad) = (made(&["ses_1"]), made(&["ses_1"]));
    let helper = Helper::new();
    // The second database's helper hangs.
    helper.becomes_script(&format!(
        "#!/bin/sh\ncase \"$*\" in *'{}'*) exec sleep 60;; esac\nexec '{}' \"$@\"\n",
        bad.db.display(),
        support::lister().display()
    ));
    let mut command = serve(&good.db, &state(&good));
    command
        .arg("--db")
        .arg(&bad.db)
        .arg("--lister")
        .arg(helper.program());
    let mut host = Host::greeted(&mut command);
    let names: Vec<_> = host.model.health.keys().cloned().collect();
    assert!(
        names.iter().all(|name| name.ends_with("/opencode.db")),
        "{names:?}"
    );
    let of = |made: &Made| {
        let directory = made.directory.path().file_name().unwrap();
        format!("{}/opencode.db", directory.to_str().unwrap())
    };
    for n in 0..3 {
        let id = format!("ses_more_{n}");
        good.session(&id, 2);
        host.until("the change", |model| model.sessions.contains_key(&id));
    }
    assert_eq!(host.model.health[&of(&good)]["state"], "ok");
    assert_eq!(host.model.health[&of(&bad)]["state"], "starting");
    let refresh = host.tell("refresh");
    let status = host.tell("status");
    let reply = host.reply(status);
    assert_eq!(list(&reply["status"]["sources"]).len(), 2);
    let replies = host.model.of_type("reply", 0);
    assert!(
        replies.iter().all(|reply| reply["id"] != refresh),
        "it waits for both"
    );
}

// ---- The log.

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

#[test]
fn a_log_in_json_is_one_object_a_line_without_titles_and_paths() {
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
fn a_log_for_people_names_the_source_and_each_state_once() {
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
    let unsafe_in_a_log = |c: char| c != '\n' && unsafe_on_a_terminal(c);
    assert!(!log.contains(unsafe_in_a_log), "{log:?}");
    for line in log.lines() {
        assert!(line.starts_with("20"), "{log:?}");
    }
}

#[test]
fn a_database_whose_name_would_break_a_line_breaks_none() {
    let _limit = support::limit(60);
    assert_is_served(b"two words.db");
    assert_is_served(b"line\nend \x1b[31m \xc2\x9b.db");
}

#[test]
fn a_database_whose_name_is_no_text_is_served() {
    let _limit = support::limit(60);
    assert_is_served(b"caf\xe9.db");
}

// ---- A service in a place that others use, too.

/// A user's service in the user's usual places, and what another program of the same user
/// says.
struct Usual {
    home: tempfile::TempDir,
    made: Made,
    daemon: Daemon,
}

impl Usual {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let made = made(&["ses_1"]);
        let mut command = support::command(support::sessions());
        user(&mut command, home.path());
        command
            .args(["serve", "--db"])
            .arg(&made.db)
            .stdin(Stdio::null());
        let daemon = Daemon::start(&mut command);
        until_listed(&home.path().join("run/opencode-sessions/socket"));
        Self { home, made, daemon }
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("run/opencode-sessions/socket")
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.daemon.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// The status, standard output and standard error of another command.
    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let mut command = support::command(support::sessions());
        user(&mut command, self.home.path());
        let output = command.args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

#[test]
fn a_list_shows_every_commit_that_came_before_it() {
    let _limit = support::limit(120);
    let usual = Usual::start();
    let db = usual.made.db.to_str().unwrap();
    for n in 0..40 {
        usual.made.run(&format!(
            "UPDATE session SET title = 'commit {n}' WHERE id = 'ses_1'"
        ));
        let (status, said, err) = usual.run(&["list", "--format", "json", "--db", db]);
        assert_eq!(status, Some(0), "{err}");
        let sessions: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(sessions[0]["title"], format!("commit {n}"));
    }
    let (reply, _) = ask_at(&usual.socket(), "status");
    assert!(
        reply["status"]["spawns"].as_u64() > Some(10),
        "the service listed them"
    );
}

#[test]
fn a_refresh_that_has_nothing_to_do_launches_nothing() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    settle(&made);
    let mut host = start(&made);
    let before = host.status();
    let as_of = |status: &Value| status["sources"][0]["asOf"].as_i64().unwrap();
    for _ in 0..20 {
        assert_eq!(host.refresh()["outcome"], "ok");
    }
    let after = host.status();
    assert_eq!(after["spawns"], before["spawns"]);
    assert!(as_of(&after) >= as_of(&before));
    // What changed is listed, also where the length and the name stay the same.
    made.run("UPDATE session SET title = 'another one' WHERE id = 'ses_1'");
    assert_eq!(host.refresh()["outcome"], "ok");
    assert_eq!(host.model.sessions["ses_1"]["title"], "another one");
}

#[test]
fn a_service_that_stands_still_is_told_apart_from_none() {
    let _limit = support::limit(60);
    let usual = Usual::start();
    let db = usual.made.db.to_str().unwrap();
    usual.signal(Signal::STOP);
    let pid = format!("process {}", usual.daemon.child.id());
    let (status, said, err) = usual.run(&["status"]);
    assert_eq!((status, said.as_str()), (Some(1), ""));
    assert!(
        err.contains(&pid) && err.contains("does not answer"),
        "{err}"
    );
    let (status, said, _) = usual.run(&["doctor", "--db", db]);
    assert_eq!(status, Some(1));
    assert!(
        said.contains(&pid) && said.contains("does not answer"),
        "{said}"
    );
    // It is listed all the same.
    let (status, said, err) = usual.run(&["list", "--format", "ids", "--db", db]);
    assert_eq!((status, said.as_str()), (Some(0), "ses_1\n"), "{err}");
    let (status, _, err) = usual.run(&["stop"]);
    assert_eq!(status, Some(1));
    assert!(err.contains(&pid), "{err}");
    usual.signal(Signal::CONT);
    until_listed(&usual.socket());
    let (status, ..) = usual.run(&["stop"]);
    assert_eq!(status, Some(0));
    let (status, _, err) = usual.run(&["status"]);
    assert_eq!(status, Some(1));
    assert!(err.contains("no service is running"), "{err}");
}

#[test]
fn a_service_that_is_full_says_so() {
    let _limit = support::limit(60);
    let usual = Usual::start();
    let connect = || UnixStream::connect(usual.socket()).unwrap();
    let connections: Vec<_> = (0..64).map(|_| connect()).collect();
    let mut first = String::new();
    BufReader::new(&connections[63])
        .read_line(&mut first)
        .unwrap();
    assert!(first.contains("hello"), "{first}");
    let (status, _, err) = usual.run(&["status"]);
    assert_eq!(status, Some(1));
    assert!(err.contains("as many programs as it can"), "{err}");
    drop(connections);
    wait_for("room", || {
        (usual.run(&["status"]).0 == Some(0)).then_some(())
    });
}

#[test]
fn a_socket_that_was_swept_comes_back_and_anothers_is_left_alone() {
    let _limit = support::limit(60);
    let mut usual = Usual::start();
    fs::remove_dir_all(usual.home.path().join("run")).unwrap();
    wait_for("the socket", || usual.socket().exists().then_some(()));
    until_listed(&usual.socket());
    // Another program's file is in its place at the end.
    fs::remove_file(usual.socket()).unwrap();
    fs::write(usual.socket(), "not a socket").unwrap();
    usual.signal(Signal::TERM);
    let status = exit_of(&mut usual.daemon.child);
    assert_eq!(status.code(), Some(0));
    assert_eq!(fs::read(usual.socket()).unwrap(), b"not a socket");
}

#[test]
fn a_directory_that_others_can_write_to_is_not_used() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let victim = made.directory.path().join("victim");
    fs::write(&victim, "of value").unwrap();
    fs::create_dir(state(&made)).unwrap();
    symlink(&victim, state(&made).join("lock")).unwrap();
    for (mode, why) in [(0o777, "other users can write to it"), (0o700, "")] {
        fs::set_permissions(state(&made), Permissions::from_mode(mode)).unwrap();
        let host = start(&made);
        let log = host.log();
        assert!(log.contains("cannot be used") && log.contains(why), "{log}");
        assert_eq!(host.end_by(Signal::TERM).0.code(), Some(0));
        assert_eq!(fs::read(&victim).unwrap(), b"of value");
    }
    let left = fs::read_dir(state(&made)).unwrap().count();
    assert!(left <= 1, "nothing was put there: {left}");
}

#[test]
fn a_supervisor_that_blocks_or_ignores_signals_is_obeyed_all_the_same() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    for ignored in [false, true] {
        for signal in [Signal::TERM, Signal::INT] {
            let mut command = serve(&made.db, &state(&made));
            // SAFETY: all three may be called between fork and exec, with a set that
            // is initialised before it is used.
            #[expect(unsafe_code, reason = "what a program inherits is set before exec")]
            unsafe {
                command.pre_exec(move || {
                    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
                    libc::sigfillset(set.as_mut_ptr());
                    libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
                    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE] {
                        if ignored {
                            libc::signal(signal, libc::SIG_IGN);
                        }
                    }
                    Ok(())
                });
            }
            let mut host = Host::well(&mut command);
            host.signal(Signal::HUP);
            host.until_status("the reload", |status| {
                status["sources"][0]["health"]["state"] == "ok"
            });
            let (status, model, log) = host.end_by(signal);
            assert_eq!(status.code(), Some(0), "{log}");
            assert_eq!(model.events.last().unwrap()["code"], "ended");
        }
    }
}

#[test]
fn stop_ends_the_service_for_all_and_shutdown_for_one() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let first = start(&made);
    let mut second = Host::well(&mut serve(&made.db, &state(&made)));
    let third = Host::well(&mut serve(&made.db, &state(&made)));
    second.tell("shutdown");
    let (status, model, log) = second.end();
    assert_eq!(status.code(), Some(0), "{log}");
    let last = &model.events[model.events.len() - 2..];
    assert_eq!(
        (&last[0]["type"], &last[0]["done"]),
        (&json!("reply"), &json!(true))
    );
    assert_eq!(last[1]["code"], "shutdown");
    let mut command = support::command(support::sessions());
    let output = command
        .args(["stop", "--state-dir"])
        .arg(state(&made))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for host in [first, third] {
        let (status, model, log) = host.end();
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(model.events.last().unwrap()["code"], "stopped");
    }
    assert!(!socket(&made).exists());
}

#[test]
fn a_loop_that_panics_is_a_fault_and_no_end() {
    use opencode_sessions::service::{Config, Service, Supervisor};
    let _limit = support::limit(60);
    let service = Service::start(Config {
        sources: Vec::new(),
        marker: None,
        view: opencode_sessions::index::View::default(),
        deadline: Duration::from_secs(1),
        lister: Box::new(|_| unreachable!("there is no source")),
        state: None,
        supervisor: Some(Supervisor {
            every: Duration::from_secs(1),
            notify: Box::new(|_| panic!("a fault")),
        }),
    });
    assert!(!service.unwrap().wait());
}

// ---- Children and archived sessions.

/// A database with a root, its child, an archived root and an archived child.
fn family() -> Made {
    let made = made(&["ses_root", "ses_child", "ses_old", "ses_old_child"]);
    made.run(
        "UPDATE session SET parent_id = 'ses_root' WHERE id = 'ses_child';
         UPDATE session SET parent_id = 'ses_old' WHERE id = 'ses_old_child';
         UPDATE session SET time_archived = 5 WHERE id LIKE 'ses_old%'",
    );
    made
}

const FAMILY: [&str; 4] = ["ses_child", "ses_old", "ses_old_child", "ses_root"];

#[test]
fn each_reader_sees_what_it_subscribed_to_and_each_change_of_that() {
    let _limit = support::limit(60);
    let made = family();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.args(["--children", "--archived"]));
    assert_eq!(
        host.model.events[0]["capabilities"],
        json!(["children", "archived"])
    );
    assert_eq!(host.model.ids(), FAMILY, "it is its own service's");
    for (children, archived, expected) in [
        (false, false, &["ses_root"][..]),
        (true, false, &["ses_child", "ses_root"]),
        (false, true, &["ses_old", "ses_root"]),
        (true, true, &FAMILY),
    ] {
        let subscribe = json!({"type": "subscribe", "children": children, "archived": archived,
            "id": "view"});
        host.say(format!("{subscribe}\n").as_bytes());
        host.until("the reply", |model| {
            model.events.last().unwrap()["id"] == "view"
        });
        assert_eq!(host.model.ids(), expected);
        let before = host.model.events.len();
        // Something of each kind changes, and each is told of what it sees.
        made.run("UPDATE session SET title = title || '.', time_updated = time_updated + 1");
        assert_eq!(host.refresh()["outcome"], "ok");
        let changes = host.model.of_type("change", before);
        assert_eq!(changes.len(), 1);
        assert_eq!(list(&changes[0]["upserted"]).len(), expected.len());
        // The next one archives a root, which goes from the sight of some.
        made.run("UPDATE session SET time_archived = 6 WHERE id = 'ses_root'");
        assert_eq!(host.refresh()["outcome"], "ok");
        assert_eq!(host.model.ids().contains(&"ses_root"), archived);
        made.run("UPDATE session SET time_archived = NULL WHERE id = 'ses_root'");
        assert_eq!(host.refresh()["outcome"], "ok");
        assert_eq!(host.model.ids(), expected);
    }
    // Another program sees the roots, until it asks for more.
    let mut usual = Host::well(&mut serve(&made.db, &state(&made)));
    assert_eq!(usual.model.events[0]["pid"], host.pid());
    assert_eq!(usual.model.ids(), ["ses_root"]);
    usual.say(b"{\"type\":\"subscribe\",\"children\":true}\n");
    usual.until("the children", |model| {
        model.ids() == ["ses_child", "ses_root"]
    });
    // And a host that wants them from the start gets one snapshot, with them.
    let mut command = serve(&made.db, &state(&made));
    let other = Host::well(command.arg("--archived"));
    assert_eq!(other.model.events[0]["pid"], host.pid());
    assert_eq!(other.model.ids(), ["ses_old", "ses_root"]);
    assert_eq!(other.model.of_type("snapshot", 0).len(), 1);
}

#[test]
fn what_a_service_does_not_list_cannot_be_subscribed_to() {
    let _limit = support::limit(60);
    let made = family();
    let mut first = start(&made);
    assert_eq!(first.model.events[0]["capabilities"], json!([]));
    first.say(b"{\"type\":\"subscribe\",\"children\":true,\"id\":1}\n");
    first.until("the refusal", |model| {
        model.events.last().unwrap()["id"] == 1
    });
    let error = first.model.events.last().unwrap()["error"].clone();
    assert_eq!(error["code"], "invalid");
    assert!(text(&error["message"]).contains("--children"), "{error}");
    assert_eq!(first.model.ids(), ["ses_root"]);
    // Who wants them has an index of its own.
    let mut command = serve(&made.db, &state(&made));
    let mut second = Host::well(command.arg("--children"));
    assert_eq!(second.model.events[0]["pid"], second.pid());
    second.until("the children", |model| {
        model.ids() == ["ses_child", "ses_root"]
    });
}
