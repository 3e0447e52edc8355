//! The one owner of a child: it kills the whole process group and reaps, at the
//! latest when it is dropped.
//!
//! The order matters. A group's id is its leader's process id, which the system
//! may give to another process as soon as the leader is reaped: so the group is
//! killed *before* that. Waiting in the usual ways reaps, so a leader's end is
//! looked for with `WNOWAIT` here, and reaping, with a limit, is the last step.
//!
//! This is the only file that uses wait-timeout, and it only lets it reap a child
//! that is known to have exited. Its waiting would reap before the group is
//! killed, sleeps through an exit where SIGCHLD is blocked, and panics where
//! something else in the process reaped a child of its list. It also installs a
//! process-wide SIGCHLD handler which calls the one that was there before, and
//! jumps to address 1 where that was "ignore"
//! (<https://github.com/alexcrichton/wait-timeout/issues/44>). So nothing is
//! spawned while SIGCHLD is ignored; with `SA_NOCLDWAIT` no child could be waited
//! for either.

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

/// How long a killed child may take to die. Together with what the caller does
/// around it this keeps to "the deadline plus one second".
const REAP: Duration = Duration::from_millis(700);

/// How often a killed child is looked at: first and last pause.
const LOOK: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(10));

/// A running child, leader of a process group of its own.
#[derive(Debug)]
pub(super) struct ProcessGuard {
    /// `None` once it is reaped, or with the reaper.
    child: Option<Child>,
    leader: GroupLeader,
    /// Standard input's other end, taken out of the child: waiting for a child
    /// closes what it still has of it.
    pub(super) stdin: Option<ChildStdin>,
    stuck: StuckProcesses,
}

/// Why nothing was spawned.
#[derive(Debug)]
pub(super) enum SpawnError {
    SigchldIgnored,
    Io(io::Error),
}

/// How a child ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    /// It is reaped; this is how it exited.
    Reaped(ExitStatus),
    /// It was killed and does not die; the reaper has it.
    Stuck,
}

impl ProcessGuard {
    /// As [`spawn`](Self::spawn), of a command that knows nothing of us: the system
    /// kills it when the thread that calls this ends, on Linux.
    pub(super) fn spawn_to_die_with_us(
        mut command: Command,
        stuck: StuckProcesses,
    ) -> Result<Self, SpawnError> {
        die_with_us(&mut command);
        Self::spawn(command, stuck)
    }

    /// Spawns `command` in a process group of its own.
    pub(super) fn spawn(mut command: Command, stuck: StuckProcesses) -> Result<Self, SpawnError> {
        if sigchld_is_ignored() {
            return Err(SpawnError::SigchldIgnored);
        }
        command.process_group(0);
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
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

    /// The other ends of its standard output and error.
    pub(super) fn take_outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        match &mut self.child {
            Some(child) => (child.stdout.take(), child.stderr.take()),
            None => (None, None),
        }
    }

    /// True when the child has exited. It stays unreaped, and its id its own, unless
    /// somebody else reaped it.
    pub(super) fn has_exited(&self) -> bool {
        self.leader.has_exited()
    }

    /// A descriptor that can be read from once the child has exited, where there is one.
    pub(super) fn exit(&self) -> Option<BorrowedFd<'_>> {
        self.leader.exit()
    }

    /// Kills what is left of the group and reaps the child. For a child that has
    /// exited by itself the ending is its own.
    pub(super) fn end(mut self) -> io::Result<Ending> {
        self.kill_and_reap()
    }

    fn kill_and_reap(&mut self) -> io::Result<Ending> {
        let Some(mut child) = self.child.take() else {
            return Ok(Ending::Stuck);
        };
        self.leader.kill();
        let until = Instant::now() + REAP;
        let mut pause = LOOK.0;
        while !self.has_exited() && Instant::now() < until {
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK.1);
        }
        if self.has_exited()
            && let Some(status) = reap(&mut child)?
        {
            return Ok(Ending::Reaped(status));
        }
        Reaper::reap_later(child, self.stuck.clone());
        Ok(Ending::Stuck)
    }
}

impl Drop for ProcessGuard {
    fn drop(&mut self) {
        let _ = self.kill_and_reap();
    }
}

/// Reaps a child that has exited.
fn reap(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    // wait-timeout needs four descriptors, the first time or any time, and
    // without them it panics or leaves the child as it is.
    let room = UnixStream::pair().is_ok_and(|_one| UnixStream::pair().is_ok());
    if !room {
        return child.try_wait();
    }
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    match child.wait_timeout(Duration::ZERO) {
        Err(error) if error.raw_os_error() != Some(libc::ECHILD) => child.try_wait(),
        result => result,
    }
}

/// Elsewhere than on Linux the end of its standard input has to do.
fn die_with_us(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let us = rustix::process::getpid();
        let ask = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // Who died before that sends no signal any more.
            if rustix::process::getppid() != Some(us) {
                return Err(rustix::io::Errno::SRCH.into());
            }
            Ok(())
        };
        // SAFETY: between fork and exec only what is safe in a signal handler may be
        // called: these are two system calls that touch no memory but their own.
        #[expect(unsafe_code, reason = "std gives no safe way between fork and exec")]
        unsafe {
            command.pre_exec(ask);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// True where this process's children cannot be waited for.
fn sigchld_is_ignored() -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null new action, sigaction only writes the present one to
    // the memory given to it, which is large enough; it is read only where the
    // call says that it did so.
    #[expect(unsafe_code, reason = "neither std nor rustix tells a signal's action")]
    let now = unsafe {
        if libc::sigaction(libc::SIGCHLD, std::ptr::null(), now.as_mut_ptr()) != 0 {
            return false;
        }
        now.assume_init()
    };
    now.sa_sigaction == libc::SIG_IGN || now.sa_flags & libc::SA_NOCLDWAIT != 0
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
    fn a_dropped_guard_leaves_no_process() {
        let guard = sleeper();
        let pid = guard.leader.pid;
        assert!(is_alive(pid) && !guard.has_exited());
        drop(guard);
        assert!(!is_alive(pid));
    }

    #[test]
    fn a_child_that_does_not_die_goes_to_the_reaper_and_is_counted_until_it_is_gone() {
        let mut guard = sleeper();
        let (pid, stuck) = (guard.leader.pid, guard.stuck.clone());
        // What kill_and_reap does when the time is up.
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
    fn an_exited_child_can_be_seen_and_still_keeps_its_id() {
        let guard = ProcessGuard::spawn(Command::new("true"), StuckProcesses::default()).unwrap();
        let pid = guard.leader.pid;
        while !guard.has_exited() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(is_alive(pid), "an unreaped child still has its id");
        assert!(matches!(guard.end(), Ok(Ending::Reaped(status)) if status.success()));
        assert!(!is_alive(pid));
    }
}
