//! A helper that a program launched: it dies with that program, keeps to limits,
//! and stays in the background.
//!
//! Everything here is asked for by an argument and applies to the whole process,
//! so none of it is for a library's host. Where a platform has no such limit, or
//! the system refuses it, the helper goes on without: the launcher's deadline
//! holds all the same.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, Signal};

use crate::wire::{Request, STDIN_ENDED, limits};

/// Address space of a helper in the background, in bytes. Much of it is never
/// touched: the C library reserves 64 MiB a thread.
const ADDRESS_SPACE: u64 = 1 << 30;

/// Dies with the process `parent`: at once where that is not its parent any
/// more, and later by SIGKILL, which the kernel sends when the *thread* that
/// launched it ends. Linux only; elsewhere the parent's pipe does it.
///
/// # Errors
///
/// Where `parent` is already gone.
pub fn die_with(parent: u32) -> Result<(), OrphanError> {
    #[cfg(target_os = "linux")]
    {
        // Before the check: a parent that dies in between is noticed by one of both.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
        if now != Some(parent) {
            return Err(OrphanError { parent });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    Ok(())
}

/// The process that launched this one is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("process {parent} is not this one's parent")]
pub struct OrphanError {
    parent: u32,
}

/// Goes to the background: low CPU and I/O priority (not the lowest, which can
/// starve past every deadline), no core file, limited address space.
pub fn go_to_the_background() {
    let _ = rustix::process::nice(10);
    low_io_priority();
    limit(Resource::Core, 0, 0);
    limit(Resource::As, ADDRESS_SPACE, ADDRESS_SPACE);
}

/// Ends this process by SIGXCPU when it has used so many seconds of CPU.
pub fn limit_cpu(seconds: u64) {
    limit(Resource::Cpu, seconds, seconds.saturating_add(1));
}

fn limit(resource: Resource, soft: u64, hard: u64) {
    let now = rustix::process::getrlimit(resource);
    let lower = |new: u64, old: Option<u64>| Some(old.map_or(new, |old| old.min(new)));
    let maximum = lower(hard, now.maximum);
    let new = Rlimit {
        current: lower(soft.min(maximum.unwrap_or(soft)), now.current),
        maximum,
    };
    let _ = rustix::process::setrlimit(resource, new);
}

/// Best effort, level 7: the last in line for the disk, but in line.
fn low_io_priority() {
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

/// Reads the one request line from standard input.
///
/// # Errors
///
/// Where there is none, or it is longer than a line may be, or no request.
pub fn read_request(stdin: &mut impl BufRead) -> Result<Request, String> {
    let mut line = Vec::new();
    let limit = limits::LINE as u64 + 1;
    stdin
        .take(limit)
        .read_until(b'\n', &mut line)
        .map_err(|error| format!("standard input cannot be read: {error}"))?;
    if line.pop_if(|last| *last == b'\n').is_none() {
        return Err(match line.len() as u64 {
            0 => format!("there is no request: {STDIN_ENDED}"),
            length if length == limit => {
                format!("the request is longer than {} bytes", limits::LINE)
            }
            _ => "standard input has no request line".to_owned(),
        });
    }
    Request::parse(&line)
}

/// Standard input, buffered once: a request and the parent's pipe share it.
pub fn stdin() -> BufReader<io::Stdin> {
    BufReader::new(io::stdin())
}

/// Ends this process when standard input ends: its other end is held by the
/// program that launched it. Standard error says so before, for a launcher that is alive
/// and whose command does not pass standard input on.
///
/// # Errors
///
/// Where the system gives no thread for it.
pub fn die_at_the_end_of(mut stdin: impl Read + Send + 'static) -> io::Result<()> {
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
            // Nobody reads the rest. SIGKILL, since an orderly exit could wait for
            // the thread that writes it.
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        })?;
    Ok(())
}

/// Writes [`STDIN_ENDED`] to standard error, unless that could block. The process must end
/// at once, also where a launcher that hangs has left the pipe full.
fn report_end_of_stdin() {
    let stderr = io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A pipe that can be written to takes PIPE_BUF bytes, at least 512, without blocking.
    if poll(&mut ready, Some(&at_once)).is_ok_and(|ready| ready > 0) {
        let line = format!("opencode-lister: {STDIN_ENDED}\n");
        let _ = rustix::io::write(stderr.as_fd(), line.as_bytes());
    }
}
