//! The keys of rows: what decides which sessions are listed and in which order.

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rusqlite::Rows;
use rusqlite::types::ValueRef;

use super::quote_identifier;
use super::row::{RowQuery, non_blank_text_expr, time_set_expr, time_updated_expr};
use super::value::to_millis;
use crate::session::{Millis, SessionId};

/// The sessions to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whether to include subagents, not only roots.
    pub children: bool,
    /// Whether to include archived sessions.
    pub archived: bool,
}

/// Returns the SQL conditions of a filter. The columns that can reject a row are null in most
/// rows, and comparing with null calls no function.
pub(super) fn filter_conditions(rows: &RowQuery<'_>, filter: Filter) -> Vec<String> {
    let mut wanted = vec!["1".to_owned()];
    let mut reject = |column: &str, condition: String| {
        if rows.table.has_column(column) {
            wanted.push(format!("(s.{column} IS NULL OR NOT {condition})"));
        }
    };
    if !filter.children {
        reject("parent_id", non_blank_text_expr("parent_id"));
    }
    if !filter.archived {
        reject("time_archived", time_set_expr("time_archived"));
    }
    wanted
}

/// Builds the SQL that selects the keys of a table: all keys if rows of another table can
/// hide them, else only those that the filter accepts. Only rows in `range` are selected.
pub(super) fn keys_sql(
    rows: &RowQuery<'_>,
    filter: Filter,
    is_only_table: bool,
    range: RowRange,
) -> String {
    let (table, rowid) = (rows.table, rows.rowid);
    let mut wanted = filter_conditions(rows, filter);
    if table.has_column("directory") {
        // A session without a directory is not listed.
        wanted.push(non_blank_text_expr("directory"));
    }
    let wanted = wanted.join(" AND ");
    let condition = if is_only_table { &wanted } else { "1" };
    let range = range.condition(rowid);
    format!(
        "SELECT s.{rowid}, {}, CASE WHEN octet_length(s.id) <= {} THEN s.id END, ({wanted}) \
         FROM {} AS s NOT INDEXED WHERE {condition}{range}",
        time_updated_expr(table),
        SessionId::MAX_BYTES,
        quote_identifier(&table.name)
    )
}

/// The rows that a statement reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowRange {
    /// All of the table, even if the order of the rows is damaged.
    All,
    /// Those with at least this rowid, the only parameter of the statement.
    From,
    /// That with this rowid, the only parameter of the statement.
    Only,
}

impl RowRange {
    /// Returns a condition to add to those of a statement, and the order of its rows.
    pub(super) fn condition(self, rowid: &str) -> String {
        match self {
            Self::All => String::new(),
            Self::From => format!(" AND s.{rowid} >= ?1 ORDER BY s.{rowid}"),
            Self::Only => format!(" AND s.{rowid} = ?1"),
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
    pub(super) line: KeyLine,
}

/// Marks a key whose id is not a text.
const NO_ID: u16 = u16::MAX;

/// The line of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyLine {
    /// The line is known and has this index.
    Known(u32),
    /// The row is not read yet.
    Unread,
    /// Only a statement for rows with odd cells can read the row.
    Odd,
}

const _: () = assert!(SessionId::MAX_BYTES < NO_ID as usize);

impl Key {
    /// Returns the time of the last update, or `None` if it is unknown.
    pub(super) fn updated(&self) -> Option<Millis> {
        (self.time_ms != i64::MIN).then_some(Millis(self.time_ms))
    }
}

impl Keys {
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.ids.clear();
    }

    /// Adds the key of a row.
    pub(super) fn push(
        &mut self,
        table: u8,
        rowid: i64,
        time: Option<Millis>,
        id: Option<&[u8]>,
        is_wanted: bool,
        line: KeyLine,
    ) {
        self.keys.push(Key {
            time_ms: time.map_or(i64::MIN, |time| time.0),
            rowid,
            // 4 GiB of ids are far more rows than a listing may have.
            id_offset: u32::try_from(self.ids.len()).unwrap_or(u32::MAX),
            id_len_bytes: id.map_or(NO_ID, |id| u16::try_from(id.len()).unwrap_or(NO_ID)),
            table,
            is_wanted,
            line,
        });
        self.ids.extend_from_slice(id.unwrap_or_default());
    }

    /// Adds the keys that a statement of [`keys_sql`] selects, at most `limit`, all with this
    /// line. Returns the last rowid, or `None` if there are no keys.
    pub(super) fn read(
        &mut self,
        table: u8,
        mut rows: Rows<'_>,
        limit: usize,
        line: KeyLine,
    ) -> rusqlite::Result<Option<i64>> {
        let mut last = None;
        for _ in 0..limit {
            let Some(row) = rows.next()? else { break };
            let id = match row.get_ref(2)? {
                ValueRef::Text(id) => Some(id),
                _ => None,
            };
            let (rowid, time) = (row.get(0)?, to_millis(row.get_ref(1)?));
            self.push(table, rowid, time, id, row.get(3)?, line);
            last = Some(rowid);
        }
        Ok(last)
    }

    /// Returns the id of a key, if it is a text of UTF-8.
    pub(super) fn id(&self, key: &Key) -> Option<&str> {
        std::str::from_utf8(id_of(&self.ids, key)?).ok()
    }

    /// Sorts the keys, keeps the newest of the rows with the same id, and drops those that
    /// the filter rejects. Returns the number of duplicates within a table.
    ///
    /// A unique index does not rule out duplicates, since it can be damaged.
    pub(super) fn sort(&mut self) -> u64 {
        let Self { keys, ids } = self;
        // Few times are equal, and comparing times alone is faster.
        keys.sort_unstable_by_key(|key| Reverse(key.time_ms));
        // OpenCode's ids descend with time, so that rows with an unknown time are sorted
        // newest first too.
        for equal in keys.chunk_by_mut(|a, b| a.time_ms == b.time_ms) {
            equal.sort_unstable_by(|a, b| {
                let by_id = id_of(ids, a).cmp(&id_of(ids, b));
                by_id.then_with(|| (b.table, a.rowid).cmp(&(a.table, b.rowid)))
            });
        }
        let mut duplicates = 0;
        // Of each id the index of its first row, which is the newest.
        let mut first_rows: HashTable<u32> = HashTable::with_capacity(keys.len());
        let hashes = RandomState::new();
        for index in 0..keys.len() {
            let Some(id) = id_of(ids, &keys[index]) else {
                continue;
            };
            let id_at = |at: u32| id_of(ids, &keys[at as usize]);
            let entry = first_rows.entry(
                hashes.hash_one(id),
                |first| id_at(*first) == Some(id),
                |first| hashes.hash_one(id_at(*first).unwrap_or_default()),
            );
            match entry {
                Entry::Occupied(first) => {
                    let first = *first.get() as usize;
                    // Rows in different tables are the same session, not duplicates.
                    let key = &keys[index];
                    duplicates += u64::from(key.is_wanted && key.table == keys[first].table);
                    keys[index].is_wanted = false;
                }
                Entry::Vacant(new) => {
                    // 4 billion rows are far more than a listing may have.
                    new.insert(u32::try_from(index).unwrap_or(u32::MAX));
                }
            }
        }
        keys.retain(|key| key.is_wanted);
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
