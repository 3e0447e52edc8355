//! A home with a configuration and state, and another machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Pid;
use serde_json::Value;

use crate::support::{self, Made, script, wait_for};

/// A place for one test: a home, a configuration, state.
pub(crate) struct Place(pub(crate) tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn config(&self, text: &str) -> PathBuf {
        let path = self.path("config.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// `serve --stdio` with the configuration.
    pub(crate) fn serve(&self) -> Command {
        let mut command = self.command(&["serve", "--stdio", "--config"]);
        command.arg(self.path("config.toml"));
        command.arg("--state-dir").arg(self.path("state"));
        command
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = support::command(support::sessions());
        command.env("HOME", self.0.path()).args(args);
        command
    }

    /// A command of `list`, `get` and others with the configuration.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        command.arg("--config").arg(self.path("config.toml"));
        command.output().unwrap()
    }

    /// A program that a source can be.
    pub(crate) fn program(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        script(&path, text);
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn misbehaving(&self, way: &str) -> String {
        let path = support::misbehaving(&self.path(""), way);
        path.to_str().unwrap().to_owned()
    }
}

/// A database with these sessions at this path, without a log, made a while ago.
pub(crate) fn copy_of(ids: &[&str], path: &Path) {
    let made = Made::new();
    for (at, id) in (1..).zip(ids) {
        made.session(id, at);
    }
    made.run("PRAGMA wal_checkpoint(truncate)");
    fs::copy(&made.db, path).unwrap();
    support::settle(path);
}

/// Another machine: a data home with a database, and a cache of its own.
pub(crate) struct Machine {
    pub(crate) place: Place,
    pub(crate) made: Made,
}

impl Machine {
    pub(crate) fn new(ids: &[&str]) -> Self {
        let (place, made) = (Place::new(), Made::new());
        made.run("PRAGMA synchronous = off");
        for (at, id) in (1..).zip(ids) {
            made.session(id, at);
        }
        let data = place.path("data");
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(made.directory.path(), data.join("opencode")).unwrap();
        Self { place, made }
    }

    /// The words that run the helper there.
    pub(crate) fn words(&self) -> Vec<String> {
        let path = |name| self.place.path(name).to_str().unwrap().to_owned();
        vec![
            "env".into(),
            format!("HOME={}", path("")),
            format!("XDG_DATA_HOME={}", path("data")),
            format!("XDG_CACHE_HOME={}", path("cache")),
            support::lister().to_str().unwrap().to_owned(),
        ]
    }

    /// How many scan caches the helper keeps there.
    pub(crate) fn caches(&self) -> usize {
        let caches = fs::read_dir(self.place.path("cache/opencode-sessions"));
        caches.map_or(0, Iterator::count)
    }
}

/// As ssh does it: the words after the first are joined, and a shell takes them apart.
pub(crate) const SHELL: [&str; 4] = ["sh", "-c", "eval \"$*\"", "sh"];

pub(crate) fn remote(name: &str, words: &[String], every: &str) -> String {
    let words = serde_json::to_string(words).unwrap();
    format!("[[source]]\nname = \"{name}\"\ncommand = {words}\nevery = \"{every}\"\n")
}

pub(crate) fn database(name: &str, path: &Path) -> String {
    format!(
        "[[source]]\nname = \"{name}\"\ndb = \"{}\"\n",
        path.display()
    )
}

pub(crate) fn stdout(output: &Output) -> Vec<Value> {
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

pub(crate) fn ids(sessions: &[Value]) -> Vec<&str> {
    sessions
        .iter()
        .map(|session| session["id"].as_str().unwrap())
        .collect()
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

pub(crate) fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, after)| !after.trim_start().starts_with(['Z', 'X']))
}
