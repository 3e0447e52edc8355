//! Notifies the supervisor that the owner's loop is alive, and of the status line for people.

use std::time::Duration;

use super::config::{Notice, Supervisor};
use crate::index::{Health, Index};
use crate::text::one_line;

/// The supervisor, if there is one, and its last notices.
pub(super) struct Heartbeat {
    supervisor: Option<Supervisor>,
    next: Duration,
    status_line: String,
}

impl Heartbeat {
    pub(super) fn new(supervisor: Option<Supervisor>) -> Self {
        Self {
            supervisor,
            next: Duration::ZERO,
            status_line: String::new(),
        }
    }

    /// Returns when the next [`Notice::Alive`] is due.
    pub(super) fn due(&self) -> Option<Duration> {
        self.supervisor.as_ref().map(|_| self.next)
    }

    pub(super) fn notify(&mut self, notice: Notice<'_>, now: Duration) {
        if let Some(supervisor) = &mut self.supervisor {
            (supervisor.notify)(notice);
            // Only this notice resets the watchdog.
            if notice == Notice::Alive {
                self.next = now + supervisor.every;
            }
        }
    }

    /// Sends the status line if it has changed.
    pub(super) fn show(&mut self, index: &Index) {
        let Some(supervisor) = &mut self.supervisor else {
            return;
        };
        let mut line = format!("{} sessions", index.shown_count());
        for source in index.sources() {
            if *source.health() != Health::Ok {
                let name = one_line(source.name().as_str());
                line.push_str(&format!("; {name} is {}", source.health().name()));
            }
        }
        if line != self.status_line {
            (supervisor.notify)(Notice::Status(&line));
            self.status_line = line;
        }
    }
}
