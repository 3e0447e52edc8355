//! SIGTERM, SIGINT and SIGHUP, as calls of a handler that changes with the work of the process.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use signal_hook::iterator::Signals;

use crate::signals;

/// Unblocks the signals that end a program or reload its configuration. The parent may have
/// blocked them, and that is inherited.
///
/// Call this before any other thread is spawned.
pub(in crate::cli) fn unblock_signals() {
    signals::unblock(&[SIGTERM, SIGINT, SIGHUP, SIGPIPE]);
}

/// Catches signals on a thread of its own and passes them to the present handler.
#[derive(Clone)]
pub(super) struct SignalDispatcher {
    handler: Arc<Mutex<Option<Handler>>>,
    /// The SIGTERM or SIGINT that has arrived; 0 if none has.
    termination: Arc<AtomicI32>,
}

type Handler = Box<dyn FnMut(i32) + Send>;

impl SignalDispatcher {
    /// Catches SIGTERM, SIGINT and SIGHUP from now on.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses the thread or the signal handlers.
    pub(super) fn start() -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let dispatcher = Self {
            handler: Arc::default(),
            termination: Arc::default(),
        };
        let for_thread = dispatcher.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    if signal != SIGHUP {
                        for_thread.termination.store(signal, Ordering::Release);
                    }
                    if let Some(handler) = &mut *for_thread.lock() {
                        handler(signal);
                    }
                }
            })?;
        Ok(dispatcher)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Handler>> {
        self.handler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes signals to `handler` from now on. Also passes a SIGTERM or SIGINT that has
    /// arrived before.
    pub(super) fn set_handler(&self, handler: impl FnMut(i32) + Send + 'static) {
        let mut present = self.lock();
        let handler = present.insert(Box::new(handler));
        if let Some(signal) = self.termination() {
            handler(signal);
        }
    }

    /// Returns the SIGTERM or SIGINT that has arrived.
    pub(super) fn termination(&self) -> Option<i32> {
        Some(self.termination.load(Ordering::Acquire)).filter(|signal| *signal != 0)
    }
}

/// Returns the name of a signal that ends the process.
pub(super) fn signal_name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        _ => "SIGTERM",
    }
}
