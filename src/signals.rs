//! Signal masks and actions, which neither std nor rustix has: what a program sets at its
//! start, and writing to a pipe without SIGPIPE.
//!
//! Nothing here fails but [`without_sigpipe`].

use std::io;
use std::mem::MaybeUninit;

/// Sets SIGCHLD to its default, and lets it through: a supervisor may have
/// started this process with it ignored or blocked, and both are inherited.
///
/// Call it first in `main`, before there is another thread.
pub fn restore_sigchld() {
    // SAFETY: SIG_DFL is a valid action for SIGCHLD.
    #[expect(unsafe_code, reason = "neither std nor rustix sets a signal's action")]
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
    unblock(&[libc::SIGCHLD]);
}

/// Lets these signals through to this thread and those that it will spawn: whoever started
/// this process may have blocked them, and that is inherited.
pub(crate) fn unblock(signals: &[libc::c_int]) {
    // It fails only for an operation that it does not know.
    let _ = mask(libc::SIG_UNBLOCK, &set_of(signals));
}

/// Calls `write`, which may fail with [`io::ErrorKind::BrokenPipe`] but raises no signal.
///
/// A Rust program ignores SIGPIPE; a host that has it at its default would die of a helper
/// that exits before it has read its request. Not by a socket as the helper's standard
/// input: bash takes that for a remote login and reads its start-up files, and
/// `/dev/stdin` cannot be opened then. So the signal is blocked while this thread writes,
/// and taken away again where the write has raised it: such a SIGPIPE goes to the thread
/// that wrote and to no other.
pub(crate) fn without_sigpipe<T>(write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let set = set_of(&[libc::SIGPIPE]);
    let was_pending = is_pending();
    let before = mask(libc::SIG_BLOCK, &set)?;
    let result = write();
    let is_broken = matches!(&result, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
    // One that was pending before is not ours to take.
    if is_broken && !was_pending && is_pending() {
        take(&set);
    }
    mask(libc::SIG_SETMASK, &before)?;
    result
}

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
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

/// Changes the thread's mask, and returns it as it was.
fn mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: the set is initialised, and the mask is read only where the call says that
    // it wrote it.
    #[expect(unsafe_code, reason = "neither std nor rustix sets a thread's mask")]
    unsafe {
        // It returns its error, and leaves errno as it is.
        match libc::pthread_sigmask(how, set, before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn is_pending() -> bool {
    let mut pending = MaybeUninit::uninit();
    // SAFETY: the set is read only where sigpending says that it wrote it.
    #[expect(unsafe_code, reason = "neither std nor rustix has signal sets")]
    unsafe {
        libc::sigpending(pending.as_mut_ptr()) == 0
            && libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1
    }
}

/// Takes the pending signal away.
fn take(set: &libc::sigset_t) {
    // SAFETY: the set and the time are initialised; a null pointer asks for no details.
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
    // SAFETY: the set is initialised, and the signal is pending, so this does not wait.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    #[expect(unsafe_code, reason = "neither std nor rustix waits for a signal")]
    unsafe {
        let mut signal = 0;
        libc::sigwait(set, &raw mut signal);
    }
}
