//! The rules of the wire that an output can break, and the progress of an output.

use super::{PROTOCOL, VERSION, limits};
use crate::session::SessionId;
use crate::text;

/// A rule of the wire that an output broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The output has no line.
    #[error("no output")]
    NoOutput,
    /// The first line is not a `hello`. Holds its first 120 bytes, safe to show.
    #[error("expected a `hello` line, got {0}")]
    NoHello(String),
    /// The first line is in UTF-16, which no helper writes. Holds its decoded text, safe to
    /// show.
    #[error("expected a `hello` line, got UTF-16: {0}")]
    Utf16(String),
    /// The helper speaks another protocol.
    #[error(
        "the helper is version {helper_version} (protocol {theirs}) and this program is version {VERSION} \
         (protocol {PROTOCOL}): install both programs from one version"
    )]
    Protocol {
        /// The helper's protocol.
        theirs: u32,
        /// The helper's version.
        helper_version: String,
    },
    /// A line has a type that this version does not know.
    #[error(
        "line {line} has the unknown type {name}; the helper is version {helper_version} and this program \
         is version {VERSION}: install both programs from one version"
    )]
    UnknownType {
        /// The line number, from 1.
        line: usize,
        /// The type, safe to show.
        name: String,
        /// The helper's version.
        helper_version: String,
    },
    /// A line or one of its fields is invalid.
    #[error("invalid line {line}: {why}")]
    Invalid {
        /// The line number, from 1.
        line: usize,
        /// What is wrong, safe to show.
        why: String,
    },
    /// Two sessions have the same id.
    #[error("line {line} repeats the id {id}")]
    DuplicateId {
        /// The line number, from 1.
        line: usize,
        /// The id.
        id: SessionId,
    },
    /// A `hello` follows the first line. Holds its line number, from 1.
    #[error("line {0} is a second `hello` line")]
    SecondHello(usize),
    /// The count of the `end` differs from the number of lines received.
    #[error("the `end` line counts {said}, but {got} were received")]
    WrongCount {
        /// The number of sessions or answers received.
        got: u64,
        /// The number that the `end` line states.
        said: u64,
    },
    /// Output follows the last line.
    #[error("output continues after the last line")]
    AfterEnd,
    /// The output stopped before an `end` or an `error`. Holds the number of sessions or
    /// answers before that.
    #[error("output stopped after {0} sessions, without an `end` line")]
    NoEnd(usize),
    /// The output stopped within a line. Holds its line number, from 1.
    #[error("output stopped in the middle of line {0}")]
    PartialLine(usize),
    /// A line is longer than 1 MiB. Holds its line number, from 1.
    #[error("line {0} is longer than {limit} bytes", limit = limits::LINE)]
    LongLine(usize),
    /// The output is larger than the limit. Holds the limit in bytes.
    #[error("output is larger than {0} bytes")]
    TooMuch(usize),
    /// The output has more sessions than a listing may have.
    #[error("more than {limit} sessions", limit = limits::SESSIONS)]
    TooMany,
}

/// The progress of an output when it ended, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// No line was received.
    Nothing,
    /// The `hello` and this many sessions or answers were received.
    Sessions(usize),
    /// The last line was received.
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

/// Returns the violation of a line whose text `field` is longer than [`limits::TEXT`].
pub(super) fn overlong_text(line: usize, field: &str) -> Violation {
    let limit = limits::TEXT;
    invalid(line, &format!("its {field} is longer than {limit} bytes"))
}

/// Returns the first 120 bytes of a helper's text, escaped so that they are safe to show.
pub(super) fn shown(bytes: &[u8]) -> String {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]);
    let dots = if bytes.len() > 120 { "…" } else { "" };
    format!("{}{dots}", text::escaped(&start))
}
