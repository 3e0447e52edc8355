//! The sessions of a database, one by one.
//!
//! Two steps: the keys of all rows that count (rowid, time, id), sorted here so that
//! SQLite needs no temporary file (24 bytes and the id for each), then each row by its
//! rowid. So rows stream in their order, and memory does not follow the size of cells:
//! one larger than 64 KiB is not loaded but read from its start.
//!
//! OpenCode 1 keeps sessions in the table `session`, OpenCode 2 in `session_v2`.
//! One file can have both, and a session can be in both: the newer row is the
//! session, that of `session_v2` where they are equally new. So the filter comes
//! after: what was archived since in one table is not listed out of the other. What was
//! deleted in OpenCode 2 is not listed out of `session` either ([`super::deleted`]).

use std::cmp::Reverse;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::degraded::DegradedParts;
use super::row::{RowQuery, has_text, has_time, millis, time_updated};
use super::schema::Schema;
use super::sessions::{SessionQuery, Sessions};
use super::{StoreError, quoted};
use crate::session::{Millis, Session, SessionId};
use crate::wire::Skipped;

/// Which sessions to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Children too, not just roots.
    pub children: bool,
    /// Archived ones too.
    pub archived: bool,
}

/// What a listing of rows was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// The tables' names.
    pub tables: Vec<String>,
    /// One of them has no `parent_id`: its sessions were all taken for roots.
    pub flat: bool,
    /// What was left out or cut.
    pub skipped: Skipped,
    /// What could not be read.
    pub degraded: DegradedParts,
}

/// The SQL of a listing, made for one schema.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    sessions: SessionQuery<'a>,
    /// Of each table of sessions.
    keys: Vec<String>,
}

impl<'a> Query<'a> {
    /// The SQL for the tables of sessions in `schema`; `None` where there are none.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError::Schema`] for a table whose rows cannot be told apart and
    /// named.
    pub fn new(schema: &'a Schema, filter: Filter) -> Result<Option<Self>, StoreError> {
        let sessions = SessionQuery::new(schema)?;
        let is_alone = sessions.tables.len() == 1;
        let keys = sessions
            .tables
            .iter()
            .map(|rows| keys_of(rows, filter, is_alone));
        let keys: Vec<_> = keys.collect();
        Ok((!keys.is_empty()).then_some(Self { sessions, keys }))
    }

    /// Each statement's SQL, with a name for it.
    #[must_use]
    pub fn statements(&self) -> Vec<(&'static str, &str)> {
        let keys = self.keys.iter().map(|sql| ("keys", sql.as_str()));
        keys.chain(self.sessions.statements()).collect()
    }

    /// Hands the sessions to `sink`, newest activity first, ties by id, with first
    /// prompts of at most `prompt_limit` characters. It sets every field but `marked`.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails or `sink` does.
    pub fn run<E: From<StoreError>>(
        &self,
        conn: &Connection,
        prompt_limit: usize,
        mut sink: impl FnMut(Session) -> Result<(), E>,
    ) -> Result<Listed, E> {
        let store = |error: rusqlite::Error| E::from(StoreError::from(error));
        let tables = || self.sessions.tables.iter().map(|rows| rows.table);
        let mut listed = Listed {
            tables: tables().map(|table| table.name.clone()).collect(),
            flat: tables().any(|table| !table.has("parent_id")),
            ..Listed::default()
        };
        let mut keys = Keys::default();
        for (place, sql) in (0..).zip(&self.keys) {
            keys.read(conn, place, sql).map_err(store)?;
        }
        listed.skipped.duplicate_id = keys.sort();
        let mut sessions = Sessions::new(conn, &self.sessions, prompt_limit).map_err(store)?;
        for key in &keys.keys {
            let table = usize::from(key.place);
            if let Some(id) = keys.id(key)
                && sessions.is_deleted(table, id, key.updated().map(Millis))
            {
                continue;
            }
            let session = sessions.session(table, key.rowid).map_err(store)?;
            let Some((session, truncated)) = session else {
                listed.skipped.invalid_id += 1;
                continue;
            };
            // One that is there and could not be read is no reason to leave it out.
            let has_none = session.directory.is_none() && truncated == 0;
            if has_none && self.sessions.tables[table].table.has("directory") {
                continue;
            }
            listed.skipped.truncated += truncated;
            sink(session)?;
        }
        listed.degraded = sessions.degraded;
        Ok(listed)
    }
}

/// The select of the keys of a table: all of them if rows of another table can hide
/// them, else those that are wanted.
fn keys_of(rows: &RowQuery<'_>, filter: Filter, is_alone: bool) -> String {
    let (table, rowid) = (rows.table, rows.rowid);
    let mut wanted = vec!["1".to_owned()];
    if table.has("parent_id") && !filter.children {
        wanted.push(format!("NOT {}", has_text("parent_id")));
    }
    if table.has("time_archived") && !filter.archived {
        wanted.push(format!("NOT {}", has_time("time_archived")));
    }
    if table.has("directory") {
        // A session without a directory belongs nowhere in a list.
        wanted.push(has_text("directory"));
    }
    let wanted = wanted.join(" AND ");
    let which = if is_alone {
        format!(" WHERE {wanted}")
    } else {
        String::new()
    };
    format!(
        "SELECT s.{rowid}, {}, CASE WHEN octet_length(s.id) <= {} THEN s.id END, ({wanted}) \
         FROM {} AS s NOT INDEXED{which}",
        time_updated(table),
        SessionId::MAX_BYTES,
        quoted(&table.name)
    )
}

/// The keys of rows, in 24 bytes each, and their ids one after the other.
#[derive(Default)]
struct Keys {
    keys: Vec<Key>,
    ids: Vec<u8>,
}

struct Key {
    /// In milliseconds since 1970; the least where it is not known, which sorts last.
    time: i64,
    rowid: i64,
    /// Where its id begins.
    id_at: u32,
    /// [`NO_ID`] where it has none.
    id_len: u16,
    /// Which table.
    place: u8,
    is_wanted: bool,
}

/// The length of an id that is not a text.
const NO_ID: u16 = u16::MAX;

const _: () = assert!(SessionId::MAX_BYTES < NO_ID as usize);

impl Key {
    fn updated(&self) -> Option<i64> {
        (self.time != i64::MIN).then_some(self.time)
    }
}

impl Keys {
    fn read(&mut self, conn: &Connection, place: u8, sql: &str) -> rusqlite::Result<()> {
        let mut rows = conn.prepare(sql)?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let id = match row.get_ref(2)? {
                ValueRef::Text(id) => Some(id),
                _ => None,
            };
            self.keys.push(Key {
                time: millis(row.get_ref(1)?).map_or(i64::MIN, |time| time.0),
                rowid: row.get(0)?,
                // 4 GiB of ids are more rows than a listing may have by far.
                id_at: u32::try_from(self.ids.len()).unwrap_or(u32::MAX),
                id_len: id.map_or(NO_ID, |id| u16::try_from(id.len()).unwrap_or(NO_ID)),
                place,
                is_wanted: row.get(3)?,
            });
            self.ids.extend_from_slice(id.unwrap_or_default());
        }
        Ok(())
    }

    fn id(&self, key: &Key) -> Option<&str> {
        std::str::from_utf8(id_of(&self.ids, key)?).ok()
    }

    /// Keeps of rows with the same id the newest, of those the ones that are wanted, and
    /// puts them in order. Returns how many duplicates there were within a table.
    ///
    /// A unique index is no promise: it can be damaged.
    fn sort(&mut self) -> u64 {
        let Self { keys, ids } = self;
        let newest_first = |key: &Key| (Reverse(key.time), Reverse(key.place), key.rowid);
        keys.sort_unstable_by(|a, b| {
            let by_id = id_of(ids, a).cmp(&id_of(ids, b));
            by_id.then_with(|| newest_first(a).cmp(&newest_first(b)))
        });
        let mut duplicates = 0;
        let mut first: Option<(u32, u16, u8)> = None;
        keys.retain(|key| {
            let is_repeated = first
                .filter(|(at, len, _)| *len != NO_ID && slice(ids, *at, *len) == id_of(ids, key));
            match is_repeated {
                Some((.., place)) => {
                    // In the other table it is the same session.
                    duplicates += u64::from(key.is_wanted && key.place == place);
                    false
                }
                None => {
                    first = Some((key.id_at, key.id_len, key.place));
                    key.is_wanted
                }
            }
        });
        // OpenCode's ids descend with time: where no time is known, the newest comes
        // first, too.
        keys.sort_unstable_by(|a, b| {
            let by_time = b.time.cmp(&a.time);
            by_time
                .then_with(|| id_of(ids, a).cmp(&id_of(ids, b)))
                .then_with(|| newest_first(a).cmp(&newest_first(b)))
        });
        duplicates
    }
}

fn id_of<'i>(ids: &'i [u8], key: &Key) -> Option<&'i [u8]> {
    slice(ids, key.id_at, key.id_len)
}

fn slice(ids: &[u8], at: u32, len: u16) -> Option<&[u8]> {
    (len != NO_ID).then(|| ids.get(at as usize..at as usize + usize::from(len)))?
}
