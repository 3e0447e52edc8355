//! The sessions of a database, read one by one.
//!
//! There are two steps. The first reads the keys of all relevant rows (rowid, time, id)
//! and sorts them here, so that SQLite needs no temporary file; they take 24 bytes and
//! the id each. The second reads each row by its rowid. So rows are sent in order, and
//! memory use does not depend on the size of cells: of a cell larger than 64 KiB only the
//! start is read.
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
use super::keys::{Filter, FirstRow, Keys, keys_sql};
use super::row_buffer::RowBuffer;
use super::row_scan::{ScanQuery, TableScan};
use super::schema::Schema;
use super::sessions::{Newest, Prepare, SessionLoader, SessionQuery};
use crate::wire::{SessionLine, Skipped};

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
            .map(|rows| keys_sql(rows, filter, is_only_table, FirstRow::OfTable));
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

    /// Passes the sessions to `sink`, newest activity first, ties by id. First prompts
    /// have at most `prompt_limit` characters. All fields except `marked` are set.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite or `sink` fails.
    pub fn run<E: From<StoreError>>(
        &self,
        conn: &Connection,
        prompt_limit: usize,
        mut sink: impl FnMut(SessionLine<'_>) -> Result<(), E>,
    ) -> Result<ListSummary, E> {
        let to_error = |error: rusqlite::Error| E::from(StoreError::from(error));
        let tables = || self.sessions.tables.iter().map(|rows| rows.table);
        let mut summary = ListSummary {
            tables: tables().map(|table| table.name.clone()).collect(),
            flat: tables().any(|table| !table.has_column("parent_id")),
            ..ListSummary::default()
        };
        let (mut loader, mut keys, buffer) = self.read(conn, prompt_limit).map_err(to_error)?;
        summary.skipped.duplicate_id = keys.sort();
        let mut single = RowBuffer::default();
        for key in &keys.keys {
            let table = usize::from(key.table);
            if let Some(id) = keys.id(key)
                && loader.is_deleted(table, id, key.updated())
            {
                continue;
            }
            let (row, newest) = match key.row() {
                Some(row) => (buffer.get(row), Newest::Known),
                None => {
                    single.clear();
                    let row = loader.read_row(table, key.rowid, &mut single);
                    let row = row.map_err(to_error)?;
                    (row.and_then(|row| single.get(row)), Newest::Unknown)
                }
            };
            let Some((mut session, mut truncated)) = row else {
                summary.skipped.invalid_id += 1;
                continue;
            };
            let parts = loader.parts(&mut session, newest);
            truncated += parts.truncated;
            // A session with a directory that could not be read is still listed.
            let has_no_directory = session.directory.is_none() && truncated == 0;
            if has_no_directory && self.sessions.tables[table].table.has_column("directory") {
                continue;
            }
            summary.skipped.truncated += truncated;
            parts.add_to(&mut session);
            sink(session)?;
        }
        summary.degraded = loader.degraded;
        Ok(summary)
    }

    /// Reads the keys of all rows, and the rows themselves as far as one statement a table can
    /// read them.
    fn read<'c>(
        &'c self,
        conn: &'c Connection,
        prompt_limit: usize,
    ) -> rusqlite::Result<(SessionLoader<'c>, Keys, RowBuffer)> {
        let (mut keys, mut buffer) = (Keys::default(), RowBuffer::default());
        let scans: rusqlite::Result<Vec<_>> = (0..)
            .zip(&self.scans)
            .map(|(table, query)| TableScan::new(conn, query, table))
            .collect();
        let Ok(scans) = scans else {
            self.read_keys(conn, &mut keys)?;
            let loader = SessionLoader::new(conn, &self.sessions, prompt_limit, Prepare::Now)?;
            return Ok((loader, keys, buffer));
        };
        let prepare = Prepare::WhenNeeded;
        let loader = SessionLoader::new(conn, &self.sessions, prompt_limit, prepare)?;
        let mut scanned = scans
            .into_iter()
            .map(|scan| scan.read(&loader.limit, &mut keys, &mut buffer));
        if !scanned.all(|is_complete| is_complete.unwrap_or(false)) {
            drop(scanned);
            keys.clear();
            buffer.clear();
            let limit = &loader.limit;
            limit.run_unlimited(|| self.read_keys(conn, &mut keys))?;
        }
        Ok((loader, keys, buffer))
    }

    /// Reads the keys of all tables.
    fn read_keys(&self, conn: &Connection, keys: &mut Keys) -> rusqlite::Result<()> {
        for (table, sql) in (0..).zip(&self.keys) {
            keys.read(table, conn.prepare(sql)?.query([])?, usize::MAX)?;
        }
        Ok(())
    }
}
