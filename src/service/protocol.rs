//! What a service says and is told: one JSON object a line on standard input and
//! output, and on its socket; the same as types for a host in Rust.

use serde::{Deserialize, Serialize};

use super::command::{CommandError, CommandId};
use super::counters::Status;
use crate::entry::{Entry, Sourced};
use crate::index::{Health, View};
use crate::marker_text::MarkerText;
use crate::packed::Packed;
use crate::query::LookedUp;
use crate::session::{Millis, SessionId};
use crate::source::{Place, Source, SourceName};

/// The protocol of the events and commands of this version.
///
/// A program that meets another one goes on with what it has of its own: fields and
/// events may be added within a protocol, and are to be ignored where they are not known;
/// anything else makes another one.
pub const PROTOCOL: u32 = 3;

/// What a service that lists this can do beyond what every service of [`PROTOCOL`] can:
/// `children` and `archived` where a reader can subscribe to them.
#[must_use]
pub fn capabilities(view: View) -> Vec<String> {
    let all = [("children", view.children), ("archived", view.archived)];
    let there = all.iter().filter(|(_, is_there)| *is_there);
    there.map(|(name, _)| (*name).to_owned()).collect()
}

/// Something a service says.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// Who speaks; first.
    Hello(Hello),
    /// All that is known; second, and on request, and for a reader that did not
    /// keep up.
    Snapshot(Snapshot),
    /// Sessions changed.
    Change(Change),
    /// A source is doing better or worse.
    Health(SourceHealth),
    /// The answer to a command.
    Reply(Reply),
    /// The service ends; last.
    Bye {
        /// Why, for programs.
        code: ByeCode,
        /// Why, for people.
        reason: String,
    },
}

/// Why a service ends, for programs: never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ByeCode {
    /// It was told to end for all who use it.
    Stopped,
    /// This reader asked for the end of its part.
    Shutdown,
    /// The program that it is a part of, or its supervisor, ends it. Somebody else can
    /// take the index over.
    Ended,
    /// It answers as many programs as it can, and not this one.
    Full,
}

/// Who speaks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol of what follows.
    pub protocol: u32,
    /// The service's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The marker it looks for, if any.
    pub marker: Option<MarkerText>,
    /// Its sources.
    pub sources: Vec<SourcePlace>,
    /// What it can do beyond what every service of the protocol can.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// What a source is: a database or a command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourcePlace {
    /// What it is called.
    pub source: SourceName,
    /// The canonical path of its database. One that is not UTF-8 begins with `bytes:`, and
    /// has its other bytes as `\xff` and each backslash doubled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The command that runs the helper elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The database there, where it is not for the helper to find.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db: Option<String>,
}

impl SourcePlace {
    /// Of this source.
    #[must_use]
    pub fn of(source: &Source) -> Self {
        let (path, command, db) = match &source.place {
            Place::Database(_) => (Some(source.identity()), None, None),
            Place::Remote(remote) => (None, Some(remote.command.clone()), remote.db.clone()),
        };
        Self {
            source: source.name.clone(),
            path,
            command,
            db,
        }
    }

    /// True where these are those sources, in any order.
    #[must_use]
    pub fn are(theirs: &[Self], ours: &[Source]) -> bool {
        theirs.len() == ours.len() && Self::include(theirs, ours)
    }

    /// True where those sources are among these.
    #[must_use]
    pub fn include(theirs: &[Self], ours: &[Source]) -> bool {
        ours.iter()
            .all(|ours| theirs.iter().any(|theirs| theirs.is(ours)))
    }

    /// True where this is that source. A database is one under any name.
    #[must_use]
    pub fn is(&self, source: &Source) -> bool {
        match &source.place {
            Place::Database(_) => self.path == Some(source.identity()),
            Place::Remote(_) => *self == Self::of(source),
        }
    }
}

/// All that is known.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The state that this is.
    pub revision: u64,
    /// The sources and how they are doing.
    pub sources: Vec<SourceHealth>,
    /// All sessions, each once.
    pub sessions: Vec<Sourced<Packed<Entry>>>,
}

/// How a source is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceHealth {
    /// The source.
    pub source: SourceName,
    /// How it is doing.
    pub health: Health,
    /// When the listing that its sessions are of began.
    #[serde(rename = "asOf", skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Millis>,
}

/// Sessions changed.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// The state that this makes; one more than the one before.
    pub revision: u64,
    /// Sessions that are new or not as they were.
    pub upserted: Vec<Sourced<Packed<Entry>>>,
    /// The ids of sessions that are gone.
    pub removed: Vec<SessionId>,
}

/// The answer to a command.
#[derive(Debug, Clone, Serialize)]
pub struct Reply {
    /// The id that came with the command, or null.
    pub id: Option<CommandId>,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What a command came to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The refresh has ended; its events came before.
    Refreshed(Vec<Refreshed>),
    /// How the service is doing.
    Status(Box<Status>),
    /// The look-up has ended: one for each id, in order.
    Answers(Vec<LookedUp>),
    /// Done; the argument is always true.
    Done(bool),
    /// It does nothing, for this reason, and nothing changed.
    Error(CommandError),
}

/// How the listing of one source went that a refresh caused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refreshed {
    /// The source.
    pub source: SourceName,
    /// How it went.
    pub outcome: RefreshOutcome,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a listing went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RefreshOutcome {
    /// It was complete.
    Ok,
    /// All sessions seem to be gone; a second listing will confirm it or not.
    Unconfirmed,
    /// The database is just being made; it is listed again in a second.
    Young,
    /// It failed.
    Failed,
}
