//! What only the tests of a service do with its host.

use std::process::ExitStatus;
use std::sync::{Arc, MutexGuard, mpsc};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Host, Model, list, wait_for};

impl Model {
    /// How many sessions were said to be removed, ever.
    pub(crate) fn removed(&self) -> usize {
        let changes = self.of_type("change", 0);
        changes
            .iter()
            .map(|change| list(&change["removed"]).len())
            .sum()
    }
}

impl Host {
    /// Takes the events that have come, also of one that has ended.
    pub(crate) fn take_what_is_there(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.model.take(event);
        }
    }

    /// Asks for the status until it is so.
    #[track_caller]
    pub(crate) fn until_status(&mut self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.status()).filter(|status| done(status)))
    }

    /// Nothing is read of its standard output for as long as this lives, but a
    /// line and a buffer full.
    pub(crate) fn stop_reading(&self) -> impl Drop + use<> {
        let gate = Arc::clone(&self.gate);
        let (held, is_held) = mpsc::channel();
        let (open, is_open) = mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            let _held: MutexGuard<'_, ()> = gate.lock().unwrap();
            held.send(()).unwrap();
            let _ = is_open.recv();
        });
        is_held.recv().unwrap();
        Gate(Some(open), Some(holder))
    }

    /// Ends it by this signal, in order.
    #[track_caller]
    pub(crate) fn end_by(self, signal: Signal) -> (ExitStatus, Model, String) {
        self.signal(signal);
        self.end()
    }

    /// Kills it; what it had said until then.
    pub(crate) fn kill(mut self) -> Model {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for event in &self.events {
            self.model.take(event);
        }
        std::mem::take(&mut self.model)
    }
}

struct Gate(Option<mpsc::Sender<()>>, Option<thread::JoinHandle<()>>);

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.take();
        let _ = self.1.take().unwrap().join();
    }
}
