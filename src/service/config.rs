//! The configuration of a service, and the notices to its supervisor.

use std::sync::Arc;
use std::time::Duration;

use super::state::StateDir;
use crate::index::View;
use crate::lister::{ListRequest, Lister};
use crate::marker_text::MarkerText;
use crate::source::Source;

/// Creates the lister of a source.
pub type MakeLister = dyn Fn(&Source) -> Arc<dyn Lister + Send + Sync> + Send;

/// The configuration of a service. Create it with [`Config::new`].
#[non_exhaustive]
pub struct Config {
    /// The sources, each with a different name.
    pub sources: Vec<Source>,
    /// The text that marks a session as another tool's subagent; `None` to search for none.
    pub marker: Option<MarkerText>,
    /// Which sessions are listed. A subscriber can request a narrower view.
    pub view: View,
    /// The deadline of one listing, from spawn to exit.
    pub deadline: Duration,
    /// Creates the lister of each source, also of sources that are added later. For commands see
    /// [`ProcessLister::of`](crate::launch::ProcessLister::of).
    pub lister: Box<MakeLister>,
    /// Where the snapshot is kept. Without it, no session is known right after a restart.
    pub state: Option<StateDir>,
    /// The supervisor to notify, if there is one.
    pub supervisor: Option<Supervisor>,
}

impl Config {
    /// Returns the configuration of a service that lists the roots of these sources that are
    /// not archived, searches for no marker, and keeps nothing on disk. `lister` creates the
    /// lister of each source.
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

    /// Sets the supervisor to notify.
    #[must_use]
    pub fn supervisor(self, supervisor: Option<Supervisor>) -> Self {
        Self { supervisor, ..self }
    }
}

/// A supervisor that the owner's loop notifies, such as systemd.
#[non_exhaustive]
pub struct Supervisor {
    /// The time between two [`Notice::Alive`].
    pub every: Duration,
    /// Called by the owner's loop. Must not block.
    pub notify: Box<dyn FnMut(Notice<'_>) + Send>,
}

impl Supervisor {
    /// Creates a supervisor that the loop notifies this often.
    #[must_use]
    pub fn new(every: Duration, notify: impl FnMut(Notice<'_>) + Send + 'static) -> Self {
        Self {
            every,
            notify: Box::new(notify),
        }
    }
}

/// A notice to a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// The loop is alive.
    Alive,
    /// The status line for people has changed.
    Status(&'a str),
    /// A full refresh has begun.
    Reloading,
    /// The start or the refresh has ended.
    Ready,
    /// The service is ending.
    Ending,
}
