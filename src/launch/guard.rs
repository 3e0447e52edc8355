//! Owns one child: kills its process group and reaps it, at the latest on drop.
//!
//! The order matters. A group's id is its leader's process id, which the system may reuse
//! as soon as the leader is reaped. So the guard kills the group *before* it reaps the
//! leader. The usual wait calls reap; the guard therefore detects the leader's exit with
//! `WNOWAIT`, and reaps last, within a time limit.
//!
//! Only this file uses wait-timeout, and only to reap a child that has exited already.
//! Waiting with it has three problems: it reaps before the group is killed, it misses an
//! exit while SIGCHLD is blocked, and it panics if other code in the process has reaped one
//! of its children. It also installs a process-wide SIGCHLD handler that calls the previous
//! handler, and jumps to address 1 if that was `SIG_IGN`
//! (<https://github.com/alexcrichton/wait-timeout/issues/44>). So the guard spawns nothing
//! while SIGCHLD is ignored. With `SA_NOCLDWAIT` no child can be waited for either.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use rustix::process::Signal;
use wait_timeout::ChildExt;

use super::leader::GroupLeader;
use super::reaper::{Reaper, StuckProcesses};
use crate::lister::MAX_OVERRUN;

/// How long a killed child may take to exit.
const REAP_TIMEOUT: Duration = Duration::from_millis(700);

// The deadline bounds everything before the kill, so only the reaping may exceed it.
const _: () = assert!(REAP_TIMEOUT.as_millis() < MAX_OVERRUN.as_millis());

/// The first and the longest pause between two checks whether a killed child has exited.
const REAP_PAUSES: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(10));

/// A running child that leads a process group of its own.
#[derive(Debug)]
pub(super) struct ProcessGuard {
    /// `None` once the child is reaped or handed to the [`Reaper`].
    child: Option<Child>,
    leader: GroupLeader,
    /// The write end of the child's standard input. It is taken out of the child because
    /// waiting for a child closes the end that it still holds.
    pub(super) stdin: Option<ChildStdin>,
    stuck: StuckProcesses,
}

/// Why no child was spawned.
#[derive(Debug)]
pub(super) enum SpawnError {
    SigchldIgnored,
    Io(io::Error),
}

/// What became of a killed or exited child.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReapOutcome {
    /// The child was reaped and had this exit status.
    Reaped(ExitStatus),
    /// The child was killed but has not exited; the [`Reaper`] waits for it.
    Stuck,
}

impl ProcessGuard {
    /// Spawns `command` as [`spawn`](Self::spawn) does; on Linux the system kills it when
    /// the calling thread ends. For commands that do not watch their parent themselves.
    pub(super) fn spawn_with_parent_death_signal(
        mut command: Command,
        stuck: StuckProcesses,
    ) -> Result<Self, SpawnError> {
        set_parent_death_signal(&mut command);
        Self::spawn(command, stuck)
    }

    /// Spawns `command` in a process group of its own.
    pub(super) fn spawn(mut command: Command, stuck: StuckProcesses) -> Result<Self, SpawnError> {
        if sigchld_is_ignored() {
            return Err(SpawnError::SigchldIgnored);
        }
        command.process_group(0);
        #[expect(clippy::disallowed_methods, reason = "only this file spawns processes")]
        let mut child = command.spawn().map_err(SpawnError::Io)?;
        let stdin = child.stdin.take();
        let leader = GroupLeader::of(&child);
        Ok(Self {
            child: Some(child),
            leader,
            stdin,
            stuck,
        })
    }

    /// Takes the read ends of the child's standard output and standard error.
    pub(super) fn take_outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        match &mut self.child {
            Some(child) => (child.stdout.take(), child.stderr.take()),
            None => (None, None),
        }
    }

    /// Returns true if the child has exited. The child stays unreaped, so its id is not
    /// reused, unless other code in the process reaped it.
    pub(super) fn has_exited(&self) -> bool {
        self.leader.has_exited()
    }

    /// Returns a descriptor that becomes readable when the child exits, if the system
    /// provides one.
    pub(super) fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
        self.leader.exit_fd()
    }

    /// Kills the remaining processes of the group and reaps the child. A child that had
    /// exited before keeps its own exit status.
    pub(super) fn finish(mut self) -> io::Result<ReapOutcome> {
        self.kill_and_reap()
    }

    fn kill_and_reap(&mut self) -> io::Result<ReapOutcome> {
        let Some(mut child) = self.child.take() else {
            return Ok(ReapOutcome::Stuck);
        };
        self.leader.kill();
        let until = Instant::now() + REAP_TIMEOUT;
        let mut pause = REAP_PAUSES.0;
        while !self.has_exited() && Instant::now() < until {
            thread::sleep(pause);
            pause = (pause * 2).min(REAP_PAUSES.1);
        }
        if self.has_exited()
            && let Some(status) = reap(&mut child)?
        {
            return Ok(ReapOutcome::Reaped(status));
        }
        Reaper::reap_later(child, self.stuck.clone());
        Ok(ReapOutcome::Stuck)
    }
}

impl Drop for ProcessGuard {
    fn drop(&mut self) {
        let _ = self.kill_and_reap();
    }
}

/// Reaps a child that has exited.
fn reap(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    // wait-timeout opens four descriptors: on its first call or on any call. If it cannot,
    // it panics or leaves the child unreaped.
    let has_free_descriptors = UnixStream::pair().is_ok_and(|_one| UnixStream::pair().is_ok());
    if !has_free_descriptors {
        return child.try_wait();
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "only this file uses wait-timeout"
    )]
    match child.wait_timeout(Duration::ZERO) {
        Err(error) if error.raw_os_error() != Some(libc::ECHILD) => child.try_wait(),
        result => result,
    }
}

/// Makes the system kill the child when the spawning thread ends. Does nothing on systems
/// other than Linux; there the end of its standard input must make the child exit.
fn set_parent_death_signal(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let parent = rustix::process::getpid();
        let request_signal = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // A parent that exited before that call sends no signal.
            if rustix::process::getppid() != Some(parent) {
                return Err(rustix::io::Errno::SRCH.into());
            }
            Ok(())
        };
        // SAFETY: between fork and exec only async-signal-safe functions may be called.
        // These are two system calls that touch no memory but their own.
        #[expect(unsafe_code, reason = "std has no safe hook between fork and exec")]
        unsafe {
            command.pre_exec(request_signal);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// Returns true if the system discards the exit status of this process's children, so that
/// they cannot be waited for.
fn sigchld_is_ignored() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null new action, sigaction only writes the present action to the
    // given memory, which is large enough. It is read only if the call succeeded.
    #[expect(unsafe_code, reason = "neither std nor rustix reads a signal's action")]
    let action = unsafe {
        if libc::sigaction(libc::SIGCHLD, std::ptr::null(), action.as_mut_ptr()) != 0 {
            return false;
        }
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use rustix::process::Pid;

    use super::*;

    fn sleeper() -> ProcessGuard {
        let mut command = Command::new("sleep");
        command.arg("60").stdin(Stdio::piped());
        ProcessGuard::spawn(command, StuckProcesses::default()).unwrap()
    }

    fn is_alive(pid: Pid) -> bool {
        rustix::process::test_kill_process(pid).is_ok()
    }

    #[test]
    fn dropped_guard_kills_and_reaps_its_child() {
        let guard = sleeper();
        let pid = guard.leader.pid;
        assert!(is_alive(pid) && !guard.has_exited());
        drop(guard);
        assert!(!is_alive(pid));
    }

    #[test]
    fn stuck_child_is_counted_until_the_reaper_reaps_it() {
        let mut guard = sleeper();
        let (pid, stuck) = (guard.leader.pid, guard.stuck.clone());
        // As kill_and_reap does after its time limit.
        Reaper::reap_later(guard.child.take().unwrap(), stuck.clone());
        assert_eq!(stuck.count(), 1);
        assert!(is_alive(pid));
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while stuck.count() > 0 {
            assert!(Instant::now() < until, "the reaper never noticed");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!is_alive(pid));
    }

    #[test]
    fn exited_child_is_detected_without_reaping_it() {
        let guard = ProcessGuard::spawn(Command::new("true"), StuckProcesses::default()).unwrap();
        let pid = guard.leader.pid;
        while !guard.has_exited() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(is_alive(pid), "an unreaped child still has its id");
        assert!(matches!(guard.finish(), Ok(ReapOutcome::Reaped(status)) if status.success()));
        assert!(!is_alive(pid));
    }
}
