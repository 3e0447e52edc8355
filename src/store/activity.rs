//! The time of a session's newest message, for tables with an index that finds it by a
//! seek.

use rusqlite::{Connection, OptionalExtension};

use super::cell_limit::{CellLimit, LazyStatement};
use super::degraded::DegradedParts;
use super::value::to_millis;
use super::{Schema, quote_identifier};
use crate::session::Millis;
use crate::wire::OptionalPart;

/// Builds the SQL that finds the time of the newest message of the session with this id, for
/// each table with an index that makes this a seek.
pub(super) fn newest_message_sql(schema: &Schema, id: &str) -> Vec<String> {
    ["message", "session_message"]
        .iter()
        .filter_map(|name| schema.table(name))
        .filter_map(|table| {
            let index = table.index_on(&["session_id", "time_created"])?;
            let (name, index) = (quote_identifier(&table.name), quote_identifier(&index.name));
            // `typeof` loads nothing.
            Some(format!(
                "SELECT time_created FROM {name} INDEXED BY {index} WHERE session_id = {id} \
                 AND typeof(time_created) IN ('integer', 'real') \
                 ORDER BY time_created DESC LIMIT 1"
            ))
        })
        .collect()
}

/// Finds the time of a session's newest message.
pub(super) struct NewestMessageTimes<'a>(Vec<LazyStatement<'a>>);

impl<'a> NewestMessageTimes<'a> {
    /// Prepares the statements.
    pub(super) fn new(
        conn: &'a Connection,
        statements: &[String],
        degraded: &mut DegradedParts,
    ) -> Self {
        let prepare = |sql: &String| {
            let prepared = conn.prepare(sql);
            let prepared = degraded.ok_or_record(OptionalPart::LastMessageAt, prepared)?;
            Some(LazyStatement::prepared(conn, sql.clone(), prepared))
        };
        Self(statements.iter().filter_map(prepare).collect())
    }

    /// As [`new`](Self::new), but the statements are prepared when they are needed. Use this only
    /// if preparing them does not fail.
    pub(super) fn lazy(conn: &'a Connection, statements: &[String]) -> Self {
        let lazy = |sql: &String| LazyStatement::new(conn, sql.clone());
        Self(statements.iter().map(lazy).collect())
    }

    /// Returns the newest time of all tables, or `None` if one table cannot be read: the
    /// newest of the others need not be the newest of all.
    pub(super) fn find(
        &mut self,
        id: &str,
        limit: &CellLimit<'_>,
        degraded: &mut DegradedParts,
    ) -> Option<Millis> {
        let mut newest = None;
        for statement in &mut self.0 {
            let time = statement.get(limit).and_then(|statement| {
                statement
                    .query_row([id], |row| Ok(to_millis(row.get_ref(0)?)))
                    .optional()
            });
            newest = newest.max(
                degraded
                    .ok_or_record(OptionalPart::LastMessageAt, time)?
                    .flatten(),
            );
        }
        newest
    }
}
