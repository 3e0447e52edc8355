//! Sessions of OpenCode 1 that were deleted in OpenCode 2.
//!
//! OpenCode 2 imports the sessions of the table `session` once, into `session_v2`.
//! Deleting one there takes its row of `session_v2` and its row of `event_sequence`; its
//! row of `session` stays for ever. But OpenCode 1 goes on beside it, and what it makes
//! later is in `session` alone, too. So a session that is not in `session_v2` is deleted
//! if and only if
//!
//! * the import is done (`kv` has `{"phase":"completed"}` as `migration.v1-v2`),
//! * the session was not updated after that, and
//! * `event_sequence` has no row of it: OpenCode 1.17 and later keeps one for each
//!   session.
//!
//! (OpenCode 2.0's importer and projector; verified against databases that 1.18.33
//! continued.) Where one of these cannot be known the session is shown.

use std::collections::HashSet;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Statement};
use serde_json::Value;

use super::row::millis;
use super::schema::{Schema, Table, TableKind};
use super::{StoreError, quoted};
use crate::session::{Millis, SessionId};

/// The importer's row of `kv`.
const IMPORT: &str = "migration.v1-v2";

/// Tells which sessions were deleted, in one snapshot.
pub(super) struct Deleted<'a> {
    completed: Millis,
    in_events: Ids<'a>,
    in_v2: Ids<'a>,
}

/// Without an index so many ids are kept at most, else the rule is not applied.
const MOST: usize = 200_000;

/// The ids in a column.
enum Ids<'a> {
    /// Found by an index.
    Indexed(Statement<'a>),
    /// All of them, where each look-up would read the whole table.
    Loaded(HashSet<Box<[u8]>>),
}

impl<'a> Ids<'a> {
    /// `None` if there are too many to be kept.
    fn of(conn: &'a Connection, table: &Table, column: &str) -> Result<Option<Self>, StoreError> {
        let name = quoted(&table.name);
        if table.index_on(&[column]).is_some() {
            let sql = format!("SELECT 1 FROM {name} WHERE {column} = ?1 LIMIT 1");
            return Ok(Some(Self::Indexed(conn.prepare(&sql)?)));
        }
        let mut all = HashSet::new();
        let mut rows = conn.prepare(&format!(
            "SELECT {column} FROM {name} WHERE octet_length({column}) <= {}",
            SessionId::MAX_BYTES
        ))?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            if let ValueRef::Text(id) = row.get_ref(0)? {
                all.insert(id.into());
            }
            if all.len() > MOST {
                return Ok(None);
            }
        }
        Ok(Some(Self::Loaded(all)))
    }

    fn has(&mut self, id: &str) -> rusqlite::Result<bool> {
        match self {
            Self::Indexed(statement) => statement.exists([id]),
            Self::Loaded(all) => Ok(all.contains(id.as_bytes())),
        }
    }
}

impl<'a> Deleted<'a> {
    /// `None` if no session of OpenCode 1 can be deleted, or that cannot be known.
    pub(super) fn new(conn: &'a Connection, schema: &Schema) -> Result<Option<Self>, StoreError> {
        let (Some(_), Some(v2), Some(kv), Some(events)) = (
            schema.table("session"),
            schema.table("session_v2"),
            schema.table("kv"),
            schema.table("event_sequence"),
        ) else {
            return Ok(None);
        };
        let is_a_table = |table: &Table| !matches!(table.kind, TableKind::Other(_));
        let can_tell = [v2, kv, events].into_iter().all(is_a_table)
            && ["key", "value", "time_updated"]
                .iter()
                .all(|column| kv.has(column))
            && events.has("aggregate_id")
            && v2.has("id");
        if !can_tell {
            return Ok(None);
        }
        let Some(completed) = completed_at(conn, &kv.name)? else {
            return Ok(None);
        };
        let in_events = Ids::of(conn, events, "aggregate_id")?;
        let in_v2 = Ids::of(conn, v2, "id")?;
        Ok(in_events.zip(in_v2).map(|(in_events, in_v2)| Self {
            completed,
            in_events,
            in_v2,
        }))
    }

    /// True if the session of this row of `session` was deleted.
    pub(super) fn has(&mut self, id: &str, updated: Option<Millis>) -> rusqlite::Result<bool> {
        if updated.is_none_or(|updated| updated > self.completed) {
            return Ok(false);
        }
        Ok(!self.in_events.has(id)? && !self.in_v2.has(id)?)
    }
}

/// When the import was completed; `None` if it was not.
fn completed_at(conn: &Connection, kv: &str) -> Result<Option<Millis>, StoreError> {
    let mut row = conn.prepare(&format!(
        "SELECT CASE WHEN octet_length(value) <= 4096 THEN value END, time_updated \
         FROM {} WHERE key = ?1",
        quoted(kv)
    ))?;
    let found = row
        .query_row([IMPORT], |row| {
            let import: Option<Value> = match row.get_ref(0)? {
                ValueRef::Text(json) => serde_json::from_slice(json).ok(),
                _ => None,
            };
            let is_completed = import.is_some_and(|import| import["phase"] == "completed");
            Ok(millis(row.get_ref(1)?).filter(|_| is_completed))
        })
        .optional()?;
    Ok(found.flatten())
}
