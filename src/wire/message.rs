//! The lines of the wire as types. Both sides import them; unknown fields are
//! ignored, so that a newer helper may say more.

use serde::{Deserialize, Serialize};

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
    /// The last line of a complete listing.
    End(End),
    /// The last line of a failed listing.
    Error(HelperError),
}

/// The first line: who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol of the lines that follow.
    pub protocol: u32,
    /// The helper's version.
    pub lister: String,
}

impl Hello {
    /// The `hello` of this version.
    #[must_use]
    pub fn ours() -> Self {
        Self {
            protocol: super::PROTOCOL,
            lister: super::VERSION.to_owned(),
        }
    }
}

/// What the helper found where the database should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseState {
    /// It has session tables.
    Ready,
    /// There is no file.
    Missing,
    /// It has no session tables.
    Empty,
    /// It is just being made or restored and was left alone. An empty listing
    /// that says nothing about which sessions exist: ask again in a second.
    Young,
}

impl DatabaseState {
    /// The state's name on the wire.
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
pub struct End {
    /// How many session lines came before.
    pub sessions: u64,
    /// What was found.
    #[serde(deserialize_with = "strict::name")]
    pub database: DatabaseState,
    /// The session tables read.
    #[serde(default)]
    pub tables: Vec<String>,
    /// The tables have no `parent_id`: every session was taken for a root.
    #[serde(default)]
    pub flat: bool,
    /// What was left out or cut.
    #[serde(default, deserialize_with = "strict::object")]
    pub skipped: Skipped,
    /// How the marker was looked for.
    #[serde(deserialize_with = "strict::object")]
    pub scan: Scan,
    /// What could not be read and is null in the sessions, each at most once.
    #[serde(
        default,
        deserialize_with = "strict::objects",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub degraded: Vec<Degraded>,
    /// The database says that it has a write-ahead log, none is beside it, and the
    /// file has another name or is a mount of its own: its log can be elsewhere, and
    /// what is in it is missing here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log_elsewhere: bool,
    /// Where the database is empty, the tables that it has all the same: it can be another
    /// program's. At most [`limits::OTHER_TABLES`](super::limits::OTHER_TABLES), each cut
    /// to 64 characters; never what keeps count of OpenCode's own migrations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_tables: Vec<String>,
    /// How long the listing took, in milliseconds.
    pub elapsed_ms: u64,
}

impl End {
    /// What a person must be told about what the listing lacks: one sentence each,
    /// without the name of the database.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        notes(&self.degraded, self.log_elsewhere)
    }
}

/// The names of [`End::other_tables`], for people. Where as many came as can be sent there
/// may be more.
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

/// What [`End::log_elsewhere`] means, and the way out.
const LOG_ELSEWHERE: &str = "the newest sessions can be missing: the database is in WAL mode, no \
     -wal file is beside it, and the file has another name or is a mount of its own (mount or \
     share its directory, not the file alone)";

/// An optional part of the sessions that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// Which part.
    #[serde(deserialize_with = "strict::name")]
    pub what: OptionalPart,
    /// Why, for people.
    pub reason: String,
}

impl Degraded {
    fn note(&self) -> String {
        let what = match self.what {
            OptionalPart::LastMessageAt
            | OptionalPart::FirstPrompt
            | OptionalPart::Worktree
            | OptionalPart::Marked => format!("{} is missing", self.what.as_str()),
            OptionalPart::Deleted => "deleted sessions can be listed".to_owned(),
            OptionalPart::Unknown => "a part that a newer version knows is missing".to_owned(),
        };
        match &*one_line(&self.reason) {
            "" => what,
            reason => format!("{what}: {reason}"),
        }
    }
}

/// The optional parts of a session: a database that cannot give them is listed
/// without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OptionalPart {
    /// The newest message's time.
    LastMessageAt,
    /// The first prompt of an untitled session.
    FirstPrompt,
    /// The worktree of its project.
    Worktree,
    /// Whether it carries the marker.
    Marked,
    /// Whether a session of OpenCode 1 was deleted in OpenCode 2: where that is not
    /// known it is listed.
    Deleted,
    /// A part that a newer helper knows.
    #[serde(other)]
    Unknown,
}

impl OptionalPart {
    /// The part's name on the wire.
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

/// Rows left out and texts cut, because the wire does not carry them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// Rows whose id is no [`SessionId`](crate::session::SessionId).
    pub invalid_id: u64,
    /// Rows whose id a newer row has too.
    pub duplicate_id: u64,
    /// Texts that were cut at 4 KiB.
    #[serde(default)]
    pub truncated: u64,
}

/// How the marker was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scan {
    /// What was read.
    #[serde(deserialize_with = "strict::name")]
    pub mode: ScanMode,
    /// How much of the content is decided, from 0 to 1.
    pub progress: f64,
    /// Frames of the write-ahead log that were new.
    pub frames: u64,
    /// Bytes of content, or of the log, that were searched.
    pub bytes: u64,
    /// Not all is decided, and another listing would come no further: nothing can be
    /// remembered for it, or the content cannot be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
}

impl Scan {
    /// Nobody asked for the marker, or there was nothing to search.
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
pub enum ScanMode {
    /// Nothing.
    None,
    /// All content.
    Full,
    /// The end of the write-ahead log.
    Tail,
    /// Nothing had changed since the last answer.
    Unchanged,
}

impl ScanMode {
    /// The mode as it stands on the wire.
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
    /// What the caller can act on.
    #[serde(deserialize_with = "strict::name")]
    pub kind: ErrorKind,
    /// What a person can act on: what happened to which object, and the way out.
    pub message: String,
}

/// Why a listing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Another program held the database's lock for longer than the busy timeout.
    Busy,
    /// The database is damaged.
    Corrupt,
    /// The file is no SQLite database.
    NotADatabase,
    /// The file may not be read.
    Permission,
    /// Reading failed.
    Io,
    /// The tables are not what OpenCode makes, or not readable as such.
    Schema,
    /// A memory limit was reached.
    OutOfMemory,
    /// The helper was called with arguments or a request it does not know.
    Usage,
    /// A fault of the helper, or a limit of the wire.
    Internal,
}

impl ErrorKind {
    /// The kind as it stands on the wire.
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

    /// The exit status of a helper whose last line is an `error` of this kind.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        if self == Self::Usage { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_is_one_sentence() {
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
                "deleted sessions can be listed: x",
            ),
            (
                OptionalPart::Unknown,
                "x",
                "a part that a newer version knows is missing: x",
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
