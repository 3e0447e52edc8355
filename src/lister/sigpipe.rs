//! Writing to a pipe without SIGPIPE.
//!
//! A Rust program ignores SIGPIPE; a host that has it at its default would die of a helper
//! that exits before it has read its request. Not by a socket as the helper's standard
//! input: bash takes that for a remote login and reads its start-up files, and
//! `/dev/stdin` cannot be opened then. So the signal is blocked while this thread writes,
//! and taken away again where the write has raised it: such a SIGPIPE goes to the thread
//! that wrote and to no other.

use std::io;
use std::mem::MaybeUninit;

/// Calls `write`, which may fail with [`io::ErrorKind::BrokenPipe`] but raises no signal.
pub(super) fn without_sigpipe<T>(write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let set = sigpipe();
    let was_pending = is_pending();
    let Some(before) = block(&set) else {
        return Err(io::Error::last_os_error());
    };
    let result = write();
    let is_broken = matches!(&result, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
    // One that was pending before is not ours to take.
    if is_broken && !was_pending && is_pending() {
        take(&set);
    }
    restore(&before);
    result
}

fn sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before anything reads it.
    #[expect(unsafe_code, reason = "neither std nor rustix has signal sets")]
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
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

/// Returns the thread's mask as it was.
fn block(set: &libc::sigset_t) -> Option<libc::sigset_t> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: the set is initialised, and the mask is read only where the call says that
    // it wrote it.
    #[expect(unsafe_code, reason = "neither std nor rustix sets a thread's mask")]
    unsafe {
        (libc::pthread_sigmask(libc::SIG_BLOCK, set, before.as_mut_ptr()) == 0)
            .then(|| before.assume_init())
    }
}

fn restore(before: &libc::sigset_t) {
    // SAFETY: the mask is one that the system gave.
    #[expect(unsafe_code, reason = "neither std nor rustix sets a thread's mask")]
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut());
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
