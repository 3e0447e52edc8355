//! The keys of rows: what decides which sessions are listed and in which order.

use std::cmp::Reverse;

use rusqlite::Rows;
use rusqlite::types::ValueRef;

use super::quote_identifier;
use super::row::{RowQuery, non_blank_text_expr, time_set_expr, time_updated_expr, to_millis};
use crate::session::{Millis, SessionId};

/// The sessions to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whether to include subagents, not only roots.
    pub children: bool,
    /// Whether to include archived sessions.
    pub archived: bool,
}

/// Builds the SQL that selects the keys of a table: all keys if rows of another table can
/// hide them, else only those that the filter accepts. The second condition is added.
pub(super) fn keys_sql(
    rows: &RowQuery<'_>,
    filter: Filter,
    is_only_table: bool,
    from: FirstRow,
) -> String {
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
    let condition = if is_only_table { &wanted } else { "1" };
    let from = from.condition(rowid);
    format!(
        "SELECT s.{rowid}, {}, CASE WHEN octet_length(s.id) <= {} THEN s.id END, ({wanted}) \
         FROM {} AS s NOT INDEXED WHERE {condition}{from}",
        time_updated_expr(table),
        SessionId::MAX_BYTES,
        quote_identifier(&table.name)
    )
}

/// The first row that a statement reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstRow {
    /// The first of the table, even if the order of the rows is damaged.
    OfTable,
    /// The first with at least this rowid, the only parameter of the statement.
    Parameter,
}

impl FirstRow {
    /// Returns a condition to add to those of a statement, and the order of its rows.
    pub(super) fn condition(self, rowid: &str) -> String {
        match self {
            Self::OfTable => String::new(),
            Self::Parameter => format!(" AND s.{rowid} >= ?1 ORDER BY s.{rowid}"),
        }
    }
}

/// The keys of rows, 32 bytes each, and their ids in one buffer.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) keys: Vec<Key>,
    ids: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Key {
    /// In milliseconds since 1970. An unknown time is `i64::MIN`, which sorts last.
    time_ms: i64,
    pub(super) rowid: i64,
    /// The offset of the id in the buffer.
    id_offset: u32,
    /// The length of the id in bytes, or [`NO_ID`].
    id_len_bytes: u16,
    pub(super) table: u8,
    is_wanted: bool,
    /// The index of the row in the buffer, or [`NOT_BUFFERED`].
    row: u32,
}

/// Marks a key whose id is not a text.
const NO_ID: u16 = u16::MAX;

/// Marks a key whose row is in no buffer.
const NOT_BUFFERED: u32 = u32::MAX;

const _: () = assert!(SessionId::MAX_BYTES < NO_ID as usize);

impl Key {
    /// Returns the time of the last update, or `None` if it is unknown.
    pub(super) fn updated(&self) -> Option<Millis> {
        (self.time_ms != i64::MIN).then_some(Millis(self.time_ms))
    }

    /// Returns the index of the row in the buffer, if it is there.
    pub(super) fn row(&self) -> Option<usize> {
        (self.row != NOT_BUFFERED).then_some(self.row as usize)
    }
}

impl Keys {
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.ids.clear();
    }

    /// Adds the key of a row. `row` is its index in the buffer, if it is there.
    pub(super) fn push(
        &mut self,
        table: u8,
        rowid: i64,
        time: Option<Millis>,
        id: Option<&[u8]>,
        is_wanted: bool,
        row: Option<usize>,
    ) {
        self.keys.push(Key {
            time_ms: time.map_or(i64::MIN, |time| time.0),
            rowid,
            // 4 GiB of ids are far more rows than a listing may have.
            id_offset: u32::try_from(self.ids.len()).unwrap_or(u32::MAX),
            id_len_bytes: id.map_or(NO_ID, |id| u16::try_from(id.len()).unwrap_or(NO_ID)),
            table,
            is_wanted,
            row: row
                .and_then(|row| u32::try_from(row).ok())
                .unwrap_or(NOT_BUFFERED),
        });
        self.ids.extend_from_slice(id.unwrap_or_default());
    }

    /// Adds the keys that a statement of [`keys_sql`] selects, at most `limit`. Returns the last
    /// rowid, or `None` if there are no keys.
    pub(super) fn read(
        &mut self,
        table: u8,
        mut rows: Rows<'_>,
        limit: usize,
    ) -> rusqlite::Result<Option<i64>> {
        let mut last = None;
        for _ in 0..limit {
            let Some(row) = rows.next()? else { break };
            let id = match row.get_ref(2)? {
                ValueRef::Text(id) => Some(id),
                _ => None,
            };
            let (rowid, time) = (row.get(0)?, to_millis(row.get_ref(1)?));
            self.push(table, rowid, time, id, row.get(3)?, None);
            last = Some(rowid);
        }
        Ok(last)
    }

    /// Returns the id of a key, if it is a text of UTF-8.
    pub(super) fn id(&self, key: &Key) -> Option<&str> {
        std::str::from_utf8(id_of(&self.ids, key)?).ok()
    }

    /// Keeps the newest of the rows with the same id, drops those that the filter
    /// rejects, and sorts the rest. Returns the number of duplicates within a table.
    ///
    /// A unique index does not rule out duplicates, since it can be damaged.
    pub(super) fn sort(&mut self) -> u64 {
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
