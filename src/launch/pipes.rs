//! Exchanges data with an untrusted child: polls its pipes until a deadline, so that no
//! thread blocks on a pipe.

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

/// How long to wait for the end of standard output after the child has exited, while another
/// process holds the pipe open. The deadline ends this wait too.
const HELD_OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);

/// The longest pause between two checks for cancellation and for the child's exit, if the
/// system has no descriptor that reports the exit.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The longest pause between two checks for cancellation, if the child's exit ends the wait.
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How many bytes at the end of standard error are kept.
const STDERR_TAIL_BYTES: usize = 8 << 10;

/// The size of one read in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// How many reads in a row from one pipe are made before the deadline is checked again.
const MAX_READS: usize = 16;

/// Why the exchange ended.
#[derive(Debug)]
pub(super) enum ExchangeEnd {
    /// The child has exited and its output has ended.
    Exited,
    /// The child has exited; another process still holds its output open.
    OutputHeld,
    /// The deadline has passed.
    Deadline,
    /// The caller cancelled the request.
    Cancelled,
    /// The output broke a rule of the wire.
    InvalidOutput(Violation),
    /// The pipes cannot be read.
    Io(io::Error),
}

/// The output of the child until the exchange ended.
pub(super) struct ExchangeResult<C: Content> {
    pub(super) end: ExchangeEnd,
    pub(super) checker: Checker<C>,
    /// The last 8 KiB of standard error.
    pub(super) stderr_tail: String,
}

/// Writes `request` to the child, and what its output asks for, and reads its output until the
/// child has exited and its output has ended, until `deadline`, or until the caller cancels.
pub(super) fn exchange<C: Content>(
    guard: &mut ProcessGuard,
    request: Vec<u8>,
    checker: Checker<C>,
    deadline: Instant,
    cancel: &Cancel,
) -> ExchangeResult<C> {
    let (stdout, stderr) = guard.take_outputs();
    let mut exchange = Exchange {
        request,
        written_bytes: 0,
        stdout,
        stderr,
        checker,
        tail: VecDeque::new(),
        buffer: vec![0; CHUNK_BYTES],
    };
    let end = exchange
        .run(guard, deadline, cancel)
        .unwrap_or_else(ExchangeEnd::Io);
    let tail: Vec<u8> = exchange.tail.into();
    ExchangeResult {
        end,
        checker: exchange.checker,
        stderr_tail: decoded(&tail).into_owned(),
    }
}

struct Exchange<C: Content> {
    /// What is to be written to the child.
    request: Vec<u8>,
    /// How much of it is written.
    written_bytes: usize,
    /// `None` once it has ended.
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    checker: Checker<C>,
    tail: VecDeque<u8>,
    buffer: Vec<u8>,
}

/// The result of one non-blocking read.
enum ReadResult {
    WouldBlock,
    /// This many bytes.
    Data(usize),
    End,
}

impl<C: Content> Exchange<C> {
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
        let mut exit_pause = Duration::from_micros(100);
        loop {
            // Checked before the pipes are read: everything that an exited child wrote is in
            // them now.
            let has_exited = guard.has_exited();
            self.write(&mut guard.stdin);
            if let Err(violation) = self.read_stdout()? {
                return Ok(ExchangeEnd::InvalidOutput(violation));
            }
            self.read_stderr()?;
            let now = Instant::now();
            if has_exited {
                // Another process may hold standard error open, as a background connection
                // of ssh does. The listing is complete without it.
                if self.stdout.is_none() {
                    return Ok(ExchangeEnd::Exited);
                }
                if now >= *exited_at.get_or_insert(now) + HELD_OUTPUT_TIMEOUT {
                    return Ok(ExchangeEnd::OutputHeld);
                }
            }
            if now >= deadline {
                return Ok(ExchangeEnd::Deadline);
            }
            if cancel.is_cancelled() {
                return Ok(ExchangeEnd::Cancelled);
            }
            let has_open_output = self.stdout.is_some() || self.stderr.is_some();
            // The descriptor of an exited child stays readable and would end every wait at
            // once.
            let exit_fd = guard.exit_fd().filter(|_| !has_exited);
            let pause = match (exit_fd, has_open_output) {
                (Some(_), _) => CANCEL_POLL_INTERVAL,
                (None, true) => POLL_INTERVAL,
                // The child has closed its output and is about to exit, but no descriptor
                // reports the exit.
                (None, false) => {
                    exit_pause = (exit_pause * 2).min(POLL_INTERVAL);
                    exit_pause
                }
            };
            self.wait(guard, exit_fd, pause.min(deadline - now))?;
        }
    }

    /// Waits until a pipe is ready, the child has exited, or the pause is over.
    fn wait(
        &self,
        guard: &ProcessGuard,
        exit_fd: Option<BorrowedFd<'_>>,
        pause: Duration,
    ) -> io::Result<()> {
        let mut pipes = Vec::with_capacity(4);
        let has_more = self.written_bytes < self.request.len();
        if let (true, Some(stdin)) = (has_more, &guard.stdin) {
            pipes.push(PollFd::new(stdin, PollFlags::OUT));
        }
        if let Some(stdout) = &self.stdout {
            pipes.push(PollFd::new(stdout, PollFlags::IN));
        }
        if let Some(stderr) = &self.stderr {
            pipes.push(PollFd::new(stderr, PollFlags::IN));
        }
        if let Some(exit_fd) = &exit_fd {
            pipes.push(PollFd::new(exit_fd, PollFlags::IN));
        }
        let pause = Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: pause.subsec_nanos().into(),
        };
        match poll(&mut pipes, Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the next part of the request.
    ///
    /// A write error ends the request but not the exchange: a child may ignore its request,
    /// and its output is checked as usual.
    fn write(&mut self, stdin: &mut Option<ChildStdin>) {
        let rest = &self.request[self.written_bytes..];
        let Some(pipe) = stdin.as_mut().filter(|_| !rest.is_empty()) else {
            return;
        };
        match without_sigpipe(|| pipe.write(rest)) {
            Ok(count) => self.written_bytes += count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.written_bytes = self.request.len(),
        }
    }

    fn read_stdout(&mut self) -> io::Result<Result<(), Violation>> {
        for _ in 0..MAX_READS {
            let Some(pipe) = &mut self.stdout else { break };
            match read(pipe, &mut self.buffer)? {
                ReadResult::WouldBlock => break,
                ReadResult::End => self.stdout = None,
                ReadResult::Data(count) => {
                    if let Err(violation) = self.checker.push(&self.buffer[..count]) {
                        return Ok(Err(violation));
                    }
                    if let Some(asked_for) = self.checker.reply() {
                        self.request = asked_for;
                        self.written_bytes = 0;
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    fn read_stderr(&mut self) -> io::Result<()> {
        for _ in 0..MAX_READS {
            let Some(pipe) = &mut self.stderr else { break };
            match read(pipe, &mut self.buffer)? {
                ReadResult::WouldBlock => break,
                ReadResult::End => self.stderr = None,
                ReadResult::Data(count) => {
                    self.tail.extend(&self.buffer[..count]);
                    // Drop an even number of bytes, so that UTF-16 is cut between two units.
                    let excess = self.tail.len().saturating_sub(STDERR_TAIL_BYTES);
                    self.tail.drain(..excess.next_multiple_of(2));
                }
            }
        }
        Ok(())
    }
}

fn read(pipe: &mut impl Read, buffer: &mut [u8]) -> io::Result<ReadResult> {
    match pipe.read(buffer) {
        Ok(0) => Ok(ReadResult::End),
        Ok(count) => Ok(ReadResult::Data(count)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(ReadResult::WouldBlock),
            _ => Err(error),
        },
    }
}
