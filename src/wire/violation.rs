//! Which rule of the wire an output broke, and how far it had come.

use super::{PROTOCOL, VERSION, limits};
use crate::session::SessionId;
use crate::text;

/// Which rule of the wire an output broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It ended without a line.
    #[error("it printed nothing")]
    NoOutput,
    /// The first line is no `hello`.
    #[error("its first line is no hello but {0}")]
    NoHello(String),
    /// The first line is in UTF-16, which no helper writes; decoded, safe to show.
    #[error("its first line is no hello but UTF-16: {0}")]
    Utf16(String),
    /// It speaks another protocol.
    #[error(
        "it is version {lister} and speaks protocol {theirs}; this is version {VERSION} and \
         speaks protocol {PROTOCOL}: install both programs from one version"
    )]
    Protocol {
        /// Its protocol.
        theirs: u32,
        /// Its version.
        lister: String,
    },
    /// A line has a type that this version does not know.
    #[error(
        "line {line} has the unknown type {name}; it is version {lister}, this is version \
         {VERSION}: install both programs from one version"
    )]
    UnknownType {
        /// The line, from 1.
        line: usize,
        /// The type, as shown to people.
        name: String,
        /// Its version.
        lister: String,
    },
    /// A line is not what it should be.
    #[error("line {line} is not valid: {why}")]
    Invalid {
        /// The line, from 1.
        line: usize,
        /// Why.
        why: String,
    },
    /// Two sessions have one id.
    #[error("line {line} repeats the id {id}")]
    DuplicateId {
        /// The line, from 1.
        line: usize,
        /// The id.
        id: SessionId,
    },
    /// A second `hello`.
    #[error("line {0} is a second hello")]
    SecondHello(usize),
    /// The count of the `end` is not what came.
    #[error("its end counts {said}, but {got} came")]
    WrongCount {
        /// Sessions received.
        got: u64,
        /// Sessions its `end` counts.
        said: u64,
    },
    /// Something follows the last line.
    #[error("it went on after its last line")]
    AfterEnd,
    /// The output stopped before an `end` or an `error`.
    #[error("it stopped after {0} sessions, without an end")]
    NoEnd(usize),
    /// The output stopped within a line.
    #[error("it stopped in the middle of line {0}")]
    PartialLine(usize),
    /// A line is longer than 1 MiB.
    #[error("line {0} is longer than {limit} bytes", limit = limits::LINE)]
    LongLine(usize),
    /// All lines together are larger than so many bytes.
    #[error("its output is larger than {0} bytes")]
    TooMuch(usize),
    /// There are more sessions than a listing may have.
    #[error("it sent more than {limit} sessions", limit = limits::SESSIONS)]
    TooMany,
}

/// How far an output has come, for a message about one that went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No line yet.
    Nothing,
    /// So many sessions.
    Sessions(usize),
    /// The last line is there.
    Complete,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("before its first line"),
            Self::Sessions(1) => f.write_str("after 1 session"),
            Self::Sessions(count) => write!(f, "after {count} sessions"),
            Self::Complete => f.write_str("after its last line"),
        }
    }
}

pub(super) fn invalid(line: usize, why: &str) -> Violation {
    Violation::Invalid {
        line,
        why: shown(why.as_bytes()),
    }
}

/// The violation of a line whose text `field` is longer than a text may be.
pub(super) fn overlong_text(line: usize, field: &str) -> Violation {
    let limit = limits::TEXT;
    invalid(line, &format!("its {field} is longer than {limit} bytes"))
}

/// The start of something a helper said, quoted, safe to show.
pub(super) fn shown(bytes: &[u8]) -> String {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]);
    let dots = if bytes.len() > 120 { "…" } else { "" };
    format!("{}{dots}", text::escaped(&start))
}
