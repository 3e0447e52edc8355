//! Tells a person what a slow command is waiting for.
//!
//! The notice appears only on a terminal, and once for each wait. A program that reads
//! standard error receives errors only.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{PROGRAM, report_error};
use crate::text::name_line;

/// The notice appears after this time.
const DELAY: Duration = Duration::from_secs(1);

/// Prints after a second what the command still waits for, unless it is dropped before.
pub(super) struct WaitNotice {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// The names that have not answered; `None` after the wait.
    pending: Mutex<Option<BTreeSet<String>>>,
    changed: Condvar,
}

impl WaitNotice {
    /// Starts to wait for `names`, which answer by `until`.
    pub(super) fn start<S: ToString>(names: impl IntoIterator<Item = S>, until: Instant) -> Self {
        let names = names.into_iter().map(|name| name.to_string()).collect();
        let state = Arc::new(State {
            pending: Mutex::new(Some(names)),
            changed: Condvar::new(),
        });
        if io::stderr().is_terminal() {
            let waiting = Arc::clone(&state);
            let thread = thread::Builder::new().name("waiting".into());
            // If no thread can be spawned, the notice does not appear.
            let _ = thread.spawn(move || waiting.run(until));
        }
        Self { state }
    }

    /// Records that `name` has answered.
    pub(super) fn answered(&self, name: &impl ToString) {
        if let Some(pending) = &mut *self.state.lock() {
            pending.remove(&name.to_string());
        }
    }
}

impl Drop for WaitNotice {
    fn drop(&mut self) {
        *self.state.lock() = None;
        self.state.changed.notify_all();
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Option<BTreeSet<String>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, until: Instant) {
        let is_waiting = |pending: &mut Option<_>| pending.is_some();
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), DELAY, is_waiting);
        // The lock is held while the notice is printed, so that it precedes every message
        // that the command prints after the wait.
        let pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        if let Some(names) = pending.as_ref().filter(|names| !names.is_empty()) {
            let names: Vec<_> = names.iter().map(|name| name_line(name)).collect();
            let left_seconds = until.saturating_duration_since(Instant::now()).as_secs() + 1;
            report_error(
                PROGRAM,
                &format!("waiting for {}, {left_seconds} s at most", names.join(", ")),
            );
        }
    }
}
