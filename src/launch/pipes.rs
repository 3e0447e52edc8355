//! Reading a child that may do anything: its output is polled, never waited for
//! by a thread that could block for good.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::guard::ProcessGuard;
use crate::lister::Cancel;
use crate::signals::without_sigpipe;
use crate::text::decoded;
use crate::wire::{Checker, Content, Violation};

/// How long a pipe that somebody still holds is waited for after the child has
/// exited.
const HELD: Duration = Duration::from_millis(500);

/// How often it is looked whether the caller ended it; and, where the system has no
/// descriptor for that, whether the child has exited.
const WATCH: Duration = Duration::from_millis(50);

/// As [`WATCH`], where the child's exit ends the wait.
const WATCH_CANCEL: Duration = Duration::from_millis(200);

/// How much of standard error is kept.
const STDERR: usize = 8 << 10;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// Reads in a row from one pipe before the clock is looked at again.
const READS: usize = 16;

/// Why the conversation is over.
#[derive(Debug)]
pub(super) enum ExchangeEnd {
    /// The child has exited and its output has ended.
    Exited,
    /// The child has exited; another process holds its output.
    Held,
    /// The deadline has come.
    Deadline,
    /// The caller ended it.
    Cancelled,
    /// The output broke a rule.
    Broken(Violation),
    /// The pipes cannot be read.
    Failed(io::Error),
}

/// What was said until then.
pub(super) struct ExchangeResult<C: Content> {
    pub(super) end: ExchangeEnd,
    pub(super) checker: Checker<C>,
    /// The last 8 KiB of standard error.
    pub(super) stderr_tail: String,
}

/// Writes `request` to the child and reads it until it has exited and its output
/// has ended, or until `deadline`, or until it is cancelled.
pub(super) fn exchange<C: Content>(
    guard: &mut ProcessGuard,
    request: &[u8],
    checker: Checker<C>,
    deadline: Instant,
    cancel: &Cancel,
) -> ExchangeResult<C> {
    let (stdout, stderr) = guard.take_outputs();
    let mut exchange = Exchange {
        request,
        stdout,
        stderr,
        checker,
        tail: VecDeque::new(),
        buffer: vec![0; CHUNK],
    };
    let end = exchange
        .run(guard, deadline, cancel)
        .unwrap_or_else(ExchangeEnd::Failed);
    let tail: Vec<u8> = exchange.tail.into();
    ExchangeResult {
        end,
        checker: exchange.checker,
        stderr_tail: decoded(&tail).into_owned(),
    }
}

struct Exchange<'a, C: Content> {
    /// What is still to be written.
    request: &'a [u8],
    /// `None` once it has ended.
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    checker: Checker<C>,
    tail: VecDeque<u8>,
    buffer: Vec<u8>,
}

/// What one look at a pipe gave.
enum Got {
    Nothing,
    Data(usize),
    End,
}

impl<C: Content> Exchange<'_, C> {
    fn run(
        &mut self,
        guard: &mut ProcessGuard,
        deadline: Instant,
        cancel: &Cancel,
    ) -> io::Result<ExchangeEnd> {
        let pipes = [
            guard.stdin.as_ref().map(AsFd::as_fd),
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        for pipe in pipes.into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let mut exited_at = None;
        let mut quiet = Duration::from_micros(100);
        loop {
            // Looked at before the pipes: what it wrote before it exited is in
            // them now.
            let exited = guard.has_exited();
            self.write(&mut guard.stdin);
            if let Err(violation) = self.read_stdout()? {
                return Ok(ExchangeEnd::Broken(violation));
            }
            self.read_stderr()?;
            let now = Instant::now();
            if exited {
                // Who holds only standard error (a connection that ssh keeps in
                // the background does) takes nothing from the listing.
                if self.stdout.is_none() {
                    return Ok(ExchangeEnd::Exited);
                }
                if now >= *exited_at.get_or_insert(now) + HELD {
                    return Ok(ExchangeEnd::Held);
                }
            }
            if now >= deadline {
                return Ok(ExchangeEnd::Deadline);
            }
            if cancel.is_cancelled() {
                return Ok(ExchangeEnd::Cancelled);
            }
            let open = self.stdout.is_some() || self.stderr.is_some();
            // An exit that is known would end every wait at once.
            let exit = guard.exit().filter(|_| !exited);
            let pause = match (exit, open) {
                (Some(_), _) => WATCH_CANCEL,
                (None, true) => WATCH,
                // With its output at an end the child is about to exit, and there is
                // nothing to poll for.
                (None, false) => {
                    quiet = (quiet * 2).min(WATCH);
                    quiet
                }
            };
            self.wait(guard, exit, pause.min(deadline - now))?;
        }
    }

    /// Waits until a pipe has something, the child has exited, or the pause is over.
    fn wait(
        &self,
        guard: &ProcessGuard,
        exit: Option<BorrowedFd<'_>>,
        pause: Duration,
    ) -> io::Result<()> {
        let mut pipes = Vec::with_capacity(4);
        if let (false, Some(stdin)) = (self.request.is_empty(), &guard.stdin) {
            pipes.push(PollFd::new(stdin, PollFlags::OUT));
        }
        if let Some(stdout) = &self.stdout {
            pipes.push(PollFd::new(stdout, PollFlags::IN));
        }
        if let Some(stderr) = &self.stderr {
            pipes.push(PollFd::new(stderr, PollFlags::IN));
        }
        if let Some(exit) = &exit {
            pipes.push(PollFd::new(exit, PollFlags::IN));
        }
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: pause.subsec_nanos().into(),
        };
        match poll(&mut pipes, Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A child that does not read its request is free not to: what it answers
    /// is checked all the same.
    fn write(&mut self, stdin: &mut Option<ChildStdin>) {
        let Some(pipe) = stdin.as_mut().filter(|_| !self.request.is_empty()) else {
            return;
        };
        match without_sigpipe(|| pipe.write(self.request)) {
            Ok(count) => self.request = &self.request[count..],
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.request = &[],
        }
    }

    fn read_stdout(&mut self) -> io::Result<Result<(), Violation>> {
        for _ in 0..READS {
            let Some(pipe) = &mut self.stdout else { break };
            match read(pipe, &mut self.buffer)? {
                Got::Nothing => break,
                Got::End => self.stdout = None,
                Got::Data(count) => {
                    if let Err(violation) = self.checker.push(&self.buffer[..count]) {
                        return Ok(Err(violation));
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    fn read_stderr(&mut self) -> io::Result<()> {
        for _ in 0..READS {
            let Some(pipe) = &mut self.stderr else { break };
            match read(pipe, &mut self.buffer)? {
                Got::Nothing => break,
                Got::End => self.stderr = None,
                Got::Data(count) => {
                    self.tail.extend(&self.buffer[..count]);
                    // An even number of bytes, so that UTF-16 is cut between two units.
                    let excess = self.tail.len().saturating_sub(STDERR);
                    self.tail.drain(..excess.next_multiple_of(2));
                }
            }
        }
        Ok(())
    }
}

fn read(pipe: &mut impl Read, buffer: &mut [u8]) -> io::Result<Got> {
    match pipe.read(buffer) {
        Ok(0) => Ok(Got::End),
        Ok(count) => Ok(Got::Data(count)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Got::Nothing),
            _ => Err(error),
        },
    }
}
