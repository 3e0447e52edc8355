//! How sessions were read before one statement read all rows of a table: each row by its rowid,
//! with a statement of its own for each optional part. It is slow, and simple enough to say what
//! is right: a listing must have the same lines, byte for byte.
//!
//! What did not change is the code of the program itself.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the files are as they were in the program"
)]

mod activity;
mod cell_limit;
#[path = "../../../src/store/degraded.rs"]
mod degraded;
#[path = "../../../src/store/deleted.rs"]
mod deleted;
#[path = "../../../src/store/prompt.rs"]
mod prompt;
mod row;
mod rows;
mod sessions;
#[path = "../../../src/store/worktree.rs"]
mod worktree;

pub(crate) use opencode_sessions::internals::store::{Filter, Index, Schema, StoreError, Table};
pub(crate) use rows::{ListQuery, ListSummary};

mod schema {
    pub(crate) use opencode_sessions::internals::store::{Schema, Table, TableKind};
}

mod content {
    pub(crate) use opencode_sessions::internals::store::{CONTENT_TABLES, ContentColumn};
}

/// Quotes a name as an SQL identifier.
fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

mod value {
    pub(super) use super::row::{TextTruncator, to_millis};
}
