//! Reading OpenCode's databases. Only the helper process uses this module.
//!
//! Guarantees, whatever the database holds:
//!
//! * OpenCode is not disturbed. The file is inspected before SQLite may open it
//!   (`inspect.rs`), opened read-only, never checkpointed and never written. It is read
//!   in short transactions, or past SQLite at offsets of the file.
//! * Any schema is accepted: every table and column may be missing, in any order. Only
//!   the columns that are shown are selected, and no cell larger than 64 KiB is loaded
//!   for them.
//! * Failures are typed ([`StoreError`]): one table maps each SQLite result code to one
//!   [`ErrorKind`](crate::wire::ErrorKind).
//!
//! Connections are opened in this module only.

mod activity;
mod cell_limit;
mod connect;
mod content;
mod degraded;
mod deleted;
mod error;
mod inspect;
mod interrupt;
mod keys;
mod known_schema;
mod lines;
mod lock;
mod log;
mod look_up;
mod prompt;
mod row;
mod row_scan;
mod rows;
mod schema;
mod schema_rows;
mod session_row;
mod sessions;
mod stamp;
mod value;
mod worktree;

pub(crate) use cell_limit::{CellLimit, RowById, RowFormat};
pub use connect::{Database, OpenOptions, Opened, PublishedLog, Snapshot};
pub use content::{CONTENT_TABLES, ContentColumn};
pub use degraded::DegradedParts;
pub use error::StoreError;
pub use keys::Filter;
pub use known_schema::KnownSchema;
pub use lock::LockHolder;
pub use log::WalPosition;
pub(crate) use log::checksum;
pub use look_up::{Finder, LookUpQuery};
pub use rows::{ListQuery, ListSummary};
pub use schema::{Column, Index, RowidName, Schema, Table, TableKind};
pub(crate) use sessions::SESSION_TABLES;
pub use stamp::DatabaseStamp;

/// Quotes a name as an SQL identifier.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
