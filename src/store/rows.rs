//! The sessions of a database, in the order in which they are sent.
//!
//! One statement reads all rows of a table ([`super::row_scan`]). The lines of the sessions are
//! written at once and kept, up to some MiB, with the keys of the rows (rowid, time, id), which
//! take 32 bytes and the id each. The keys are sorted here, so that SQLite needs no temporary
//! file, and the lines are sent in their order. The rows for which there is no memory are read
//! when they are sent, each by its rowid.
//!
//! A row with an odd cell, such as a text that is too large, is read by itself
//! ([`super::session_row`]), as are all rows if one statement cannot read them. So memory use
//! does not depend on the size of cells: of a cell larger than 64 KiB only the start is read.
//!
//! What was tried, in user mode instructions a session, of a listing of 10,000 sessions with 13
//! messages each (`valgrind --tool=callgrind`):
//!
//! | way | instructions |
//! | --- | --- |
//! | keys, then each row and its newest message by statements of their own | 53,000 |
//! | one statement, rows kept as texts and numbers, lines by serde | 32,500 |
//! | one statement, lines kept, written field by field | 23,200 |
//! | … plain texts eight bytes at a time, one sort | 22,200 |
//!
//! Not kept: an SQL function that takes the cells of a row, instead of one call a column. It saves
//! 2,400 instructions, which are 0.3 µs, and would have to be registered wherever the statement is
//! explained. A larger page cache changes nothing, since nearly every page is read once.
//!
//! OpenCode 1 stores sessions in the table `session`, OpenCode 2 in `session_v2`. One
//! file can have both tables, and a session can be in both. The newer row is then the
//! session, or the row of `session_v2` if both are equally new. The filter is applied
//! after that: a session that was archived in one table is not listed from the other. A
//! session that was deleted in OpenCode 2 is not listed from `session` either
//! ([`super::deleted`]).

use rusqlite::Connection;

use super::StoreError;
use super::degraded::DegradedParts;
use super::keys::{Filter, KeyLine, Keys, RowRange, keys_sql};
use super::lines::Lines;
use super::row_scan::{ScanQuery, TableScan};
use super::schema::Schema;
use super::sessions::{Newest, Prepare, SessionLoader, SessionQuery};
use crate::wire::Skipped;

/// A summary of the rows of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListSummary {
    /// The names of the session tables.
    pub tables: Vec<String>,
    /// Whether a table has no `parent_id`, so that all of its sessions were treated as
    /// roots.
    pub flat: bool,
    /// What was left out or truncated.
    pub skipped: Skipped,
    /// The optional parts that could not be read.
    pub degraded: DegradedParts,
}

/// The SQL of a listing for one schema.
#[derive(Debug, Clone)]
pub struct ListQuery<'a> {
    sessions: SessionQuery<'a>,
    /// For each session table, the SQL that reads all rows.
    scans: Vec<ScanQuery<'a>>,
    /// For each session table, the SQL that selects the keys.
    keys: Vec<String>,
}

impl<'a> ListQuery<'a> {
    /// Builds the SQL for the session tables in `schema`. Returns `None` if there are
    /// none.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError::Schema`] if a session table has no rowid or no column `id`.
    pub fn new(schema: &'a Schema, filter: Filter) -> Result<Option<Self>, StoreError> {
        let sessions = SessionQuery::new(schema)?;
        if sessions.tables.is_empty() {
            return Ok(None);
        }
        let is_only_table = sessions.tables.len() == 1;
        let keys = sessions
            .tables
            .iter()
            .map(|rows| keys_sql(rows, filter, is_only_table, RowRange::All));
        let scans = sessions
            .tables
            .iter()
            .map(|rows| ScanQuery::new(schema, rows, filter, is_only_table));
        Ok(Some(Self {
            keys: keys.collect(),
            scans: scans.collect(),
            sessions,
        }))
    }

    /// Returns the SQL of each statement with a label.
    #[must_use]
    pub fn statements(&self) -> Vec<(&'static str, &str)> {
        let scans = self.scans.iter().flat_map(ScanQuery::statements);
        let keys = self.keys.iter().map(|sql| ("keys", sql.as_str()));
        scans
            .chain(keys)
            .chain(self.sessions.statements())
            .collect()
    }

    /// Passes the id and the line of each session to `sink`, newest activity first, ties by
    /// id. First prompts have at most `prompt_limit` characters, and `mark` decides by the
    /// id whether a session is marked.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite or `sink` fails.
    pub fn run<E: From<StoreError>>(
        &self,
        conn: &Connection,
        prompt_limit: usize,
        mark: impl Fn(&str) -> Option<bool>,
        mut sink: impl FnMut(&str, &[u8]) -> Result<(), E>,
    ) -> Result<ListSummary, E> {
        let to_error = |error: rusqlite::Error| E::from(StoreError::from(error));
        let tables = || self.sessions.tables.iter().map(|rows| rows.table);
        let mut summary = ListSummary {
            tables: tables().map(|table| table.name.clone()).collect(),
            flat: tables().any(|table| !table.has_column("parent_id")),
            ..ListSummary::default()
        };
        let mut listing = self.read(conn, prompt_limit, &mark).map_err(to_error)?;
        summary.skipped.duplicate_id = listing.keys.sort();
        let Listing {
            loader,
            scans,
            keys,
            lines,
        } = &mut listing;
        let mut single = Vec::new();
        for key in &keys.keys {
            let table = usize::from(key.table);
            let id = keys.id(key);
            if let Some(id) = id
                && loader.is_deleted(table, id, key.updated())
            {
                continue;
            }
            single.clear();
            let known = match key.line {
                KeyLine::Known(line) => lines.get(line),
                KeyLine::Unread => scans
                    .get_mut(table)
                    .and_then(|scan| scan.read_one(key.rowid, loader, &mark, &mut single))
                    .map(|truncated| (single.as_slice(), truncated)),
                KeyLine::Odd => None,
            };
            if let (Some((line, truncated)), Some(id)) = (known, id) {
                summary.skipped.truncated += truncated;
                sink(id, line)?;
                continue;
            }
            let row = loader.read_row(table, key.rowid).map_err(to_error)?;
            let Some(row) = row else {
                summary.skipped.invalid_id += 1;
                continue;
            };
            single.clear();
            let session = row.line();
            let id = session.id;
            let listed = loader.append_line(
                table,
                session,
                Newest::Unknown,
                row.truncated,
                &mark,
                &mut single,
            );
            if let Some(truncated) = listed {
                summary.skipped.truncated += truncated;
                sink(id, &single)?;
            }
        }
        summary.degraded = listing.loader.degraded;
        Ok(summary)
    }

    /// Reads the keys of all rows, and the lines of their sessions as far as one statement a
    /// table can read them.
    fn read<'c>(
        &'c self,
        conn: &'c Connection,
        prompt_limit: usize,
        mark: &impl Fn(&str) -> Option<bool>,
    ) -> rusqlite::Result<Listing<'c>> {
        let (mut keys, mut lines) = (Keys::default(), Lines::default());
        let scans: rusqlite::Result<Vec<_>> = (0..)
            .zip(&self.scans)
            .map(|(table, query)| TableScan::new(conn, query, table))
            .collect();
        let Ok(mut scans) = scans else {
            self.read_keys(conn, &mut keys)?;
            let loader = SessionLoader::new(conn, &self.sessions, prompt_limit, Prepare::Now)?;
            return Ok(Listing {
                loader,
                scans: Vec::new(),
                keys,
                lines,
            });
        };
        let prepare = Prepare::WhenNeeded;
        let mut loader = SessionLoader::new(conn, &self.sessions, prompt_limit, prepare)?;
        let degraded = loader.degraded.clone();
        let mut scanned = scans
            .iter_mut()
            .map(|scan| scan.read(&mut loader, mark, &mut keys, &mut lines));
        if !scanned.all(|is_complete| is_complete.unwrap_or(false)) {
            drop(scanned);
            loader.degraded = degraded;
            scans.clear();
            keys.clear();
            lines.clear();
            let limit = &loader.limit;
            limit.run_unlimited(|| self.read_keys(conn, &mut keys))?;
        }
        Ok(Listing {
            loader,
            scans,
            keys,
            lines,
        })
    }

    /// Reads the keys of all tables.
    fn read_keys(&self, conn: &Connection, keys: &mut Keys) -> rusqlite::Result<()> {
        for (table, sql) in (0..).zip(&self.keys) {
            let mut statement = conn.prepare(sql)?;
            keys.read(table, statement.query([])?, usize::MAX, KeyLine::Odd)?;
        }
        Ok(())
    }
}

/// What was read of the tables.
struct Listing<'c> {
    loader: SessionLoader<'c>,
    /// Empty if all rows must be read by the loader.
    scans: Vec<TableScan<'c>>,
    keys: Keys,
    lines: Lines,
}
