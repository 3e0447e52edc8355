//! A session with what the main process adds to it: its project and its sources. As the text that
//! is sent it is a [`Row`](crate::row::Row).

use serde::{Deserialize, Serialize, Serializer};

use crate::session::{Millis, Session};
use crate::source::SourceName;

/// A session and what the main process knows about it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entry {
    /// The session as the database has it.
    #[serde(flatten)]
    pub session: Session,
    /// The path of the session's project: its worktree, else the repository of its directory, else
    /// its directory.
    pub project: Option<String>,
    /// True if the session's directory is known to be missing.
    #[serde(default)]
    pub gone: bool,
}

/// Serializes the entry with the two values that every program would derive from it: what to
/// call the session, and when something last happened in it.
impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct WithDerived<'a> {
            #[serde(flatten)]
            session: &'a Session,
            project: Option<&'a str>,
            headline: Option<&'a str>,
            activity: Option<Millis>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            gone: bool,
        }
        let session = &self.session;
        WithDerived {
            session,
            project: self.project.as_deref(),
            headline: session.own_headline(),
            activity: session.active_at(),
            gone: self.gone,
        }
        .serialize(serializer)
    }
}

/// A session and the source that it is shown from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sourced<E = Entry> {
    /// The session.
    #[serde(flatten)]
    pub entry: E,
    /// The source of this row: of several sources that have the session, the one with the
    /// newest row.
    pub source: SourceName,
    /// The other sources that have the session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<SourceName>,
}

impl<E> Sourced<E> {
    /// Returns the names of all sources that have the session, for people: first the one of
    /// this row.
    #[must_use]
    pub fn sources(&self) -> String {
        let mut sources = self.source.to_string();
        for other in &self.also {
            sources.push_str(", ");
            sources.push_str(other.as_str());
        }
        sources
    }
}
