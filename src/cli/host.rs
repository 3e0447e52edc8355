//! What a host's process has for its whole life, whatever it is at the moment: its
//! commands on standard input, its signals, and what it was already told.
//!
//! A host's `serve --stdio` keeps the index itself or passes on another's events, and
//! goes from the one to the other when that one ends or hangs. Its host sees one `hello`,
//! and one `snapshot` more.

use std::io::{self, BufReader};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use signal_hook::iterator::Signals;

use crate::service::lines;
use crate::signals;

/// Lets the signals through that end a program or make it read its configuration again:
/// whoever started this process may have blocked them, and that is inherited.
///
/// Call it before there is another thread.
pub(super) fn unblock_signals() {
    signals::unblock(&[SIGTERM, SIGINT, SIGHUP, SIGPIPE]);
}

/// Signals become calls of whoever is to obey them at the moment.
#[derive(Clone)]
pub(super) struct Signalled {
    run_command: Arc<Mutex<Option<OnSignal>>>,
    /// A signal to end that came; 0 for none.
    ending: Arc<AtomicI32>,
}

type OnSignal = Box<dyn FnMut(i32) + Send>;

impl Signalled {
    /// Catches SIGTERM, SIGINT and SIGHUP from here on.
    pub(super) fn start() -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let this = Self {
            run_command: Arc::default(),
            ending: Arc::default(),
        };
        let (run_command, ending) = (Arc::clone(&this.run_command), Arc::clone(&this.ending));
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    if signal != SIGHUP {
                        ending.store(signal, Ordering::Release);
                    }
                    let mut run_command =
                        run_command.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(run_command) = &mut *run_command {
                        run_command(signal);
                    }
                }
            })?;
        Ok(this)
    }

    /// From now on they go there. One to end that came before goes there now.
    pub(super) fn go_to(&self, run_command: impl FnMut(i32) + Send + 'static) {
        let mut place = self
            .run_command
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let run_command = place.insert(Box::new(run_command));
        if let Some(signal) = self.ending() {
            run_command(signal);
        }
    }

    /// The signal to end that came, if one has.
    pub(super) fn ending(&self) -> Option<i32> {
        Some(self.ending.load(Ordering::Acquire)).filter(|signal| *signal != 0)
    }
}

/// What a signal to end is called.
pub(super) fn name_of(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        _ => "SIGTERM",
    }
}

/// The lines of standard input, one at a time, on a thread of its own: it ends with
/// standard input.
pub(super) fn lines_of_stdin() -> io::Result<Receiver<Vec<u8>>> {
    // Nothing is read ahead of what somebody takes.
    let (to, from) = mpsc::sync_channel(0);
    thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut input = BufReader::new(io::stdin());
        let mut line = Vec::new();
        while lines::read(&mut input, &mut line).unwrap_or(false) {
            if to.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    })?;
    Ok(from)
}
