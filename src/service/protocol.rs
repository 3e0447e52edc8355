//! The events of a service: one JSON object per line on standard output and on the socket, and
//! the same as types for a host in Rust.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::command::{CommandError, CommandId};
use super::status::{SourceHealth, Status};
use crate::entry::Sourced;
use crate::index::View;
use crate::json::to_json;
use crate::marker_text::MarkerText;
use crate::query::LookedUp;
use crate::row::Row;
use crate::session::SessionId;
use crate::source::{Place, Source, SourceName};

/// The version of the protocol of events and commands.
///
/// Within one version, fields and events may be added, and a program must ignore those that it
/// does not know. Any other change increases the version. A program that meets another version
/// continues without the service.
pub const PROTOCOL: u32 = 3;

/// Returns the capabilities of a service that lists this view, beyond those that every service
/// of [`PROTOCOL`] has: `children` and `archived` if a subscriber can request them.
#[must_use]
pub fn capabilities(view: View) -> Vec<String> {
    let all = [("children", view.children), ("archived", view.archived)];
    let available = all.iter().filter(|(_, is_listed)| *is_listed);
    available.map(|(name, _)| (*name).to_owned()).collect()
}

/// An event of a service.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// Describes the service; the first event.
    Hello(Hello),
    /// All known sessions; the second event, and later on request or in place of events that a
    /// slow subscriber missed.
    Snapshot(Snapshot),
    /// Sessions changed.
    Change(Change),
    /// The health of a source changed.
    Health(SourceHealth),
    /// The reply to a command.
    Reply(Reply),
    /// The service or the connection ends; the last event.
    Bye {
        /// The reason for programs.
        code: ByeCode,
        /// The reason for people.
        reason: String,
    },
}

impl Event {
    /// Writes the event as one line of JSON, with its newline. The JSON of each session is copied
    /// from the index, so the line of a snapshot is never in memory as a whole.
    ///
    /// # Errors
    ///
    /// Returns the errors of `out`.
    pub fn write_line(&self, mut out: impl Write) -> io::Result<()> {
        /// The events without sessions.
        #[derive(Serialize)]
        #[serde(tag = "type", rename_all = "lowercase")]
        enum Plain<'a> {
            Hello(&'a Hello),
            Health(&'a SourceHealth),
            Reply(&'a Reply),
            Bye { code: ByeCode, reason: &'a str },
        }
        let plain = match self {
            Self::Snapshot(snapshot) => return snapshot.write_line(out),
            Self::Change(change) => return change.write_line(out),
            Self::Hello(hello) => Plain::Hello(hello),
            Self::Health(health) => Plain::Health(health),
            Self::Reply(reply) => Plain::Reply(reply),
            Self::Bye { code, reason } => Plain::Bye {
                code: *code,
                reason,
            },
        };
        to_json(&plain, &mut out)?;
        out.write_all(b"\n")
    }
}

impl Event {
    /// Returns the event as one line of JSON. For a snapshot this can be megabytes.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let mut line = Vec::new();
        #[expect(clippy::expect_used, reason = "writing to memory cannot fail")]
        self.write_line(&mut line).expect("a line in memory");
        line
    }
}

/// Writes a JSON array of sessions.
fn write_sessions(sessions: &[Sourced<Row>], mut out: impl Write) -> io::Result<()> {
    out.write_all(b"[")?;
    for (at, session) in sessions.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        session.write_json(&mut out)?;
    }
    out.write_all(b"]")
}

/// Why a service or a connection ends, for programs. Names are never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ByeCode {
    /// A `stop` command ended the service for all subscribers.
    Stopped,
    /// A `shutdown` command of this subscriber ended its part.
    Shutdown,
    /// The program that runs the service, or its supervisor, ended it. Another service can take
    /// over the index.
    Ended,
    /// The service has as many connections as it accepts, and rejects this one.
    Full,
}

/// The description of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol; see [`PROTOCOL`].
    pub protocol: u32,
    /// The version of the program.
    pub version: String,
    /// The process id.
    pub pid: u32,
    /// The marker that the service searches for, if any.
    pub marker: Option<MarkerText>,
    /// The sources.
    pub sources: Vec<SourcePlace>,
    /// The optional capabilities; see [`capabilities`].
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// A source as `hello` describes it: a database or a command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourcePlace {
    /// The name of the source.
    pub source: SourceName,
    /// The canonical path of its database. A path that is not UTF-8 begins with `bytes:`; its
    /// invalid bytes are written as `\xff` and each backslash is doubled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The command that runs the helper on another machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The database there; `None` if the helper discovers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db: Option<String>,
}

impl SourcePlace {
    /// Returns the description of a source.
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

    /// Returns true if these are the same sources, in any order.
    #[must_use]
    pub fn are_same(theirs: &[Self], ours: &[Source]) -> bool {
        theirs.len() == ours.len() && Self::include(theirs, ours)
    }

    /// Returns true if `theirs` includes all of `ours`.
    #[must_use]
    pub fn include(theirs: &[Self], ours: &[Source]) -> bool {
        ours.iter()
            .all(|ours| theirs.iter().any(|theirs| theirs.is_same(ours)))
    }

    /// Returns true if this describes that source. A database is the same under any name.
    #[must_use]
    pub fn is_same(&self, source: &Source) -> bool {
        match &source.place {
            Place::Database(_) => self.path == Some(source.identity()),
            Place::Remote(_) => *self == Self::of(source),
        }
    }
}

/// All known sessions and sources.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The revision of the subscriber's view.
    pub revision: u64,
    /// The sources and their health.
    pub sources: Vec<SourceHealth>,
    /// All sessions, each once.
    pub sessions: Vec<Sourced<Row>>,
}

impl Snapshot {
    fn write_line(&self, mut out: impl Write) -> io::Result<()> {
        write!(
            out,
            "{{\"type\":\"snapshot\",\"revision\":{}",
            self.revision
        )?;
        out.write_all(b",\"sources\":")?;
        to_json(&self.sources, &mut out)?;
        out.write_all(b",\"sessions\":")?;
        write_sessions(&self.sessions, &mut out)?;
        out.write_all(b"}\n")
    }
}

/// Sessions changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// The revision after this change; one more than the revision before.
    pub revision: u64,
    /// The sessions that are new or changed.
    pub upserted: Vec<Sourced<Row>>,
    /// The ids of sessions that are gone.
    pub removed: Vec<SessionId>,
}

impl Change {
    fn write_line(&self, mut out: impl Write) -> io::Result<()> {
        write!(out, "{{\"type\":\"change\",\"revision\":{}", self.revision)?;
        out.write_all(b",\"upserted\":")?;
        write_sessions(&self.upserted, &mut out)?;
        out.write_all(b",\"removed\":")?;
        to_json(&self.removed, &mut out)?;
        out.write_all(b"}\n")
    }
}

/// The reply to a command.
#[derive(Debug, Clone, Serialize)]
pub struct Reply {
    /// The id of the command, or null.
    pub id: Option<CommandId>,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

/// The answer to a command.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Answer {
    /// The refresh has ended; its events came before.
    Refreshed(Vec<Refreshed>),
    /// The status of the service.
    Status(Box<Status>),
    /// The look-up has ended: one answer for each id, in order.
    Answers(Vec<LookedUp>),
    /// The command was run; the argument is always true.
    Done(bool),
    /// The command was rejected, and nothing changed.
    Error(CommandError),
}

/// The outcome of a refresh for one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refreshed {
    /// The name of the source.
    pub source: SourceName,
    /// The outcome of its listing.
    pub outcome: RefreshOutcome,
    /// Why the listing failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The outcome of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RefreshOutcome {
    /// The listing was complete.
    Ok,
    /// All sessions seem to be gone. A second listing confirms it or not.
    Unconfirmed,
    /// The database is being created. It is listed again in a second.
    Young,
    /// The listing failed.
    Failed,
}
