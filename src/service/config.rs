//! What a service is to do, and how its supervisor hears from it.

use std::sync::Arc;
use std::time::Duration;

use super::state::StateDir;
use crate::index::View;
use crate::lister::{ListRequest, Lister};
use crate::marker_text::MarkerText;
use crate::source::Source;

/// Makes the lister of a source.
pub type MakeLister = dyn Fn(&Source) -> Arc<dyn Lister + Send + Sync> + Send;

/// What a service is to do. Begin with [`Config::new`].
#[non_exhaustive]
pub struct Config {
    /// The sources, each with a name of its own.
    pub sources: Vec<Source>,
    /// The text that marks a session as another tool's subagent; `None` to look for none.
    pub marker: Option<MarkerText>,
    /// Which sessions are listed. Subscribers can see less.
    pub view: View,
    /// The deadline of one listing, from spawn to exit.
    pub deadline: Duration,
    /// Makes the lister of each source, also of sources that are added later. For commands see
    /// [`ProcessLister::of`](crate::launch::ProcessLister::of).
    pub lister: Box<MakeLister>,
    /// Where the snapshot is kept. Without it no session is known right after a restart.
    pub state: Option<StateDir>,
    /// Who hears that the loop is alive.
    pub supervisor: Option<Supervisor>,
}

impl Config {
    /// Returns the configuration of a service that lists the roots of these sources that are
    /// not archived, looks for no marker, and keeps nothing on disk. `lister` makes the lister
    /// of each source.
    #[must_use]
    pub fn new(
        sources: Vec<Source>,
        lister: impl Fn(&Source) -> Arc<dyn Lister + Send + Sync> + Send + 'static,
    ) -> Self {
        Self {
            sources,
            marker: None,
            view: View::default(),
            deadline: ListRequest::DEADLINE,
            lister: Box::new(lister),
            state: None,
            supervisor: None,
        }
    }

    /// Sets the text that marks a session as another tool's subagent.
    #[must_use]
    pub fn marker(self, marker: Option<MarkerText>) -> Self {
        Self { marker, ..self }
    }

    /// Sets which sessions are listed.
    #[must_use]
    pub fn view(self, view: View) -> Self {
        Self { view, ..self }
    }

    /// Sets the deadline of one listing.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Sets where the snapshot is kept.
    #[must_use]
    pub fn state(self, state: Option<StateDir>) -> Self {
        Self { state, ..self }
    }

    /// Sets who hears that the loop is alive.
    #[must_use]
    pub fn supervisor(self, supervisor: Option<Supervisor>) -> Self {
        Self { supervisor, ..self }
    }
}

/// Who hears from the loop itself, and how often.
#[non_exhaustive]
pub struct Supervisor {
    /// The time between two signs of life.
    pub every: Duration,
    /// Called by the loop. Must not block.
    pub notify: Box<dyn FnMut(Notice<'_>) + Send>,
}

impl Supervisor {
    /// Returns a supervisor that hears from the loop this often.
    #[must_use]
    pub fn new(every: Duration, notify: impl FnMut(Notice<'_>) + Send + 'static) -> Self {
        Self {
            every,
            notify: Box::new(notify),
        }
    }
}

/// What the loop has to say to a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// The loop is alive.
    Alive,
    /// The state, in one line for people, has changed.
    Status(&'a str),
    /// A full refresh has begun.
    Reloading,
    /// The start or the refresh has ended.
    Ready,
    /// The service is ending.
    Ending,
}
