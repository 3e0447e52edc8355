//! The socket of a service: who is let in, who is answered, what it leaves on disk.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use opencode_sessions::marker_text::MarkerText;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{made, settle, socket, start, state};
use crate::supervisors::NOBODY;
use crate::support::{self, Helper, Host, Made, PATIENCE, listed, quick_status, serve, wait_for};

/// A user's environment, in directories of the test's own.
pub(crate) fn user(command: &mut Command, home: &Path) {
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
pub(crate) fn link_or_copy(program: &Path, directory: &Path) -> PathBuf {
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
fn service_that_does_not_answer_is_bypassed() {
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
fn list_subtracts_the_time_a_service_took() {
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
    let (seconds, _) = within.split_once("s and was killed").expect(&said);
    let seconds: f64 = seconds.parse().expect(&said);
    assert!(seconds <= 1.6, "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn service_answers_a_list_it_fully_knows() {
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
        assert!(stderr.contains("helper not found"), "{args:?}: {stderr}");
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
fn service_that_has_not_listed_answers_no_list() {
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
    assert!(stderr.contains("helper not found"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn status_command_shows_the_state_of_the_service() {
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
fn files_of_a_service_are_private_to_its_user() {
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
fn program_of_another_user_is_rejected() {
    let _limit = support::limit(60);
    if !rustix::process::geteuid().is_root() {
        support::skip("another user: only root can be one");
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
        support::skip("a pid namespace: none can be made here");
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
fn socket_of_a_dead_service_is_replaced() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let host = start(&made);
    host.kill();
    assert!(socket(&made).exists() && UnixStream::connect(socket(&made)).is_err());
    let host = start(&made);
    assert_eq!(quick_status(&socket(&made))["pid"], host.pid());
}

#[test]
fn socket_of_another_program_is_left_alone() {
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
fn closed_connection_is_released_without_any_event() {
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
fn half_closed_client_still_gets_events() {
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
