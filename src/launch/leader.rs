//! The child that leads a process group: whether it has exited, and killing it and its group.
//!
//! A process id belongs to a child until the child is reaped; then the system may give it to
//! any process. A host can have a thread or a signal handler that reaps every child, ours
//! too. So nothing is killed by a number that can be another's: on Linux the child is held
//! by a pidfd, which never becomes another process, and where there is none a signal is sent
//! only while the child is there to be waited for.

use std::os::fd::BorrowedFd;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Child;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// A child of this process that leads a process group.
#[derive(Debug)]
pub(super) struct GroupLeader {
    pub(super) pid: Pid,
    #[cfg(target_os = "linux")]
    pidfd: Option<OwnedFd>,
}

impl GroupLeader {
    pub(super) fn of(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        Self {
            pid,
            #[cfg(target_os = "linux")]
            pidfd: open(pid),
        }
    }

    /// A descriptor that can be read from once the child has exited, where there is one.
    pub(super) fn exit(&self) -> Option<BorrowedFd<'_>> {
        #[cfg(target_os = "linux")]
        return self.pidfd.as_ref().map(AsFd::as_fd);
        #[cfg(not(target_os = "linux"))]
        return None;
    }

    /// True when the child has exited. It stays unreaped, unless somebody else reaped it.
    pub(super) fn has_exited(&self) -> bool {
        !matches!(self.wait(), Ok(None))
    }

    fn wait(&self) -> rustix::io::Result<Option<rustix::process::WaitIdStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        rustix::process::waitid(self.id(), options)
    }

    #[cfg(target_os = "linux")]
    fn id(&self) -> WaitId<'_> {
        match &self.pidfd {
            Some(pidfd) => WaitId::PidFd(pidfd.as_fd()),
            None => WaitId::Pid(self.pid),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn id(&self) -> WaitId<'_> {
        WaitId::Pid(self.pid)
    }

    /// Kills the child, running or not, and what is left of its group. Call it before the
    /// child is reaped: then the group's id is its own. Where somebody else reaped the
    /// child and the kernel knows no signal to the group of a pidfd, nothing is killed.
    pub(super) fn kill(&self) {
        #[cfg(target_os = "linux")]
        if let Some(pidfd) = &self.pidfd {
            if !kill_group_of(pidfd) && self.wait().is_ok() {
                // An error: there is no process left in the group.
                let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
            }
            // It may have left its group.
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
            return;
        }
        // An error: somebody else reaped it, and the id can be any process's.
        if self.wait().is_ok() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        }
    }
}

/// `None` where the kernel has no pidfd, or none that can be waited for (before Linux 5.4),
/// where it is refused, or where somebody else has reaped the child by now, so that it can
/// be of another process.
#[cfg(target_os = "linux")]
fn open(pid: Pid) -> Option<OwnedFd> {
    let flags = rustix::process::PidfdFlags::empty();
    let pidfd = rustix::process::pidfd_open(pid, flags).ok()?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options).ok()?;
    Some(pidfd)
}

/// Kills the group of this process, also after the process was reaped. False where the
/// kernel cannot do that (before Linux 6.9).
#[cfg(target_os = "linux")]
fn kill_group_of(pidfd: &OwnedFd) -> bool {
    const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
    // SAFETY: the descriptor is open, and a null pointer stands for the signal's usual
    // information; the call touches no memory of this process.
    #[expect(unsafe_code, reason = "neither std nor rustix has the flag")]
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    };
    // No process is left in the group: that was the aim.
    result == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    /// A process that is no child of this one, and leads a group.
    struct Unrelated(Pid);

    impl Unrelated {
        fn new() -> Self {
            let mut shell = Command::new("/bin/sh");
            shell
                .args(["-c", "setsid sleep 60 >&- & echo $!"])
                .stdout(Stdio::piped());
            #[expect(clippy::disallowed_methods, reason = "a test starts it")]
            let mut shell = shell.spawn().unwrap();
            let mut pid = String::new();
            let mut out = BufReader::new(shell.stdout.take().unwrap());
            out.read_line(&mut pid).unwrap();
            shell.wait().unwrap();
            let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
            while rustix::process::getpgid(Some(pid)) != Ok(pid) {
                std::thread::yield_now();
            }
            Self(pid)
        }

        fn is_alive(&self) -> bool {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0));
            stat.is_ok_and(|stat| !stat.contains(") Z"))
        }
    }

    impl Drop for Unrelated {
        fn drop(&mut self) {
            let _ = rustix::process::kill_process(self.0, Signal::KILL);
        }
    }

    fn child(script: &str) -> Child {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).process_group(0);
        #[expect(clippy::disallowed_methods, reason = "a test starts it")]
        shell.spawn().unwrap()
    }

    /// The id of a child that somebody else reaped, which the system gave to another
    /// process.
    #[test]
    #[cfg(target_os = "linux")]
    fn process_that_got_the_id_of_a_reaped_child_is_not_killed() {
        for is_held in [true, false] {
            let mut child = child("exit 0");
            let mut leader = GroupLeader::of(&child);
            assert!(leader.pidfd.is_some());
            child.wait().unwrap();
            let unrelated = Unrelated::new();
            leader.pid = unrelated.0;
            if !is_held {
                leader.pidfd = None;
            }
            assert!(leader.has_exited());
            leader.kill();
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(unrelated.is_alive(), "held: {is_held}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn child_and_its_group_are_killed_with_and_without_a_pidfd() {
        for is_held in [true, false] {
            let mut child = child("sleep 60 & wait");
            let mut leader = GroupLeader::of(&child);
            if !is_held {
                leader.pidfd = None;
            }
            assert!(!leader.has_exited());
            let group = leader.pid;
            leader.kill();
            while !leader.has_exited() {
                std::thread::yield_now();
            }
            child.wait().unwrap();
            let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while rustix::process::test_kill_process_group(group).is_ok() {
                assert!(std::time::Instant::now() < until, "held: {is_held}");
                std::thread::yield_now();
            }
        }
    }
}
