//! The helper's process: ties it to its parent, lowers its priority, limits its resources.
//!
//! Each function follows an argument of the helper and applies to the whole process, so a
//! host of the library must not call it. If the platform lacks a limit, or the system denies
//! it, the helper runs without it: the parent still enforces the deadline.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, Signal};

use crate::wire::{Request, STDIN_ENDED, limits};

/// The maximum address space in bytes. Much of it is reserved but never used: the C library
/// reserves 64 MiB per thread.
const ADDRESS_SPACE_BYTES: u64 = 1 << 30;

/// Makes the kernel kill this process with SIGKILL when the *thread* of `parent` that
/// spawned it ends. Does nothing on systems other than Linux; there the end of standard
/// input must do so, see [`exit_at_end_of_stdin`].
///
/// # Errors
///
/// Returns an error if `parent` has exited already: the caller should exit.
pub(crate) fn exit_with_parent(parent: u32) -> Result<(), OrphanError> {
    #[cfg(target_os = "linux")]
    {
        // The request comes before the check, so that one of the two detects a parent that
        // exits in between.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let current =
            rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
        if current != Some(parent) {
            return Err(OrphanError { parent });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    Ok(())
}

/// The parent of this process has exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("process {parent} is not the parent of this process")]
pub(crate) struct OrphanError {
    parent: u32,
}

/// Lowers the CPU and I/O priority, disables core files and limits the address space to
/// 1 GiB. The priorities are not the lowest: a process with those can starve beyond any
/// deadline.
pub(crate) fn lower_priority_and_limit_memory() {
    let _ = rustix::process::nice(10);
    lower_io_priority();
    limit(Resource::Core, 0, 0);
    limit(Resource::As, ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES);
}

/// Makes SIGXCPU end this process when it has used this many seconds of CPU time.
pub(crate) fn limit_cpu_time(seconds: u64) {
    limit(Resource::Cpu, seconds, seconds.saturating_add(1));
}

/// Lowers the limits of a resource; limits that are lower already stay.
fn limit(resource: Resource, soft: u64, hard: u64) {
    let present = rustix::process::getrlimit(resource);
    let lower = |new: u64, old: Option<u64>| Some(old.map_or(new, |old| old.min(new)));
    let maximum = lower(hard, present.maximum);
    let limits = Rlimit {
        current: lower(soft.min(maximum.unwrap_or(soft)), present.current),
        maximum,
    };
    let _ = rustix::process::setrlimit(resource, limits);
}

/// Sets level 7, the lowest of the best-effort class; unlike the idle class it cannot
/// starve.
fn lower_io_priority() {
    #[cfg(target_os = "linux")]
    {
        const WHO_PROCESS: libc::c_int = 1;
        const CLASS_BEST_EFFORT: libc::c_int = 2;
        const CLASS_SHIFT: libc::c_int = 13;
        // SAFETY: ioprio_set takes three integers and touches no memory of ours.
        #[expect(unsafe_code, reason = "neither std nor rustix has this system call")]
        unsafe {
            libc::syscall(
                libc::SYS_ioprio_set,
                WHO_PROCESS,
                0,
                CLASS_BEST_EFFORT << CLASS_SHIFT | 7,
            );
        }
    }
}

/// Reads the request line from standard input.
///
/// # Errors
///
/// Returns a message for people if standard input cannot be read or ends before a line feed,
/// if the line is longer than [`limits::LINE`], or if it is not a valid request.
pub(crate) fn read_request(stdin: &mut impl BufRead) -> Result<Request, String> {
    let mut line = Vec::new();
    let limit = limits::LINE as u64 + 1;
    stdin
        .take(limit)
        .read_until(b'\n', &mut line)
        .map_err(|error| format!("cannot read standard input: {error}"))?;
    if line.pop_if(|last| *last == b'\n').is_none() {
        return Err(match line.len() as u64 {
            0 => format!("missing request: {STDIN_ENDED}"),
            length if length == limit => {
                format!("the request is longer than {} bytes", limits::LINE)
            }
            _ => "incomplete request: expected a line feed".to_owned(),
        });
    }
    Request::parse(&line)
}

/// Returns standard input with a buffer. Create it once: [`read_request`] and
/// [`exit_at_end_of_stdin`] must share the buffer.
pub(crate) fn stdin() -> BufReader<io::Stdin> {
    BufReader::new(io::stdin())
}

/// Starts a thread that kills this process when standard input ends: the parent holds the
/// write end. The thread first reports that to standard error, for a parent that is alive
/// but uses a command that does not forward standard input.
///
/// # Errors
///
/// Returns an error if the thread cannot be spawned.
pub(crate) fn exit_at_end_of_stdin(mut stdin: impl Read + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name("parent-pipe".into())
        .stack_size(64 << 10)
        .spawn(move || {
            let mut buffer = [0; 512];
            loop {
                match stdin.read(&mut buffer) {
                    Ok(0) => break,
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                    _ => {}
                }
            }
            report_end_of_stdin();
            // The output has no reader. SIGKILL, because an orderly exit could wait for the
            // thread that writes it.
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        })?;
    Ok(())
}

/// Writes [`STDIN_ENDED`] to standard error, unless that could block: the process must end
/// at once, even if a blocked parent has left the pipe full.
fn report_end_of_stdin() {
    let stderr = io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    let no_wait = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A writable pipe accepts PIPE_BUF bytes, at least 512, without blocking.
    if poll(&mut ready, Some(&no_wait)).is_ok_and(|ready| ready > 0) {
        let line = format!("opencode-lister: {STDIN_ENDED}\n");
        let _ = rustix::io::write(stderr.as_fd(), line.as_bytes());
    }
}
