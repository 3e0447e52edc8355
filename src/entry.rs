//! A session with what the main process knows about it: what the index keeps and what
//! programs and people see.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize, Serializer};

use crate::project::Projects;
use crate::session::{Millis, Session};
use crate::source::SourceName;

/// A session and what the main process knows about it.
#[derive(Debug, Clone, PartialEq, Deserialize, Encode, Decode)]
pub struct Entry {
    /// As the database has it.
    #[serde(flatten)]
    pub session: Session,
    /// The project it is of ([`crate::project`]).
    pub project: Option<String>,
    /// Its directory is not there, where that can be told.
    #[serde(default)]
    pub gone: bool,
}

impl Entry {
    /// A session, with what `projects` has found out about its directory.
    #[must_use]
    pub fn new(session: Session, projects: &Projects) -> Self {
        Self {
            project: projects.of(&session),
            gone: projects.is_gone(&session),
            session,
        }
    }
}

/// With what every program would work out of it: what to call it, and when something last
/// happened in it.
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

/// A session and where it is from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sourced<E = Entry> {
    /// The session.
    #[serde(flatten)]
    pub entry: E,
    /// The source whose row this is: of several that have the session, the one with the
    /// newest.
    pub source: SourceName,
    /// The other sources that have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<SourceName>,
}

impl<E> Sourced<E> {
    /// All its sources, for people: first the one whose row this is.
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
