//! What was found of an id, as programs see it.

use serde::Serialize;

use super::Entry;
use crate::project::Projects;
use crate::session::SessionId;
use crate::wire::{Answer, Unresolved};

/// What was found of an id, or that nobody could look.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum FoundOf {
    /// This session.
    Session(Box<Entry>),
    /// There is no such session.
    Absent {
        /// The id that was asked for.
        id: SessionId,
    },
    /// The session at the top of its parents.
    Root {
        /// The id that was asked for.
        id: SessionId,
        /// That one's.
        root: SessionId,
    },
    /// It has none.
    Unresolved {
        /// The id that was asked for.
        id: SessionId,
        /// Why.
        reason: Unresolved,
    },
    /// Nobody could look.
    Failed {
        /// The id that was asked for.
        id: SessionId,
        /// Why, for people.
        message: String,
    },
}

impl FoundOf {
    /// An answer, with the session's project.
    #[must_use]
    pub fn answer(answer: Answer, projects: &mut Projects) -> Self {
        match answer {
            Answer::Session(session) => Self::Session(Box::new(Entry {
                project: projects.of(&session),
                session: *session,
            })),
            Answer::Absent { id } => Self::Absent { id },
            Answer::Root { id, root } => Self::Root { id, root },
            Answer::Unresolved { id, reason } => Self::Unresolved { id, reason },
        }
    }
}
