//! The sessions of a database, one by one.
//!
//! Two steps: the keys (rowids, newest activity first) from SQLite's sorter,
//! which spills to disk when there are many, then each row by its rowid. So
//! rows stream in their order, and memory does not follow the size of cells: one
//! larger than 64 KiB is not loaded but read from its start.
//!
//! OpenCode 1 keeps sessions in the table `session`, OpenCode 2 in `session_v2`.
//! One file can have both, and a session can be in both: the newer row is the
//! session, that of `session_v2` where they are equally new. So the filter comes
//! after: what was archived since in one table is not listed out of the other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::Connection;

use super::row::{RowQuery, id, time_updated};
use super::schema::Schema;
use super::sessions::{SessionQuery, Sessions};
use super::{StoreError, quoted};
use crate::session::{Session, SessionId};
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
}

/// The SQL of a listing, made for one schema.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    sessions: SessionQuery<'a>,
    /// No two rows have the same id.
    unique: bool,
    keys: String,
}

impl<'a> Query<'a> {
    /// The SQL for the tables of sessions in `schema`; `None` where there are none.
    ///
    /// # Errors
    ///
    /// Where a table is not one whose rows can be told apart and named.
    pub fn new(schema: &'a Schema, filter: Filter) -> Result<Option<Self>, StoreError> {
        let sessions = SessionQuery::new(schema)?;
        let tables = &sessions.tables;
        let keys = tables.iter().enumerate();
        let keys: Vec<_> = keys
            .map(|(place, rows)| keys_of(rows, place, filter))
            .collect();
        let keys = match &keys[..] {
            [] => return Ok(None),
            [(select, wanted)] => format!("{select} WHERE {wanted}"),
            _ => {
                let selects: Vec<_> = keys.into_iter().map(|(select, _)| select).collect();
                selects.join(" UNION ALL ")
            }
        };
        // OpenCode's ids descend with time: where no time is known, the newest comes
        // first too.
        let keys = format!("{keys} ORDER BY time DESC, id, place DESC");
        Ok(Some(Self {
            // Texts that differ in UTF-16 can be the same once they are UTF-8.
            unique: schema.utf8 && tables.len() == 1 && tables[0].table.is_unique("id"),
            sessions,
            keys,
        }))
    }

    /// Each statement's SQL, with a name for it.
    #[must_use]
    pub fn statements(&self) -> Vec<(&'static str, &str)> {
        let keys = [("keys", self.keys.as_str())];
        keys.into_iter().chain(self.sessions.statements()).collect()
    }

    /// Hands the sessions to `sink`, newest activity first, ties by id. It sets
    /// every field but `marked`.
    ///
    /// # Errors
    ///
    /// Where SQLite fails, or `sink` does.
    pub fn run<E: From<StoreError>>(
        &self,
        conn: &Connection,
        mut sink: impl FnMut(Session) -> Result<(), E>,
    ) -> Result<Listed, E> {
        let store = |error: rusqlite::Error| E::from(StoreError::from(error));
        let tables = || self.sessions.tables.iter().map(|rows| rows.table);
        let mut listed = Listed {
            tables: tables().map(|table| table.name.clone()).collect(),
            flat: tables().any(|table| !table.has("parent_id")),
            skipped: Skipped::default(),
        };
        let mut keys = conn.prepare(&self.keys).map_err(store)?;
        let mut sessions = Sessions::new(conn, &self.sessions).map_err(store)?;
        let mut seen: HashMap<SessionId, usize> = HashMap::new();
        let mut keys = keys.query([]).map_err(store)?;
        while let Some(key) = keys.next().map_err(store)? {
            let place = usize::from(key.get::<_, u8>(0).map_err(store)?);
            let rowid = key.get(1).map_err(store)?;
            let is_wanted: bool = key.get(3).map_err(store)?;
            // Newest first, so the first of several is the one to keep. Where
            // the database promises that there are none, nothing is remembered.
            if !self.unique
                && let Some(id) = id(key.get_ref(2).map_err(store)?)
            {
                match seen.entry(id) {
                    Entry::Vacant(new) => drop(new.insert(place)),
                    Entry::Occupied(first) => {
                        // In the other table it is the same session.
                        listed.skipped.duplicate_id +=
                            u64::from(is_wanted && *first.get() == place);
                        continue;
                    }
                }
            }
            if !is_wanted {
                continue;
            }
            let session = sessions.session(place, rowid).map_err(store)?;
            let Some((session, truncated)) = session else {
                listed.skipped.invalid_id += 1;
                continue;
            };
            listed.skipped.truncated += truncated;
            sink(session)?;
        }
        Ok(listed)
    }
}

/// The select of the keys of a table, and which of them are wanted.
fn keys_of(rows: &RowQuery<'_>, place: usize, filter: Filter) -> (String, String) {
    let (table, rowid) = (rows.table, rows.rowid);
    let mut wanted = vec!["1"];
    if table.has("parent_id") && !filter.children {
        wanted.push("s.parent_id IS NULL");
    }
    if table.has("time_archived") && !filter.archived {
        wanted.push("s.time_archived IS NULL");
    }
    if table.has("directory") {
        // A session without a directory belongs nowhere in a list.
        wanted.push("typeof(s.directory) = 'text' AND octet_length(s.directory) > 0");
    }
    let wanted = wanted.join(" AND ");
    let select = format!(
        "SELECT {place} AS place, s.{rowid}, \
         CASE WHEN octet_length(s.id) <= {} THEN s.id END COLLATE BINARY AS id, \
         ({wanted}), {} AS time FROM {} AS s",
        SessionId::MAX_BYTES,
        time_updated(table),
        quoted(&table.name)
    );
    (select, wanted)
}
