//! What was found of an id, as programs see it.

use serde::Serialize;

use crate::entry::Entry;
use crate::project::Projects;
use crate::session::SessionId;
use crate::wire::Answer;

/// What was found of an id, or that nobody could look.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum LookUpResult {
    /// Nobody could look.
    Failed {
        /// The id that was asked for.
        id: SessionId,
        /// Why, for people.
        message: String,
    },
    /// This.
    #[serde(untagged)]
    Answer(Answer<Entry>),
}

impl LookUpResult {
    /// An answer, with the session's project.
    #[must_use]
    pub fn answer(answer: Answer, projects: &Projects) -> Self {
        Self::Answer(answer.map(|session| projects.entry(session)))
    }
}
