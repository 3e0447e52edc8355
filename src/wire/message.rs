//! The lines of the wire as types, for both sides. Unknown fields are ignored, so that a
//! newer helper may add some.

use serde::{Deserialize, Serialize};

use crate::line_hash::{LineHash, SetHash};
use crate::session::Session;
use crate::strict;
use crate::text::one_line;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Message {
    /// The first line.
    Hello(Hello),
    /// One session.
    Session(Box<Session>),
    /// One session that the caller has and the database has not (protocol 2).
    Gone {
        /// The hash of its id.
        session: LineHash,
    },
    /// The caller must send the set that its request announced (protocol 2).
    Want,
    /// The last line of a complete listing.
    End(End),
    /// The last line of a failed listing.
    Error(HelperError),
}

/// The first line: the version of the helper and of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The protocol of the lines that follow.
    pub protocol: u32,
    /// The helper's version.
    pub lister: String,
    /// The newest protocol that the helper speaks if it is asked to. An older helper does not
    /// say it and speaks protocol 1 only.
    #[serde(default = "first_protocol")]
    pub up_to: u32,
}

fn first_protocol() -> u32 {
    super::PROTOCOL
}

impl Hello {
    /// Returns the `hello` of this version, in protocol 1.
    #[must_use]
    pub fn current() -> Self {
        Self::of(super::PROTOCOL)
    }

    /// Returns the `hello` of this version in this protocol.
    #[must_use]
    pub fn of(protocol: u32) -> Self {
        Self {
            protocol,
            lister: super::VERSION.to_owned(),
            up_to: super::PROTOCOL_OF_DIFFERENCES,
        }
    }
}

/// The state of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DatabaseState {
    /// The database has session tables.
    Ready,
    /// The file does not exist.
    Missing,
    /// The database has no session tables.
    Empty,
    /// The file is being created or restored, so the helper did not open it. The listing is
    /// empty but says nothing about which sessions exist; retry after one second.
    Young,
}

impl DatabaseState {
    /// Returns the name of the state on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Missing => "missing",
            Self::Empty => "empty",
            Self::Young => "young",
        }
    }
}

/// The last line of a complete listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct End {
    /// The number of session lines before this line. With a [`difference`](Self::difference),
    /// the number of all sessions, also of those that were not sent.
    pub sessions: u64,
    /// The difference to what the caller has, if the request asked for it and the database is
    /// [`Ready`](DatabaseState::Ready).
    #[serde(
        default,
        deserialize_with = "strict::object_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub difference: Option<DifferenceCounts>,
    /// The state of the database.
    #[serde(deserialize_with = "strict::name")]
    pub database: DatabaseState,
    /// The session tables that were read.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Whether the tables have no `parent_id`, so that every session counts as a root.
    #[serde(default)]
    pub flat: bool,
    /// How many rows were left out and how many texts were cut.
    #[serde(default, deserialize_with = "strict::object")]
    pub skipped: Skipped,
    /// How the marker was searched for.
    #[serde(deserialize_with = "strict::object")]
    pub scan: Scan,
    /// The optional parts that could not be read and are null in the sessions, each at most
    /// once.
    #[serde(
        default,
        deserialize_with = "strict::objects",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub degraded: Vec<Degraded>,
    /// Whether the write-ahead log may be in another directory: the database is in WAL mode,
    /// no log is next to it, and the file has another hard link or is itself a mount point.
    /// Sessions in that log are missing from the listing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log_elsewhere: bool,
    /// The tables of a database without session tables, which may belong to another program.
    /// At most [`limits::OTHER_TABLES`](super::limits::OTHER_TABLES) names, each cut to 64
    /// characters, without the table that records OpenCode's own migrations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_tables: Vec<String>,
    /// How long the listing took, in milliseconds.
    pub elapsed_ms: u64,
}

impl End {
    /// Creates the `end` line of a listing without a marker.
    #[must_use]
    pub fn new(sessions: u64, database: DatabaseState) -> Self {
        Self {
            sessions,
            difference: None,
            database,
            tables: Vec::new(),
            flat: false,
            skipped: Skipped::default(),
            scan: Scan::NONE,
            degraded: Vec::new(),
            log_elsewhere: false,
            other_tables: Vec::new(),
            elapsed_ms: 0,
        }
    }

    /// Describes for people what the listing lacks: one sentence per item, without the name
    /// of the database.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        notes(&self.degraded, self.log_elsewhere)
    }
}

/// How a listing differs from what the caller has. `same` and `sent` are all sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceCounts {
    /// The number of sessions whose lines the caller has. They were not sent.
    pub same: u64,
    /// The number of session lines before this line.
    pub sent: u64,
    /// The number of `gone` lines before this line.
    pub gone: u64,
    /// The hash of the set of the lines of all sessions.
    pub set: SetHash,
}

/// Formats the names of [`End::other_tables`] for people. A list of the maximum length ends
/// with "…", because there may be more tables.
#[must_use]
pub fn other_tables_line(tables: &[String]) -> String {
    let more = match tables.len() {
        super::limits::OTHER_TABLES => ", …",
        _ => "",
    };
    format!("{}{more}", tables.join(", "))
}

/// See [`End::notes`].
#[must_use]
pub fn notes(degraded: &[Degraded], log_elsewhere: bool) -> Vec<String> {
    let mut notes: Vec<_> = degraded.iter().map(Degraded::note).collect();
    if log_elsewhere {
        notes.push(LOG_ELSEWHERE.to_owned());
    }
    notes
}

/// The note for [`End::log_elsewhere`].
const LOG_ELSEWHERE: &str = "the newest sessions may be missing: the database is in WAL mode, no \
     -wal file is next to it, and the file has another hard link or is itself a mount point \
     (mount or share its directory, not the file alone)";

/// An optional part of the sessions that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// The part.
    #[serde(deserialize_with = "strict::name")]
    pub what: OptionalPart,
    /// The reason, for people.
    pub reason: String,
}

impl Degraded {
    fn note(&self) -> String {
        let what = match self.what {
            OptionalPart::LastMessageAt
            | OptionalPart::FirstPrompt
            | OptionalPart::Worktree
            | OptionalPart::Marked => format!("{} is missing", self.what.as_str()),
            OptionalPart::Deleted => "deleted sessions may be listed".to_owned(),
            OptionalPart::Unknown => "a part unknown to this version is missing".to_owned(),
        };
        match &*one_line(&self.reason) {
            "" => what,
            reason => format!("{what}: {reason}"),
        }
    }
}

/// An optional part of a session. If a part cannot be read, the sessions are listed without
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum OptionalPart {
    /// The time of the newest message.
    LastMessageAt,
    /// The first prompt of an untitled session.
    FirstPrompt,
    /// The worktree of the session's project.
    Worktree,
    /// Whether the session carries the marker.
    Marked,
    /// Whether a session of OpenCode 1 was deleted in OpenCode 2. If that is unknown, the
    /// session is listed.
    Deleted,
    /// A part of a newer helper that this version does not know.
    #[serde(other)]
    Unknown,
}

impl OptionalPart {
    /// Returns the name of the part on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LastMessageAt => "lastMessageAt",
            Self::FirstPrompt => "firstPrompt",
            Self::Worktree => "worktree",
            Self::Marked => "marked",
            Self::Deleted => "deleted",
            Self::Unknown => "unknown",
        }
    }
}

/// The number of rows left out and of texts cut to satisfy the rules of the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// Rows whose id is not a valid [`SessionId`](crate::session::SessionId).
    pub invalid_id: u64,
    /// Rows with the same id as a newer row.
    pub duplicate_id: u64,
    /// Texts cut to 4 KiB.
    #[serde(default)]
    pub truncated: u64,
}

/// How the marker was searched for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Scan {
    /// What was read.
    #[serde(deserialize_with = "strict::name")]
    pub mode: ScanMode,
    /// The part of the content whose marks are known, from 0 to 1.
    pub progress: f64,
    /// The number of new frames in the write-ahead log.
    pub frames: u64,
    /// The number of bytes searched, in the content or in the log.
    pub bytes: u64,
    /// Whether some marks are unknown and another listing would not find them either,
    /// because the scan state cannot be saved or the content cannot be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
}

impl Scan {
    /// Returns true if another scan would find nothing more, unless the database changes.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.progress >= 1.0 || self.stalled
    }

    /// Creates a finished scan that searched nothing.
    #[must_use]
    pub fn new(mode: ScanMode) -> Self {
        Self { mode, ..Self::NONE }
    }

    /// The scan of a listing without a marker, or without content to search.
    pub const NONE: Self = Self {
        mode: ScanMode::None,
        progress: 1.0,
        frames: 0,
        bytes: 0,
        stalled: false,
    };
}

/// What a scan read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ScanMode {
    /// Nothing.
    None,
    /// All content.
    Full,
    /// The end of the write-ahead log.
    Tail,
    /// Nothing, because nothing had changed since the last listing.
    Unchanged,
}

impl ScanMode {
    /// Returns the name of the mode on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Full => "full",
            Self::Tail => "tail",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The last line of a failed listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperError {
    /// The kind, for the caller's decisions.
    #[serde(deserialize_with = "strict::name")]
    pub kind: ErrorKind,
    /// The message for people: the object, the problem, and the way out.
    pub message: String,
}

/// Why a listing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another program held the database's lock for longer than the busy timeout.
    Busy,
    /// The database is damaged.
    Corrupt,
    /// The file is not a SQLite database.
    NotADatabase,
    /// The file may not be read.
    Permission,
    /// Reading failed.
    Io,
    /// The tables differ from those that OpenCode creates, or cannot be read.
    Schema,
    /// A memory limit was reached.
    OutOfMemory,
    /// The helper does not know its arguments or its request.
    Usage,
    /// An internal error of the helper, or a limit of the wire was exceeded.
    Internal,
}

impl ErrorKind {
    /// Returns the name of the kind on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Corrupt => "corrupt",
            Self::NotADatabase => "not_a_database",
            Self::Permission => "permission",
            Self::Io => "io",
            Self::Schema => "schema",
            Self::OutOfMemory => "out_of_memory",
            Self::Usage => "usage",
            Self::Internal => "internal",
        }
    }

    /// Returns the exit status of a helper whose last line is an `error` of this kind.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        if self == Self::Usage { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_have_one_sentence_per_missing_part() {
        let degraded = |what, reason: &str| Degraded {
            what,
            reason: reason.to_owned(),
        };
        for (what, reason, expected) in [
            (
                OptionalPart::LastMessageAt,
                "the index is damaged",
                "lastMessageAt is missing: the index is damaged",
            ),
            (
                OptionalPart::FirstPrompt,
                "two\nlines\u{1b}[31m",
                "firstPrompt is missing: two lines\u{fffd}[31m",
            ),
            (OptionalPart::Worktree, "", "worktree is missing"),
            (OptionalPart::Marked, "x", "marked is missing: x"),
            (
                OptionalPart::Deleted,
                "x",
                "deleted sessions may be listed: x",
            ),
            (
                OptionalPart::Unknown,
                "x",
                "a part unknown to this version is missing: x",
            ),
        ] {
            assert_eq!(notes(&[degraded(what, reason)], false), [expected]);
        }
        let both = notes(&[degraded(OptionalPart::Marked, "x")], true);
        assert_eq!(both, ["marked is missing: x", LOG_ELSEWHERE]);
        assert_eq!(notes(&[], true), [LOG_ELSEWHERE]);
        assert_eq!(notes(&[], false), [] as [&str; 0]);
    }
}
