//! Processes that a test starts or watches, and the databases they list.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::support::{self, Made};

// ---- Processes.

/// A process that a test started, which does not survive it.
pub(crate) struct Started(pub(crate) Child);

impl Started {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A helper that something else started.
pub(crate) struct Seen(pub(crate) u32);

impl Seen {
    /// Neither gone nor a zombie, whoever reaps that.
    pub(crate) fn is_running(&self) -> bool {
        let is_dead = |stat: Vec<String>| matches!(stat[0].as_str(), "Z" | "X");
        is_helper(self.0) && !stat(self.0).is_none_or(is_dead)
    }

    #[track_caller]
    pub(crate) fn assert_is_gone_within(&self, limit: Duration) {
        support::eventually(limit, "the end of the helper", || !self.is_running());
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        // Looked at once more: whatever went wrong, nothing else is killed.
        if self.is_running() {
            let pid = Pid::from_raw(self.0.cast_signed()).unwrap();
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// True for a process that runs the helper under test.
fn is_helper(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == support::lister())
}

/// The fields of `/proc/PID/stat` after the name, from the third, the state.
pub(crate) fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    Some(after_name.split_whitespace().map(str::to_owned).collect())
}

pub(crate) fn arguments(pid: u32) -> Vec<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split_terminator('\0').map(str::to_owned).collect()
}

/// Waits for the helper that is a child of `parent` and lists `db`.
#[track_caller]
pub(crate) fn helper_of(parent: u32, db: &Path) -> Seen {
    let pid = wait_for("a helper", || {
        fs::read_dir("/proc").unwrap().find_map(|entry| {
            let pid = entry.unwrap().file_name().to_str()?.parse().ok()?;
            let is_child = stat(pid)?[1] == parent.to_string();
            let lists_it = arguments(pid).iter().any(|each| Path::new(each) == db);
            (is_child && lists_it && is_helper(pid)).then_some(pid)
        })
    });
    Seen(pid)
}

/// Waits until the helper has done all that it does before it opens the database.
#[track_caller]
pub(crate) fn wait_until_it_reads(helper: u32, db: &Path) {
    wait_for("the database to be open", || {
        let open = fs::read_dir(format!("/proc/{helper}/fd")).ok()?;
        open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .any(|file| file == db)
            .then_some(())
    });
}

#[track_caller]
pub(crate) fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    support::within(Duration::from_secs(10), what, look)
}

// ---- Databases.

pub(crate) fn one_session() -> Made {
    let made = Made::new();
    made.session("ses_1", 1);
    made
}

/// Locked until `COMMIT` and the end of its exclusive mode.
pub(crate) fn locked() -> Made {
    let made = one_session();
    made.run("PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE; UPDATE session SET title = 'x'");
    made
}

pub(crate) fn unlock(made: &Made) {
    made.run("COMMIT; PRAGMA locking_mode = normal; SELECT count(*) FROM session");
}
