//! Sessions of OpenCode 1 that were deleted in OpenCode 2.
//!
//! OpenCode 2 imports the sessions of the table `session` once, into `session_v2`.
//! Deleting a session there removes its rows of `session_v2` and `event_sequence`; its
//! row of `session` stays for ever. But OpenCode 1 can still be used, and its later
//! sessions are in `session` alone too. So a session that is not in `session_v2` is
//! deleted if and only if
//!
//! * the import is complete (`kv` has `{"phase":"completed"}` as `migration.v1-v2`),
//! * the session was not updated after that, and
//! * `event_sequence` has no row of it: OpenCode 1.17 and later keeps one for each
//!   session.
//!
//! Sources: the importer and projector of OpenCode 2.0, and databases that 1.18.33 went
//! on using. A session for which one of these conditions is unknown is shown.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;

use super::schema::{Schema, Table, TableKind};
use super::value::to_millis;
use super::{StoreError, quote_identifier};
use crate::session::{Millis, SessionId};

/// The key of the importer's row in `kv`.
const IMPORT_KEY: &str = "migration.v1-v2";

/// Finds deleted sessions in one snapshot.
pub(super) struct DeletedSessions<'a> {
    import_completed_at: Millis,
    event_ids: IdHashes<'a>,
    v2_ids: IdHashes<'a>,
}

/// The ids in a column, as hashes. A hash collision can only cause a deleted session to
/// be shown.
struct IdHashes<'a> {
    conn: &'a Connection,
    sql: String,
    hashes: Option<HashSet<u64>>,
}

impl<'a> IdHashes<'a> {
    fn new(conn: &'a Connection, table: &Table, column: &str) -> Self {
        // A damaged index could lack the row that shows that a session exists.
        let sql = format!(
            "SELECT {column} FROM {} NOT INDEXED",
            quote_identifier(&table.name)
        );
        Self {
            conn,
            sql: format!(
                "{sql} WHERE octet_length({column}) <= {}",
                SessionId::MAX_BYTES
            ),
            hashes: None,
        }
    }

    fn contains(&mut self, id: &str) -> rusqlite::Result<bool> {
        let hashes = match &mut self.hashes {
            Some(hashes) => hashes,
            // Read at most once, and only if a session may be deleted.
            none => none.insert(read_id_hashes(self.conn, &self.sql)?),
        };
        Ok(hashes.contains(&hash(id.as_bytes())))
    }
}

fn read_id_hashes(conn: &Connection, sql: &str) -> rusqlite::Result<HashSet<u64>> {
    let mut hashes = HashSet::new();
    let mut rows = conn.prepare(sql)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        if let ValueRef::Text(id) = row.get_ref(0)? {
            hashes.insert(hash(id));
        }
    }
    Ok(hashes)
}

fn hash(id: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

impl<'a> DeletedSessions<'a> {
    /// Returns `None` if no session of OpenCode 1 can be deleted, or if this cannot be
    /// determined.
    pub(super) fn new(conn: &'a Connection, schema: &Schema) -> Result<Option<Self>, StoreError> {
        let (Some(_), Some(v2), Some(kv), Some(events)) = (
            schema.table("session"),
            schema.table("session_v2"),
            schema.table("kv"),
            schema.table("event_sequence"),
        ) else {
            return Ok(None);
        };
        let is_real_table = |table: &Table| !matches!(table.kind, TableKind::Other(_));
        let is_supported = [v2, kv, events].into_iter().all(is_real_table)
            && ["key", "value", "time_updated"]
                .iter()
                .all(|column| kv.has_column(column))
            && events.has_column("aggregate_id")
            && v2.has_column("id");
        if !is_supported {
            return Ok(None);
        }
        let Some(import_completed_at) = import_completed_at(conn, &kv.name)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            import_completed_at,
            event_ids: IdHashes::new(conn, events, "aggregate_id"),
            v2_ids: IdHashes::new(conn, v2, "id"),
        }))
    }

    /// Returns true if the session with this row in `session` was deleted.
    pub(super) fn contains(&mut self, id: &str, updated: Option<Millis>) -> rusqlite::Result<bool> {
        if updated.is_none_or(|updated| updated > self.import_completed_at) {
            return Ok(false);
        }
        Ok(!self.event_ids.contains(id)? && !self.v2_ids.contains(id)?)
    }
}

/// Returns when the import was completed, or `None` if it was not.
fn import_completed_at(conn: &Connection, kv: &str) -> Result<Option<Millis>, StoreError> {
    let mut statement = conn.prepare(&format!(
        "SELECT CASE WHEN octet_length(value) <= 4096 THEN value END, time_updated \
         FROM {} WHERE key = ?1",
        quote_identifier(kv)
    ))?;
    let completed_at = statement
        .query_row([IMPORT_KEY], |row| {
            let import: Option<Value> = match row.get_ref(0)? {
                ValueRef::Text(json) => serde_json::from_slice(json).ok(),
                _ => None,
            };
            let is_completed = import.is_some_and(|import| import["phase"] == "completed");
            Ok(to_millis(row.get_ref(1)?).filter(|_| is_completed))
        })
        .optional()?;
    Ok(completed_at.flatten())
}
