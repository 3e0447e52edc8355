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
use std::hash::{DefaultHasher, Hash, Hasher};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};
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

/// The ids in a column, as hashes: two ids with the same one make a session shown.
struct Ids<'a> {
    conn: &'a Connection,
    sql: String,
    known: Option<HashSet<u64>>,
}

impl<'a> Ids<'a> {
    fn of(conn: &'a Connection, table: &Table, column: &str) -> Self {
        // An index could be damaged and lack the row that keeps a session.
        let sql = format!("SELECT {column} FROM {} NOT INDEXED", quoted(&table.name));
        Self {
            conn,
            sql: format!(
                "{sql} WHERE octet_length({column}) <= {}",
                SessionId::MAX_BYTES
            ),
            known: None,
        }
    }

    fn has(&mut self, id: &str) -> rusqlite::Result<bool> {
        let known = match &mut self.known {
            Some(known) => known,
            // Read once, and only where a session could be deleted.
            none => none.insert(read(self.conn, &self.sql)?),
        };
        Ok(known.contains(&hash(id.as_bytes())))
    }
}

fn read(conn: &Connection, sql: &str) -> rusqlite::Result<HashSet<u64>> {
    let mut all = HashSet::new();
    let mut rows = conn.prepare(sql)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        if let ValueRef::Text(id) = row.get_ref(0)? {
            all.insert(hash(id));
        }
    }
    Ok(all)
}

fn hash(id: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
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
        Ok(Some(Self {
            completed,
            in_events: Ids::of(conn, events, "aggregate_id"),
            in_v2: Ids::of(conn, v2, "id"),
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
