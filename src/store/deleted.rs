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

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Statement};
use serde::Deserialize;

use super::row::millis;
use super::schema::Schema;
use super::{StoreError, quoted};
use crate::session::Millis;

/// The importer's row of `kv`.
const IMPORT: &str = "migration.v1-v2";

/// Tells which sessions were deleted, in one snapshot.
pub(super) struct Deleted<'a> {
    completed: Millis,
    in_events: Statement<'a>,
    in_v2: Statement<'a>,
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
        // Without these indexes each session would read a whole table.
        let can_tell = kv.has("key")
            && kv.has("value")
            && kv.has("time_updated")
            && events.index_on(&["aggregate_id"]).is_some()
            && v2.index_on(&["id"]).is_some();
        if !can_tell {
            return Ok(None);
        }
        let Some(completed) = completed_at(conn, &kv.name)? else {
            return Ok(None);
        };
        let has = |table: &str, column: &str| {
            conn.prepare(&format!(
                "SELECT 1 FROM {} WHERE {column} = ?1 LIMIT 1",
                quoted(table)
            ))
        };
        Ok(Some(Self {
            completed,
            in_events: has(&events.name, "aggregate_id")?,
            in_v2: has(&v2.name, "id")?,
        }))
    }

    /// True if the session of this row of `session` was deleted.
    pub(super) fn has(&mut self, id: &str, updated: Option<Millis>) -> rusqlite::Result<bool> {
        if updated.is_none_or(|updated| updated > self.completed) {
            return Ok(false);
        }
        Ok(!self.in_events.exists([id])? && !self.in_v2.exists([id])?)
    }
}

/// When the import was completed; `None` if it was not.
fn completed_at(conn: &Connection, kv: &str) -> Result<Option<Millis>, StoreError> {
    #[derive(Deserialize)]
    struct Import {
        phase: String,
    }
    let mut row = conn.prepare(&format!(
        "SELECT CASE WHEN octet_length(value) <= 4096 THEN value END, time_updated \
         FROM {} WHERE key = ?1",
        quoted(kv)
    ))?;
    let found = row
        .query_row([IMPORT], |row| {
            let import: Option<Import> = match row.get_ref(0)? {
                ValueRef::Text(json) => serde_json::from_slice(json).ok(),
                _ => None,
            };
            let is_completed = import.is_some_and(|import| import.phase == "completed");
            Ok(millis(row.get_ref(1)?).filter(|_| is_completed))
        })
        .optional()?;
    Ok(found.flatten())
}
