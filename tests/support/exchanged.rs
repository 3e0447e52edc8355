//! A helper that can be exchanged while the service runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rustix::process::{Pid, Signal};

use crate::support;

/// A program that is the real helper, or one that misbehaves, as a test has it.
/// Nothing that it starts survives it.
pub(crate) struct Helper(tempfile::TempDir);

/// The name of the one that does not misbehave.
pub(crate) const REAL: &str = "opencode-lister";

impl Helper {
    /// The real one, for now.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        symlink(support::lister(), directory.path().join(REAL)).unwrap();
        // What a misbehaving helper does is in the name it is called by, and the
        // service calls this program always by the same.
        support::script(
            &directory.path().join("helper"),
            "#!/bin/sh\nread -r now < \"${0%/*}/now\"\nexec \"${0%/*}/$now\" \"$@\"\n",
        );
        let helper = Self(directory);
        helper.becomes(REAL);
        helper
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.0.path().join("helper")
    }

    /// From the next launch on it is this one.
    pub(crate) fn becomes(&self, name: &str) {
        if !self.0.path().join(name).exists() {
            let _ = support::misbehaving(self.0.path(), name);
        }
        self.points_at(name);
    }

    /// From the next launch on there is none behind the script.
    pub(crate) fn becomes_nothing(&self) {
        self.points_at("nothing");
    }

    fn points_at(&self, name: &str) {
        let (new, now) = (self.0.path().join("new"), self.0.path().join("now"));
        fs::write(&new, format!("{name}\n")).unwrap();
        fs::rename(new, now).unwrap();
    }

    /// From the next launch on it is this program.
    pub(crate) fn becomes_script(&self, text: &str) {
        let name = format!("script-{}", fastrand::u64(..));
        support::script(&self.0.path().join(&name), text);
        self.becomes(&name);
    }

    /// The misbehaving helpers, and what they started.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        let pids = fs::read_to_string(self.0.path().join("pids")).unwrap_or_default();
        pids.lines()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
            .collect()
    }

    pub(crate) fn running(&self) -> Vec<Pid> {
        let pids = self.pids().into_iter();
        pids.filter(|pid| is_misbehaving(*pid)).collect()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        for pid in self.running() {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// True for a process of a misbehaving helper that lives.
fn is_misbehaving(pid: Pid) -> bool {
    if cfg!(target_os = "linux") {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.ends_with("misbehaving-lister") && !is_zombie(pid)
    } else {
        rustix::process::test_kill_process(pid).is_ok()
    }
}

fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_none_or(|(_, after)| after.trim_start().starts_with(['Z', 'X']))
}
