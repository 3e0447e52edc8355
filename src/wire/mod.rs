//! What crosses the pipe between the helper and the main process.
//!
//! One JSON object a line on the helper's standard output, UTF-8, `\n` ended, without
//! blanks around the object:
//!
//! | order | line | means |
//! | --- | --- | --- |
//! | 1 | `hello` | the protocol and the helper's version; before the database is opened |
//! | 2… | `session` | one a session, newest activity first |
//! | last | `end` | the listing is complete: so many sessions came before |
//! | or last | `error` | the listing failed; sessions before it do not count |
//!
//! [`Writer`] produces it and refuses to produce what [`Checker`] would refuse.
//! A listing counts only whole: there is no skipping of a bad line, since a
//! listing that may remove sessions must not have lost any on its way.
//!
//! Sessions are looked up by their ids with the same frame, see [`Answer`].
//!
//! This module knows neither SQLite nor processes.

mod checked;
mod frame;
mod listing;
mod look_up;
mod message;
mod parse;
mod request;
mod violation;
mod write;

pub use checked::Checked;
pub use frame::{Checker, Content, LineKind, Verdict};
pub use listing::{Listing, ListingContent};
pub use look_up::{Answer, AnswerLine, Answers, AnswersEnd, LookUp, LookUpContent, Unresolved};
pub use message::{
    DatabaseState, Degraded, End, ErrorKind, Hello, HelperError, Message, OptionalPart, Scan,
    ScanMode, Skipped, notes, other_tables_line,
};
pub use request::{Request, STDIN_ENDED};
pub use violation::{Progress, Violation};
pub use write::{WriteError, Writer};

/// The protocol both sides of this version speak.
pub const PROTOCOL: u32 = 1;

/// This version of the package, named in the `hello`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a listing may be at most. The helper keeps to it, the caller enforces it.
pub mod limits {
    /// Bytes of one line, without its line end: 1 MiB.
    pub const LINE: usize = 1 << 20;
    /// Bytes of a whole listing: 256 MiB.
    pub const TOTAL: usize = 256 << 20;
    /// Bytes of a whole listing that a command may pass on from elsewhere: 64 MiB, about
    /// 100,000 sessions. What a machine sends that is not this one must not fill this one's
    /// memory, and an index that is larger is not saved.
    pub const TOTAL_OF_COMMAND: usize = 64 << 20;
    /// Sessions in a listing.
    pub const SESSIONS: usize = 200_000;
    /// Ids in one look-up.
    pub const IDS: usize = 1_000;
    /// Bytes of one text: 4 KiB.
    pub const TEXT: usize = 4 << 10;
    /// Characters of a first prompt, where the request names no other limit.
    pub const FIRST_PROMPT: usize = 200;
    /// The largest limit that a request may name for a first prompt, in characters.
    pub const FIRST_PROMPT_MOST: usize = 4_000;
    /// Parts that an `end` may say it is without.
    pub const DEGRADED: usize = 32;
    /// The most tables that are named of a database without sessions.
    pub const OTHER_TABLES: usize = 8;
}
