//! The protocol between the helper and the main process.
//!
//! The helper writes one JSON object per line to standard output. Lines are UTF-8 and end in
//! `\n`, without white space around the object:
//!
//! | order | line | meaning |
//! | --- | --- | --- |
//! | 1 | `hello` | the protocol and the helper's version; written before the database is opened |
//! | 2… | `session` | one session; newest activity first |
//! | last | `end` | the listing is complete; the line counts the sessions before it |
//! | or last | `error` | the listing failed; the sessions before it do not count |
//!
//! [`Writer`] writes these lines and refuses those that [`Checker`] would reject. A listing
//! counts only as a whole. The checker skips no invalid line, because a listing can remove
//! sessions from the index and so must be complete.
//!
//! Look-ups by id use the same frame, see [`Answer`].
//!
//! A caller that has the sessions of an earlier listing may ask for differences only (see
//! [`Have`]). The helper then writes, in protocol 2:
//!
//! | order | line | meaning |
//! | --- | --- | --- |
//! | 1 | `hello` | with `"protocol":2` |
//! | 2 | `want` | at most once: the caller must send the set whose hash it sent |
//! | … | `session` | one session that is new or whose line differs |
//! | … | `gone` | one session that the caller has and the database has not |
//! | last | `end` | counts all sessions; `difference` counts them by kind and hashes their set |
//!
//! If the database is missing, empty or young, the `end` has no `difference`, as in protocol 1.
//!
//! This module depends neither on SQLite nor on processes.

mod checked;
mod difference;
mod frame;
mod have;
mod listing;
mod look_up;
mod message;
mod parse;
mod request;
mod session_line;
mod violation;
mod write;

pub use checked::Checked;
pub use difference::ListingDifference;
pub use frame::{Checker, Content, LineKind, Verdict};
pub use have::{HAVE_BYTES, Have, HaveLines, Known, decode_set};
pub use listing::{Listing, ListingContent};
pub use look_up::{Answer, AnswerLine, Answers, AnswersEnd, LookUp, LookUpContent, Unresolved};
pub use message::{
    DatabaseState, Degraded, DifferenceCounts, End, ErrorKind, Hello, HelperError, Message,
    OptionalPart, Scan, ScanMode, Skipped, notes, other_tables_line,
};
pub use request::{Request, STDIN_ENDED};
pub use session_line::{ModelLine, SessionLine};
pub use violation::{Progress, Violation};
pub use write::{WriteError, Writer};

/// The version of the protocol.
pub const PROTOCOL: u32 = 1;

/// The version of the protocol in which a helper sends only differences. It is spoken only if the
/// request says what the caller has, and that only to a helper whose `hello` says that it can.
pub const PROTOCOL_OF_DIFFERENCES: u32 = 2;

/// The version of this package, sent in the `hello`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The limits of a helper's output. The helper observes them and the caller enforces them.
pub mod limits {
    /// The maximum length of one line in bytes, without its line feed: 1 MiB.
    pub const LINE: usize = 1 << 20;
    /// The maximum length of a whole listing in bytes: 256 MiB.
    pub const TOTAL: usize = 256 << 20;
    /// The maximum length in bytes of a whole listing from another machine: 64 MiB, about
    /// 100,000 sessions. Another machine must not exhaust the memory of this one.
    pub const TOTAL_OF_COMMAND: usize = 64 << 20;
    /// The maximum number of sessions in a listing.
    pub const SESSIONS: usize = 200_000;
    /// The maximum number of sessions whose hashes follow a request at once: 64 KiB, which a
    /// pipe takes without waiting.
    pub const HAVE_DIRECT: usize = 2_000;
    /// The maximum number of ids in one look-up.
    pub const IDS: usize = 1_000;
    /// The maximum length of one text in bytes: 4 KiB.
    pub const TEXT: usize = 4 << 10;
    /// The default limit of a first prompt in characters.
    pub const FIRST_PROMPT: usize = 200;
    /// The largest limit of a first prompt that a request may set, in characters.
    pub const FIRST_PROMPT_MAX: usize = 4_000;
    /// The maximum number of degraded parts in an `end` line.
    pub const DEGRADED: usize = 32;
    /// The maximum number of table names in the `end` line of a database without sessions.
    pub const OTHER_TABLES: usize = 8;
}
