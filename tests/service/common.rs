//! A service on a made database, and what its answers must look like.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::support::{self, Host, Made, ask_at, exit_of, serve, wait_for};

/// What the service promises for its end.
pub(crate) const END: Duration = Duration::from_secs(2);

/// A database with these sessions. The disk need not keep it.
pub(crate) fn made(ids: &[&str]) -> Made {
    let made = Made::new();
    made.run("PRAGMA synchronous = off");
    for (at, id) in (1..).zip(ids) {
        made.session(id, at);
    }
    made
}

/// Makes the files of a database look as if they had not changed for a minute, so
/// that nobody looks once more.
pub(crate) fn settle(made: &Made) {
    support::settle(&made.db);
    support::settle(&made.db.with_file_name("opencode.db-wal"));
}

/// A place for state beside a database.
pub(crate) fn state(made: &Made) -> PathBuf {
    made.directory.path().join("state")
}

pub(crate) fn start(made: &Made) -> Host {
    Host::well(&mut serve(&made.db, &state(made)))
}

pub(crate) fn socket(made: &Made) -> PathBuf {
    state(made).join("socket")
}

#[track_caller]
pub(crate) fn assert_keys(object: &Value, keys: &[&str]) {
    let found: BTreeSet<_> = object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(found, keys.iter().copied().collect(), "{object:#}");
}

/// `serve` for a supervisor that is no host. It does not survive the test.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) log: tempfile::NamedTempFile,
}

impl Daemon {
    pub(crate) fn start(command: &mut Command) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = command
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    pub(crate) fn end_by(mut self, signal: Signal) -> (ExitStatus, String) {
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
pub(crate) fn plain(db: &Path, state: &Path) -> Command {
    let mut command = support::command(support::sessions());
    command
        .args([OsStr::new("serve"), OsStr::new("--db"), db.as_os_str()])
        .args([OsStr::new("--state-dir"), state.as_os_str()])
        .stdin(Stdio::null());
    command
}

/// Waits until the service at this socket has listed.
#[track_caller]
pub(crate) fn until_listed(socket: &Path) {
    wait_for("the first listing", || {
        UnixStream::connect(socket).ok()?;
        let status = ask_at(socket, "status").0;
        (status["status"]["sources"][0]["health"]["state"] == "ok").then_some(())
    });
}
