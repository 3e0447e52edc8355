//! Which sessions carry the 3-views marker; used by the helper alone.
//!
//! A session is marked when any of its content rows contains the marker. The
//! definition is SQL's:
//!
//! ```sql
//! EXISTS (SELECT 1 FROM part    x WHERE x.session_id = s.id AND x.data LIKE '%…%')
//! OR EXISTS (SELECT 1 FROM message x WHERE x.session_id = s.id AND x.data LIKE '%…%')
//! -- and so on for each content table
//! ```
//!
//! `s` is each table of sessions, that of OpenCode 2 too.
//!
//! `LIKE` folds ASCII case, stops at a NUL, and reads BLOBs as text; whatever
//! finds the rows here, `LIKE` or its exact equal judges them, so the answer is
//! that of the definition. [`scan`] is the one way in.

mod cache;
mod confirm;
mod file_scan;
mod frame;
mod free_pages;
mod halves;
mod large_cell;
mod needle;
mod overflow;
mod page;
mod pages;
mod record;
mod scan;
mod sql_scan;
pub mod wal;

use std::collections::{BTreeSet, HashSet};

use rusqlite::Connection;

use crate::marker_text::MarkerText;
use crate::session::SessionId;
use crate::store::{CONTENT_TABLES, SESSION_TABLES, Schema, StoreError, Table};

pub use needle::Needle;
pub use scan::{CacheMode, Found, Options, scan};

/// What is known of the marker in each session.
#[derive(Debug, Clone)]
pub enum Marks {
    /// Nobody asked.
    NotAsked,
    /// These carry it.
    Of {
        /// Ids of sessions. Grows with the sessions that are marked.
        marked: HashSet<String>,
        /// No other session does; else of others it is not known yet.
        complete: bool,
    },
}

impl Marks {
    /// Whether this session carries the marker; `None` where that is not known.
    #[must_use]
    pub fn of(&self, id: &SessionId) -> Option<bool> {
        match self {
            Self::NotAsked => None,
            Self::Of { marked, complete } => {
                (marked.contains(id.as_str()) || *complete).then(|| marked.contains(id.as_str()))
            }
        }
    }
}

/// The marked sessions by the definition itself, which reads everything.
///
/// # Errors
///
/// Where SQLite fails.
pub fn definition(
    conn: &Connection,
    schema: &Schema,
    marker: &MarkerText,
) -> Result<BTreeSet<String>, StoreError> {
    let mut marked = BTreeSet::new();
    for content in content_tables(schema) {
        confirm::plain(conn, schema, content, marker, &mut |id| {
            marked.insert(id);
        })?;
    }
    Ok(marked)
}

/// The tables of sessions that `schema` has and whose sessions can be named.
fn session_tables(schema: &Schema) -> impl Iterator<Item = &Table> {
    SESSION_TABLES
        .into_iter()
        .filter_map(|(name, _)| schema.table(name))
        .filter(|table| table.has_column("id"))
}

/// The content tables that `schema` has and whose rows name a session that
/// could be listed.
fn content_tables(schema: &Schema) -> impl Iterator<Item = ContentTable<'_>> {
    let listable = session_tables(schema).next().is_some();
    CONTENT_TABLES
        .into_iter()
        .zip(0_u8..)
        .filter(move |_| listable)
        .filter_map(|(content, number)| {
            Some(ContentTable {
                table: schema.table(content.table)?,
                column: content.column,
                number,
            })
        })
        .filter(|content| {
            content.table.has_column("session_id") && content.table.has_column(content.column)
        })
}

/// A content table of one database.
#[derive(Debug, Clone, Copy)]
struct ContentTable<'s> {
    table: &'s Table,
    /// The column that holds what was said.
    column: &'static str,
    /// Its place in [`CONTENT_TABLES`].
    number: u8,
}

impl<'s> ContentTable<'s> {
    /// The rowid's name, if what a row's columns read as is what the row stores: no
    /// column is computed, and the content has no default that rows of before read as.
    fn stored_rowid(&self) -> Option<&'s str> {
        let has_default = self
            .table
            .columns
            .iter()
            .any(|known| known.name == self.column && known.has_default);
        self.table
            .rowid()
            .filter(|_| !self.table.has_generated_column() && !has_default)
    }
}
