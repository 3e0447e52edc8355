//! What a command waits for, said to a person once it takes long.
//!
//! Only on a terminal, and once for each wait: a program that reads standard error is told of what
//! failed, and of nothing else.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::report_error;
use super::sessions::NAME;
use crate::text::name_line;

/// So long nothing is said.
const QUIET: Duration = Duration::from_secs(1);

/// Says after a second what is still waited for, unless it is dropped before.
pub(super) struct Waiting {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// `None` once nobody waits any more.
    pending: Mutex<Option<BTreeSet<String>>>,
    changed: Condvar,
}

impl Waiting {
    /// For these, until then at most.
    pub(super) fn begin<S: ToString>(names: impl IntoIterator<Item = S>, until: Instant) -> Self {
        let names = names.into_iter().map(|name| name.to_string()).collect();
        let state = Arc::new(State {
            pending: Mutex::new(Some(names)),
            changed: Condvar::new(),
        });
        if io::stderr().is_terminal() {
            let waiting = Arc::clone(&state);
            let thread = thread::Builder::new().name("waiting".into());
            // Without a thread there is no word.
            let _ = thread.spawn(move || waiting.run(until));
        }
        Self { state }
    }

    /// This one has answered.
    pub(super) fn is_there(&self, name: &impl ToString) {
        if let Some(pending) = &mut *self.state.lock() {
            pending.remove(&name.to_string());
        }
    }
}

impl Drop for Waiting {
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
            .wait_timeout_while(self.lock(), QUIET, is_waiting);
        let pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        // Said while it is held, so that it comes before whatever is said when the wait is
        // over.
        if let Some(names) = pending.as_ref().filter(|names| !names.is_empty()) {
            let names: Vec<_> = names.iter().map(|name| name_line(name)).collect();
            let left = until.saturating_duration_since(Instant::now()).as_secs() + 1;
            report_error(
                NAME,
                &format!("waiting for {}, {left} s at most", names.join(", ")),
            );
        }
    }
}
