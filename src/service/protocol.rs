//! What a service says and is told: one JSON object a line on standard input and
//! output, and on its socket; the same as types for a host in Rust.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::command::{CommandError, CommandId};
use crate::entry::{Row, Sourced};
use crate::index::{Health, SourceState, View};
use crate::json::to_json;
use crate::marker_text::MarkerText;

use crate::query::LookedUp;
use crate::session::{Millis, SessionId};
use crate::source::{Place, Source, SourceName};
use crate::wire::Scan;

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
#[derive(Debug, Clone)]
#[non_exhaustive]
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

impl Event {
    /// Writes the event as one line of JSON, with its line end. Sessions are copied as they
    /// are kept; a snapshot is never in memory as a whole line.
    ///
    /// # Errors
    ///
    /// Returns the errors of `out`.
    pub fn write_line(&self, mut out: impl Write) -> io::Result<()> {
        /// What has no sessions.
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
    /// Returns the event as one line of JSON, for an event that is small.
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
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The state that this is.
    pub revision: u64,
    /// The sources and how they are doing.
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

impl SourceHealth {
    /// Returns how the source is doing whose state this is.
    #[must_use]
    pub fn of(state: &SourceState) -> Self {
        Self {
            source: state.name().clone(),
            health: state.health().clone(),
            as_of: state.as_of(),
        }
    }
}

/// Sessions changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// The state that this makes; one more than the one before.
    pub revision: u64,
    /// Sessions that are new or not as they were.
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
#[non_exhaustive]
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
#[non_exhaustive]
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

/// How a service is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// How long it has been running, in milliseconds.
    pub uptime_ms: u64,
    /// The revision of its index.
    pub revision: u64,
    /// How many sessions it shows, each once.
    pub sessions: usize,
    /// Its sources.
    pub sources: Vec<SourceStatus>,
    /// Helpers launched, to list and to look up.
    pub spawns: u64,
    /// Listings that were complete.
    pub listings: u64,
    /// Listings that failed, by kind.
    pub failures: BTreeMap<&'static str, u64>,
    /// How long listings take.
    pub latency: Latency,
    /// Bytes that helpers sent.
    pub bytes_read: u64,
    /// Its own resident memory in bytes, where the system says.
    pub memory: Option<u64>,
    /// Readers of its events.
    #[serde(rename = "readers")]
    pub subscribers: usize,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SourceStatus {
    /// Its name and health.
    #[serde(flatten)]
    pub health: SourceHealth,
    /// How many sessions it has that are not archived.
    pub sessions: usize,
    /// How it learns of changes: `events`, or `polling` and why, or `asked every` so
    /// often.
    pub watch: String,
    /// A listing runs.
    pub listing: bool,
    /// How the last complete listing looked for the marker.
    pub scan: Option<Scan>,
    /// Helpers that were killed and do not die.
    pub stuck: usize,
}

impl SourceStatus {
    /// Returns the status of a source that was never listed.
    #[must_use]
    pub fn new(health: SourceHealth) -> Self {
        Self {
            health,
            sessions: 0,
            watch: String::new(),
            listing: false,
            scan: None,
            stuck: 0,
        }
    }
}

/// How long the last listings took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many these are: up to 1024.
    pub count: usize,
    /// Half of them took at most this.
    pub p50: f64,
    /// 99 of 100 took at most this.
    pub p99: f64,
    /// None took longer.
    pub max: f64,
}
