//! The result of looking up one id.

use serde::Serialize;

use crate::entry::Entry;
use crate::project::Projects;
use crate::session::SessionId;
use crate::wire::Answer;

/// The result for one id, as programs receive it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum LookUpResult {
    /// The id was not found, and a source failed.
    Failed {
        /// The requested id.
        id: SessionId,
        /// Why, for people.
        message: String,
    },
    /// The answer of a source.
    #[serde(untagged)]
    Answer(Answer<Entry>),
}

impl LookUpResult {
    /// Creates a result from an answer, with the project of the session.
    #[must_use]
    pub fn answer(answer: Answer, projects: &Projects) -> Self {
        Self::Answer(answer.map(|session| projects.entry(session)))
    }
}
