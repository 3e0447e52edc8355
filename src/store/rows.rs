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

use super::activity::{Activity, newest_message};
use super::cell_limit::CellLimit;
use super::prompt::{PromptQuery, Prompts};
use super::row::{RowQuery, Rows, WHOLE_CELL, id, number};
use super::schema::{Schema, Table};
use super::{StoreError, quoted};
use crate::session::{Session, SessionId, Store};
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
    /// In the order of [`STORES`].
    tables: Vec<RowQuery<'a>>,
    /// No two rows have the same id.
    unique: bool,
    keys: String,
    newest: Vec<String>,
    prompts: PromptQuery,
}

/// The tables of sessions.
pub(crate) const STORES: [(&str, Store); 2] = [("session", Store::V1), ("session_v2", Store::V2)];

impl<'a> Query<'a> {
    /// The SQL for the tables of sessions in `schema`; `None` where there are none.
    ///
    /// # Errors
    ///
    /// Where a table is not one whose rows can be told apart and named.
    pub fn new(schema: &'a Schema, filter: Filter) -> Result<Option<Self>, StoreError> {
        let mut tables = Vec::new();
        let mut keys = Vec::new();
        for found in session_tables(schema) {
            let (table, rowid, store) = found?;
            keys.push(keys_of(table, tables.len(), rowid, filter));
            tables.push(RowQuery::new(schema, table, store, rowid));
        }
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
            tables,
            keys,
            newest: newest_message(schema),
            prompts: PromptQuery::new(schema),
        }))
    }

    /// Each statement's SQL, with a name for it.
    #[must_use]
    pub fn statements(&self) -> Vec<(&'static str, &str)> {
        let mut all = vec![("keys", self.keys.as_str())];
        for table in &self.tables {
            all.push(("row", &table.row));
            all.push(("row with a large cell", &table.large_row));
        }
        all.extend(self.newest.iter().map(|sql| ("newest message", &**sql)));
        all.extend(self.prompts.statements().map(|sql| ("first prompt", sql)));
        all
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
        let mut listed = Listed {
            tables: self
                .tables
                .iter()
                .map(|rows| rows.table.name.clone())
                .collect(),
            flat: self.tables.iter().any(|rows| !rows.table.has("parent_id")),
            skipped: Skipped::default(),
        };
        let mut keys = conn.prepare(&self.keys).map_err(store)?;
        let rows = self.tables.iter().map(|query| Rows::new(query, conn));
        let mut rows = rows.collect::<Result<Vec<_>, _>>().map_err(store)?;
        let mut activity = Activity::new(conn, &self.newest).map_err(store)?;
        let mut prompts = Prompts::new(conn, &self.prompts).map_err(store)?;
        let limit = CellLimit::new(conn, WHOLE_CELL).map_err(store)?;
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
            let session = rows[place].session(rowid, &limit).map_err(store)?;
            let Some((mut session, truncated)) = session else {
                listed.skipped.invalid_id += 1;
                continue;
            };
            listed.skipped.truncated += truncated;
            session.last_message_at = activity.of(&session.id).map_err(store)?;
            if session.untitled {
                session.first_prompt = prompts.of(&session.id);
            }
            sink(session)?;
        }
        Ok(listed)
    }
}

/// The tables of sessions in `schema` with the names of their rowids; an error where
/// one of them cannot be read, since a list without it would be shorter.
pub(super) fn session_tables(
    schema: &Schema,
) -> impl Iterator<Item = Result<(&Table, &'static str, Store), StoreError>> {
    let tables = STORES.into_iter();
    let tables = tables.filter_map(|(name, store)| Some((schema.table(name)?, store)));
    tables.map(|(table, store)| {
        let name = quoted(&table.name);
        let Some(rowid) = table.rowid() else {
            return Err(StoreError::Schema(format!(
                "{name} is no ordinary table with a rowid"
            )));
        };
        if !table.has("id") {
            return Err(StoreError::Schema(format!("{name} has no column id")));
        }
        Ok((table, rowid, store))
    })
}

/// The select of the keys of a table, and which of them are wanted.
fn keys_of(table: &Table, place: usize, rowid: &str, filter: Filter) -> (String, String) {
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
    let time = if table.has("time_updated") {
        number("time_updated")
    } else {
        "NULL".to_owned()
    };
    let select = format!(
        "SELECT {place} AS place, s.{rowid}, \
         CASE WHEN octet_length(s.id) <= {} THEN s.id END COLLATE BINARY AS id, \
         ({wanted}), {time} AS time FROM {} AS s",
        SessionId::MAX_BYTES,
        quoted(&table.name)
    );
    (select, wanted)
}
