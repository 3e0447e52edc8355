//! `serve --stdio`: the host's commands on standard input, the events on standard output.
//!
//! The process of a host keeps an index itself or relays the events of another service, and
//! changes between the two when that service ends or hangs. [`HostConnection`] is what it
//! keeps from one to the next, so that its host sees one `hello`, and one more `snapshot`
//! after each change.

use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::cli::streams::Stdout;
use crate::index::View;
use crate::service::{Handle, lines};

/// The `bye` reason when standard input ends.
pub(super) const STDIN_CLOSED: &str = "stdin closed";

/// The host at the other end of standard input and output.
pub(super) struct HostConnection {
    /// The lines of standard input.
    pub(super) lines: Receiver<Vec<u8>>,
    /// Commands that a service has not answered. The next service receives them first.
    pub(super) unanswered: VecDeque<Vec<u8>>,
    /// Whether the host has received a `hello`.
    pub(super) is_greeted: bool,
    /// The sessions that the host subscribes to.
    pub(super) view: View,
    /// Whether the next service must list all sources again.
    pub(super) needs_refresh: bool,
}

impl HostConnection {
    /// Starts to read standard input.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread cannot be spawned.
    pub(super) fn open(view: View) -> io::Result<Self> {
        Ok(Self {
            lines: read_stdin_lines()?,
            unanswered: VecDeque::new(),
            is_greeted: false,
            view,
            needs_refresh: false,
        })
    }

    /// Connects the host to the service of this process: writes events to standard output and
    /// runs the commands of standard input. The receiver disconnects or receives a message
    /// when the last event has been written.
    ///
    /// # Errors
    ///
    /// Returns an error if a thread cannot be spawned.
    pub(super) fn connect(self, service: &Handle) -> io::Result<Receiver<()>> {
        let mut events = service.subscribe();
        let reply_to = events.reply_to();
        let (sender, written) = mpsc::channel();
        let writer_service = service.clone();
        let Self {
            lines,
            unanswered,
            is_greeted,
            ..
        } = self;
        thread::Builder::new()
            .name("events".into())
            .spawn(move || {
                if is_greeted {
                    // The host keeps the `hello` of the service before this one.
                    let _hello = events.next();
                }
                if lines::write_events(events, Stdout).is_err() {
                    writer_service.end("stdout closed");
                }
                let _ = sender.send(());
            })?;
        let reader_service = service.clone();
        thread::Builder::new()
            .name("commands".into())
            .spawn(move || {
                for line in unanswered.into_iter().chain(lines) {
                    if !lines::submit(&line, &reader_service, &reply_to) {
                        break;
                    }
                }
                reader_service.end(STDIN_CLOSED);
            })?;
        Ok(written)
    }
}

/// Reads the lines of standard input on a thread of its own. The receiver disconnects at the
/// end of standard input.
fn read_stdin_lines() -> io::Result<Receiver<Vec<u8>>> {
    // Without a buffer: a line that no service has taken stays in the pipe.
    let (sender, receiver) = mpsc::sync_channel(0);
    thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut input = BufReader::new(io::stdin());
        let mut line = Vec::new();
        while lines::read_line(&mut input, &mut line).unwrap_or(false) {
            if sender.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}
