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

mod cell;
mod ground;
mod halves;
mod judge;
mod links;
mod memory;
mod needle;
mod page;
mod pass;
mod record;
mod scan;
pub mod wal;

use std::collections::{BTreeSet, HashSet};

use rusqlite::Connection;

use crate::session::SessionId;
use crate::store::{STORES, Schema, StoreError, Table};
use crate::wire::MarkerText;

pub use needle::Needle;
pub use scan::{Found, Options, Remember, scan};

/// The tables that hold what was said, and the column that holds it. The last
/// two are written by the newer `/api/session` routes, which write nothing to
/// the first two.
pub const CONTENT: [(&str, &str); 4] = [
    ("part", "data"),
    ("message", "data"),
    ("session_message", "data"),
    ("session_input", "prompt"),
];

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
    for (table, column) in content_tables(schema) {
        judge::plain(conn, schema, table, column, marker, &mut |id| {
            marked.insert(id);
        })?;
    }
    Ok(marked)
}

/// The tables of sessions that `schema` has and whose sessions can be named.
fn session_tables(schema: &Schema) -> impl Iterator<Item = &Table> {
    STORES
        .into_iter()
        .filter_map(|(name, _)| schema.table(name))
        .filter(|table| table.has("id"))
}

/// The content tables that `schema` has and whose rows name a session that
/// could be listed.
fn content_tables(schema: &Schema) -> impl Iterator<Item = (&Table, &'static str)> {
    let listable = session_tables(schema).next().is_some();
    CONTENT
        .into_iter()
        .filter(move |_| listable)
        .filter_map(|(name, column)| Some((schema.table(name)?, column)))
        .filter(|(table, column)| table.has("session_id") && table.has(column))
}
