//! Which sessions contain the 3-views marker. The helper process uses this module, and
//! `InProcessLister`.
//!
//! A session is marked if any of its content rows contains the marker. The definition is
//! an SQL query:
//!
//! ```sql
//! EXISTS (SELECT 1 FROM part    x WHERE x.session_id = s.id AND x.data LIKE '%…%')
//! OR EXISTS (SELECT 1 FROM message x WHERE x.session_id = s.id AND x.data LIKE '%…%')
//! -- and so on for each content table
//! ```
//!
//! `s` is each session table, including that of OpenCode 2.
//!
//! `LIKE` folds ASCII case, stops at a NUL, and reads BLOBs as text. The scan may find
//! candidate rows in other ways, but `LIKE` or an exact equivalent confirms each row, so
//! the result is that of the definition. [`scan()`] is the only entry point.
//!
//! | file | what it decides |
//! | --- | --- |
//! | `scan` | one scan from its inputs to its result |
//! | `pages`, `sql_scan` | reading past SQLite or by SQL; where a scan ends when its budget is spent |
//! | `cache`, `cache_key` | where the next scan resumes: the phases of a scan, and the file that keeps them; what it is valid for |
//! | `wal`, `commit_count`, `log_pages` | following the log; whether frames are missing; what they hold |
//! | `free_pages`, `overflow` | the freelist, the chains of overflow pages |
//! | `halves`, `needle`, `record`, `page` | which pages and rows can contain the marker |
//! | `confirm`, `large_cell` | whether a candidate row contains it |

mod cache;
mod cache_key;
mod commit_count;
mod confirm;
mod file_scan;
mod frame;
mod free_pages;
mod halves;
mod large_cell;
mod log_pages;
mod needle;
mod overflow;
mod page;
mod pages;
mod read_at;
mod record;
mod scan;
mod scanner;
mod sql_scan;
pub mod wal;

use std::collections::{BTreeSet, HashSet};

use rusqlite::Connection;

use crate::marker_text::MarkerText;
use crate::store::{CONTENT_TABLES, SESSION_TABLES, Schema, StoreError, Table};

pub use needle::Needle;
pub use scan::{CacheUpdate, ScanResult, scan};
pub use scanner::Options;

/// The marked sessions, as far as they are known.
#[derive(Debug, Clone)]
pub enum MarkedSessions {
    /// No marker was requested.
    NotRequested,
    /// The sessions that were found to be marked.
    Known {
        /// Session ids. Grows with the number of marked sessions.
        marked: HashSet<String>,
        /// Whether all other sessions are known to be unmarked. Otherwise their state is
        /// unknown.
        is_complete: bool,
    },
}

impl MarkedSessions {
    /// Returns whether this session is marked, or `None` if this is unknown.
    #[must_use]
    pub fn is_marked(&self, id: &str) -> Option<bool> {
        match self {
            Self::NotRequested => None,
            Self::Known {
                marked,
                is_complete,
            } => {
                let is_marked = marked.contains(id);
                (is_marked || *is_complete).then_some(is_marked)
            }
        }
    }
}

/// Finds the marked sessions by the definition itself, which reads all content.
///
/// # Errors
///
/// Returns an error if SQLite fails.
pub fn find_by_definition(
    conn: &Connection,
    schema: &Schema,
    marker: &MarkerText,
) -> Result<BTreeSet<String>, StoreError> {
    let mut marked = BTreeSet::new();
    for content in content_tables(schema) {
        confirm::find_by_definition(conn, schema, content, marker, &mut |id| {
            marked.insert(id);
        })?;
    }
    Ok(marked)
}

/// Returns the session tables of `schema` that have an id.
fn session_tables(schema: &Schema) -> impl Iterator<Item = &Table> {
    SESSION_TABLES
        .into_iter()
        .filter_map(|(name, _)| schema.table(name))
        .filter(|table| table.has_column("id"))
}

/// Returns the content tables of `schema` whose rows name a session that can be listed.
fn content_tables(schema: &Schema) -> impl Iterator<Item = ContentTable<'_>> {
    let has_sessions = session_tables(schema).next().is_some();
    CONTENT_TABLES
        .into_iter()
        .zip(0_u8..)
        .filter(move |_| has_sessions)
        .filter_map(|(content, index)| {
            Some(ContentTable {
                table: schema.table(content.table)?,
                column: content.column,
                index,
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
    /// The column that holds the content.
    column: &'static str,
    /// The index in [`CONTENT_TABLES`].
    index: u8,
}

impl<'s> ContentTable<'s> {
    /// Returns the name of the rowid if the values that a row's columns read as are the
    /// values that the row stores: no column is generated, and the content has no default
    /// for rows that are older than the column.
    fn stored_rowid(&self) -> Option<&'s str> {
        let has_default = self
            .table
            .columns
            .iter()
            .any(|column| column.name == self.column && column.has_default);
        self.table
            .rowid()
            .filter(|_| !self.table.has_generated_column() && !has_default)
    }
}
