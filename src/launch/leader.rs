//! The child that leads a process group: detects its exit, kills it and its group.
//!
//! A process id belongs to a child until the child is reaped; then the system may give it to
//! any process. A host can have a thread or a signal handler that reaps every child,
//! including this one. So no signal goes to an id that may have been reused. On Linux a
//! pidfd refers to the child; it never refers to another process. Without a pidfd a signal
//! is sent only while the child can still be waited for.

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
            pidfd: open_pidfd(pid),
        }
    }

    /// Returns a descriptor that becomes readable when the child exits, if the system
    /// provides one.
    pub(super) fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
        #[cfg(target_os = "linux")]
        return self.pidfd.as_ref().map(AsFd::as_fd);
        #[cfg(not(target_os = "linux"))]
        return None;
    }

    /// Returns true if the child has exited. The call does not reap it; the result is also
    /// true if other code in the process has reaped it.
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

    /// Kills the child, running or not, and the remaining processes of its group.
    ///
    /// Call it before the child is reaped, while the group's id cannot be reused. If other
    /// code has reaped the child and the kernel cannot signal the group of a pidfd, nothing
    /// is killed.
    pub(super) fn kill(&self) {
        #[cfg(target_os = "linux")]
        if let Some(pidfd) = &self.pidfd {
            if !kill_group_of(pidfd) && self.wait().is_ok() {
                // An error means that the group has no process left.
                let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
            }
            // The child may have left its group.
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
            return;
        }
        // On an error other code has reaped the child, and the id may have been reused.
        if self.wait().is_ok() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        }
    }
}

/// Opens a pidfd of the child.
///
/// Returns `None` if the kernel has no pidfd, or none that can be waited for (before Linux
/// 5.4), if the call is denied, or if other code has reaped the child, so that the pidfd may
/// be of another process.
#[cfg(target_os = "linux")]
fn open_pidfd(pid: Pid) -> Option<OwnedFd> {
    let flags = rustix::process::PidfdFlags::empty();
    let pidfd = rustix::process::pidfd_open(pid, flags).ok()?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options).ok()?;
    Some(pidfd)
}

/// Kills the group of this process, even after the process was reaped. Returns false if the
/// kernel does not support that (before Linux 6.9).
#[cfg(target_os = "linux")]
fn kill_group_of(pidfd: &OwnedFd) -> bool {
    const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
    // SAFETY: the descriptor is open, and a null pointer selects the default siginfo. The
    // call touches no memory of this process.
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
    // ESRCH: the group has no process left to kill.
    result == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    /// A group leader that is not a child of this process.
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

    /// Other code reaped the child, and the system reused its id.
    #[test]
    #[cfg(target_os = "linux")]
    fn process_with_a_reused_id_is_not_killed() {
        for has_pidfd in [true, false] {
            let mut child = child("exit 0");
            let mut leader = GroupLeader::of(&child);
            assert!(leader.pidfd.is_some());
            child.wait().unwrap();
            let unrelated = Unrelated::new();
            leader.pid = unrelated.0;
            if !has_pidfd {
                leader.pidfd = None;
            }
            assert!(leader.has_exited());
            leader.kill();
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(unrelated.is_alive(), "has a pidfd: {has_pidfd}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn child_and_its_group_are_killed_with_and_without_a_pidfd() {
        for has_pidfd in [true, false] {
            let mut child = child("sleep 60 & wait");
            let mut leader = GroupLeader::of(&child);
            if !has_pidfd {
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
                assert!(
                    std::time::Instant::now() < until,
                    "has a pidfd: {has_pidfd}"
                );
                std::thread::yield_now();
            }
        }
    }
}
