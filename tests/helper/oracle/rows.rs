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

use std::cmp::Reverse;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::degraded::DegradedParts;
use super::row::{RowQuery, non_blank_text_expr, time_set_expr, time_updated_expr, to_millis};
use super::schema::Schema;
use super::sessions::{SessionLoader, SessionQuery};
use super::{Filter, StoreError, quote_identifier};
use crate::session::{Millis, Session, SessionId};
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
        let is_only_table = sessions.tables.len() == 1;
        let keys = sessions
            .tables
            .iter()
            .map(|rows| keys_sql(rows, filter, is_only_table));
        let keys: Vec<_> = keys.collect();
        Ok((!keys.is_empty()).then_some(Self { sessions, keys }))
    }

    /// Returns the SQL of each statement with a label.
    #[must_use]
    pub fn statements(&self) -> Vec<(&'static str, &str)> {
        let keys = self.keys.iter().map(|sql| ("keys", sql.as_str()));
        keys.chain(self.sessions.statements()).collect()
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
        mut sink: impl FnMut(Session) -> Result<(), E>,
    ) -> Result<ListSummary, E> {
        let to_error = |error: rusqlite::Error| E::from(StoreError::from(error));
        let tables = || self.sessions.tables.iter().map(|rows| rows.table);
        let mut summary = ListSummary {
            tables: tables().map(|table| table.name.clone()).collect(),
            flat: tables().any(|table| !table.has_column("parent_id")),
            ..ListSummary::default()
        };
        let mut keys = Keys::default();
        for (table, sql) in (0..).zip(&self.keys) {
            keys.read(conn, table, sql).map_err(to_error)?;
        }
        summary.skipped.duplicate_id = keys.sort();
        let mut loader =
            SessionLoader::new(conn, &self.sessions, prompt_limit).map_err(to_error)?;
        for key in &keys.keys {
            let table = usize::from(key.table);
            if let Some(id) = keys.id(key)
                && loader.is_deleted(table, id, key.updated_ms().map(Millis))
            {
                continue;
            }
            let session = loader.load(table, key.rowid).map_err(to_error)?;
            let Some((session, truncated)) = session else {
                summary.skipped.invalid_id += 1;
                continue;
            };
            // A session with a directory that could not be read is still listed.
            let has_no_directory = session.directory.is_none() && truncated == 0;
            if has_no_directory && self.sessions.tables[table].table.has_column("directory") {
                continue;
            }
            summary.skipped.truncated += truncated;
            sink(session)?;
        }
        summary.degraded = loader.degraded;
        Ok(summary)
    }
}

/// Builds the SQL that selects the keys of a table: all keys if rows of another table can
/// hide them, else only those that the filter accepts.
fn keys_sql(rows: &RowQuery<'_>, filter: Filter, is_only_table: bool) -> String {
    let (table, rowid) = (rows.table, rows.rowid);
    let mut wanted = vec!["1".to_owned()];
    if table.has_column("parent_id") && !filter.children {
        wanted.push(format!("NOT {}", non_blank_text_expr("parent_id")));
    }
    if table.has_column("time_archived") && !filter.archived {
        wanted.push(format!("NOT {}", time_set_expr("time_archived")));
    }
    if table.has_column("directory") {
        // A session without a directory is not listed.
        wanted.push(non_blank_text_expr("directory"));
    }
    let wanted = wanted.join(" AND ");
    let condition = if is_only_table {
        format!(" WHERE {wanted}")
    } else {
        String::new()
    };
    format!(
        "SELECT s.{rowid}, {}, CASE WHEN octet_length(s.id) <= {} THEN s.id END, ({wanted}) \
         FROM {} AS s NOT INDEXED{condition}",
        time_updated_expr(table),
        SessionId::MAX_BYTES,
        quote_identifier(&table.name)
    )
}

/// The keys of rows, 24 bytes each, and their ids in one buffer.
#[derive(Default)]
struct Keys {
    keys: Vec<Key>,
    ids: Vec<u8>,
}

struct Key {
    /// In milliseconds since 1970. An unknown time is `i64::MIN`, which sorts last.
    time_ms: i64,
    rowid: i64,
    /// The offset of the id in the buffer.
    id_offset: u32,
    /// The length of the id in bytes, or [`NO_ID`].
    id_len_bytes: u16,
    table: u8,
    is_wanted: bool,
}

/// Marks a key whose id is not a text.
const NO_ID: u16 = u16::MAX;

const _: () = assert!(SessionId::MAX_BYTES < NO_ID as usize);

impl Key {
    fn updated_ms(&self) -> Option<i64> {
        (self.time_ms != i64::MIN).then_some(self.time_ms)
    }
}

impl Keys {
    fn read(&mut self, conn: &Connection, table: u8, sql: &str) -> rusqlite::Result<()> {
        let mut rows = conn.prepare(sql)?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let id = match row.get_ref(2)? {
                ValueRef::Text(id) => Some(id),
                _ => None,
            };
            self.keys.push(Key {
                time_ms: to_millis(row.get_ref(1)?).map_or(i64::MIN, |time| time.0),
                rowid: row.get(0)?,
                // 4 GiB of ids are far more rows than a listing may have.
                id_offset: u32::try_from(self.ids.len()).unwrap_or(u32::MAX),
                id_len_bytes: id.map_or(NO_ID, |id| u16::try_from(id.len()).unwrap_or(NO_ID)),
                table,
                is_wanted: row.get(3)?,
            });
            self.ids.extend_from_slice(id.unwrap_or_default());
        }
        Ok(())
    }

    fn id(&self, key: &Key) -> Option<&str> {
        std::str::from_utf8(id_of(&self.ids, key)?).ok()
    }

    /// Keeps the newest of the rows with the same id, drops those that the filter
    /// rejects, and sorts the rest. Returns the number of duplicates within a table.
    ///
    /// A unique index does not rule out duplicates, since it can be damaged.
    fn sort(&mut self) -> u64 {
        let Self { keys, ids } = self;
        let newest_first = |key: &Key| (Reverse(key.time_ms), Reverse(key.table), key.rowid);
        keys.sort_unstable_by(|a, b| {
            let by_id = id_of(ids, a).cmp(&id_of(ids, b));
            by_id.then_with(|| newest_first(a).cmp(&newest_first(b)))
        });
        let mut duplicates = 0;
        let mut newest: Option<(u32, u16, u8)> = None;
        keys.retain(|key| {
            let is_repeated = newest.filter(|(offset, len_bytes, _)| {
                *len_bytes != NO_ID && slice(ids, *offset, *len_bytes) == id_of(ids, key)
            });
            match is_repeated {
                Some((.., table)) => {
                    // Rows in different tables are the same session, not duplicates.
                    duplicates += u64::from(key.is_wanted && key.table == table);
                    false
                }
                None => {
                    newest = Some((key.id_offset, key.id_len_bytes, key.table));
                    key.is_wanted
                }
            }
        });
        // OpenCode's ids descend with time, so that rows with an unknown time are sorted
        // newest first too.
        keys.sort_unstable_by(|a, b| {
            let by_time = b.time_ms.cmp(&a.time_ms);
            by_time
                .then_with(|| id_of(ids, a).cmp(&id_of(ids, b)))
                .then_with(|| newest_first(a).cmp(&newest_first(b)))
        });
        duplicates
    }
}

fn id_of<'i>(ids: &'i [u8], key: &Key) -> Option<&'i [u8]> {
    slice(ids, key.id_offset, key.id_len_bytes)
}

fn slice(ids: &[u8], offset: u32, len_bytes: u16) -> Option<&[u8]> {
    (len_bytes != NO_ID)
        .then(|| ids.get(offset as usize..offset as usize + usize::from(len_bytes)))?
}
