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
//! `LIKE` folds ASCII case, stops at a NUL, and reads BLOBs as text; whatever
//! finds the rows here, `LIKE` or its exact equal judges them, so the answer is
//! that of the definition. [`scan`] is the one way in.

mod cell;
mod needle;
mod pass;

use std::collections::HashSet;

use rusqlite::Connection;

use crate::session::SessionId;
use crate::store::{Schema, StoreError, Table};
use crate::wire::{MarkerText, Scan, ScanMode};

pub use needle::Needle;

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
    /// Exactly these carry it. Grows with the sessions that are marked.
    Of(HashSet<String>),
}

impl Marks {
    /// Whether this session carries the marker; `None` where that is not known.
    #[must_use]
    pub fn of(&self, id: &SessionId) -> Option<bool> {
        match self {
            Self::NotAsked => None,
            Self::Of(marked) => Some(marked.contains(id.as_str())),
        }
    }
}

/// Finds the marked sessions, in the transaction of `conn`.
///
/// # Errors
///
/// Where SQLite fails.
pub fn scan(
    conn: &Connection,
    schema: &Schema,
    marker: Option<&MarkerText>,
) -> Result<(Marks, Scan), StoreError> {
    let Some(marker) = marker else {
        return Ok((Marks::NotAsked, Scan::NONE));
    };
    let mut marked = HashSet::new();
    let bytes = pass::run(conn, schema, marker, |id| {
        marked.insert(id);
    })?;
    Ok((
        Marks::Of(marked),
        Scan {
            mode: ScanMode::Full,
            progress: 1.0,
            frames: 0,
            bytes,
        },
    ))
}

/// The statements of a scan, each with the table it reads.
#[must_use]
pub fn statements(schema: &Schema) -> Vec<(String, String)> {
    content_tables(schema)
        .map(|(table, column)| (table.name.clone(), pass::candidates_sql(table, column)))
        .collect()
}

/// The content tables that `schema` has and whose rows name a session that
/// could be listed.
fn content_tables(schema: &Schema) -> impl Iterator<Item = (&Table, &'static str)> {
    let listable = schema
        .table("session")
        .is_some_and(|session| session.has("id"));
    CONTENT
        .into_iter()
        .filter(move |_| listable)
        .filter_map(|(name, column)| Some((schema.table(name)?, column)))
        .filter(|(table, column)| table.has("session_id") && table.has(column))
}
