//! Reading OpenCode's databases; used by the helper alone.
//!
//! What this room promises, whatever the database holds:
//!
//! * OpenCode does not notice. A file is looked at before SQLite may touch it
//!   (`look.rs`), opened read-only, never checkpointed, never written, and read
//!   in short transactions, or past SQLite at offsets of the file.
//! * Any schema is read as far as it goes: every table and column may be
//!   missing, in any order; only what is shown is selected, and no cell larger
//!   than 64 KiB is loaded for it.
//! * Failures are typed ([`StoreError`]): each SQLite result code becomes one
//!   [`ErrorKind`](crate::wire::ErrorKind) in one table.
//!
//! Only this room opens connections.

mod activity;
mod cell_limit;
mod connect;
mod content;
mod degraded;
mod deleted;
mod error;
mod inspect;
mod interrupt;
mod lock;
mod log;
mod look_up;
mod prompt;
mod row;
mod rows;
mod schema;
mod sessions;
mod stamp;
mod worktree;

pub(crate) use cell_limit::{CellLimit, RowById, Shape};
pub use connect::{Database, OpenOptions, Opened, Snapshot};
pub use content::{CONTENT, Content};
pub use degraded::DegradedParts;
pub use error::StoreError;
pub use lock::LockHolder;
pub use log::WalPosition;
pub(crate) use log::checksum;
pub use look_up::{Finder, LookUpQuery};
pub use rows::{Filter, Listed, Query};
pub use schema::{Column, Index, Schema, Table, TableKind};
pub(crate) use sessions::STORES;
pub use stamp::FileStamp;

/// A name as an SQL identifier.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
