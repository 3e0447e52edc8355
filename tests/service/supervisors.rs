//! A service whose supervisor gives it little: closed descriptors, no home, no rights, a clock
//! that is set back.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;

use crate::common::{Daemon, END, made, plain, socket, state, until_listed};
use crate::socket::{link_or_copy, user};
use crate::support::{self, Helper, Host, REAL, ask_at, clock, serve};

/// Nobody: no home, no rights.
pub(crate) const NOBODY: u32 = 65534;

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
fn service_works_with_sigchld_ignored() {
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
fn service_works_without_open_descriptors() {
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
fn closed_stdin_means_the_host_is_gone() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let host = Host::greeted(&mut with_closed(&serve(&made.db, &state(&made)), "<&-"));
    let (status, model, log) = host.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(model.events.last().unwrap()["type"], "bye");
}

#[test]
fn user_without_a_home_must_name_a_database() {
    let _limit = support::limit(60);
    if !rustix::process::geteuid().is_root() {
        // A user that the system knows always has a home.
        support::skip("a user without a home: only root can be one");
        return;
    }
    let (place, program) = for_anybody();
    let mut command = support::command(&program);
    command.env_remove("HOME");
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
    command.env_remove("HOME");
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
fn database_in_memory_leaves_nothing_to_serve() {
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

/// It is no obstacle.
#[test]
fn state_directory_too_deep_for_a_socket_is_reported() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let deep = made.directory.path().join("deep".repeat(40));
    let mut host = Host::well(&mut serve(&made.db, &deep));
    assert_eq!(host.refresh()["outcome"], "ok");
    let (_, _, log) = host.end_by(Signal::TERM);
    assert!(log.contains("cannot bind the socket"), "{log}");
    assert!(deep.join("index").exists());
}

#[test]
fn user_without_a_home_directory_is_served() {
    let _limit = support::limit(60);
    let (place, program) = for_anybody();
    let db = database_of(NOBODY, place.path());
    let mut command = support::command(&program);
    command.env_remove("HOME");
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
    command.env_remove("HOME");
    let mut host = Host::greeted(as_user(command.args(["serve", "--stdio"]), NOBODY));
    host.until("the first listing", |model| model.state() == "missing");
}

#[test]
fn unwritable_directory_does_not_stop_the_service() {
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
        assert_eq!(said("cannot bind the socket"), 1, "{log}");
    }
    assert_eq!(fs::read_dir(&locked).unwrap().count(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn clock_set_back_delays_nothing() {
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
