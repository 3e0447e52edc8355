//! A service in a place that others use, too.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::{Daemon, made, settle, socket, start, state, until_listed};
use crate::socket::user;
use crate::support::{self, Host, Made, ask_at, exit_of, serve, wait_for};

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
fn list_shows_every_earlier_commit() {
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
fn refresh_without_changes_launches_nothing() {
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
fn stopped_service_differs_from_none() {
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
fn full_service_says_so() {
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
    assert!(err.contains("too many connections"), "{err}");
    drop(connections);
    wait_for("room", || {
        (usual.run(&["status"]).0 == Some(0)).then_some(())
    });
}

#[test]
fn removed_socket_comes_back_but_a_foreign_one_stays() {
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
fn directory_writable_by_others_is_not_used() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let victim = made.directory.path().join("victim");
    fs::write(&victim, "of value").unwrap();
    fs::create_dir(state(&made)).unwrap();
    symlink(&victim, state(&made).join("lock")).unwrap();
    for (mode, why) in [(0o777, "writable by other users"), (0o700, "")] {
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
fn signals_inherited_as_blocked_or_ignored_still_work() {
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
fn panicking_loop_exits_with_a_fault() {
    use opencode_sessions::service::{Config, Service, Supervisor};
    let _limit = support::limit(60);
    let service = Service::start(
        Config::new(Vec::new(), |_| unreachable!("there is no source"))
            .deadline(Duration::from_secs(1))
            .supervisor(Some(Supervisor::new(Duration::from_secs(1), |_| {
                panic!("a fault")
            }))),
    );
    assert!(!service.unwrap().wait());
}
