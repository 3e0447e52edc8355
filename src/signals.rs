//! Signal masks and actions, which neither std nor rustix provides: the settings at the start
//! of a program, and writing to a pipe without SIGPIPE.
//!
//! Only [`without_sigpipe`] returns errors.

use std::io;
use std::mem::MaybeUninit;

/// Resets SIGCHLD to its default action and unblocks it. A parent may have ignored or
/// blocked it, and both are inherited.
///
/// Call this first in `main`, before any other thread is spawned.
pub fn restore_sigchld() {
    // SAFETY: SIG_DFL is a valid action for SIGCHLD.
    #[expect(unsafe_code, reason = "neither std nor rustix sets a signal's action")]
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
    unblock(&[libc::SIGCHLD]);
}

/// Unblocks these signals for this thread and for the threads that it will spawn. A parent
/// may have blocked them, and that is inherited.
pub(crate) fn unblock(signals: &[libc::c_int]) {
    // The call fails only for an invalid operation.
    let _ = change_mask(libc::SIG_UNBLOCK, &signal_set(signals));
}

/// Calls `write`, which may fail with [`io::ErrorKind::BrokenPipe`] but raises no signal.
///
/// A Rust program ignores SIGPIPE. In a host with the default action, a helper that exits
/// before it has read its request would kill the host. So the signal is blocked while this
/// thread writes, and consumed if the write has raised it: the system sends such a SIGPIPE
/// only to the thread that wrote.
///
/// A socket as the helper's standard input would raise no signal either. But bash then
/// assumes a remote login and reads its start-up files, and `/dev/stdin` cannot be opened.
pub(crate) fn without_sigpipe<T>(write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let set = signal_set(&[libc::SIGPIPE]);
    let was_pending = is_sigpipe_pending();
    let previous = change_mask(libc::SIG_BLOCK, &set)?;
    let result = write();
    let is_broken = matches!(&result, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
    // A signal that was pending before belongs to other code.
    if is_broken && !was_pending && is_sigpipe_pending() {
        consume_pending(&set);
    }
    change_mask(libc::SIG_SETMASK, &previous)?;
    result
}

fn signal_set(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before anything reads it.
    #[expect(unsafe_code, reason = "neither std nor rustix has signal sets")]
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// Changes the thread's signal mask and returns the previous one.
fn change_mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut previous = MaybeUninit::uninit();
    // SAFETY: the set is initialised, and the previous mask is read only if the call
    // succeeded.
    #[expect(unsafe_code, reason = "neither std nor rustix sets a thread's mask")]
    unsafe {
        // The call returns its error and does not set errno.
        match libc::pthread_sigmask(how, set, previous.as_mut_ptr()) {
            0 => Ok(previous.assume_init()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn is_sigpipe_pending() -> bool {
    let mut pending = MaybeUninit::uninit();
    // SAFETY: the set is read only if sigpending succeeded.
    #[expect(unsafe_code, reason = "neither std nor rustix has signal sets")]
    unsafe {
        libc::sigpending(pending.as_mut_ptr()) == 0
            && libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1
    }
}

/// Removes the pending signal of this set.
fn consume_pending(set: &libc::sigset_t) {
    // SAFETY: the set and the time are initialised, and the siginfo pointer may be null.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[expect(unsafe_code, reason = "neither std nor rustix waits for a signal")]
    unsafe {
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        while libc::sigtimedwait(set, std::ptr::null_mut(), &raw const now) == -1
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    // SAFETY: the set is initialised. The signal is pending, so the call does not block.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    #[expect(unsafe_code, reason = "neither std nor rustix waits for a signal")]
    unsafe {
        let mut signal = 0;
        libc::sigwait(set, &raw mut signal);
    }
}
