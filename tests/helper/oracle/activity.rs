//! The time of a session's newest message, for tables with an index that finds it by a
//! seek.

use rusqlite::{Connection, OptionalExtension, Statement};

use super::degraded::DegradedParts;
use super::row::to_millis;
use super::{Schema, quote_identifier};
use crate::session::{Millis, SessionId};
use crate::wire::OptionalPart;

/// Builds the SQL that finds the time of the newest message, for each table with an index
/// that makes this a seek.
pub(super) fn newest_message_sql(schema: &Schema) -> Vec<String> {
    ["message", "session_message"]
        .iter()
        .filter_map(|name| schema.table(name))
        .filter_map(|table| {
            let index = table.index_on(&["session_id", "time_created"])?;
            let (name, index) = (quote_identifier(&table.name), quote_identifier(&index.name));
            Some(format!(
                "SELECT time_created FROM {name} INDEXED BY {index} WHERE session_id = ?1 \
                 AND typeof(time_created) IN ('integer', 'real') \
                 ORDER BY time_created DESC LIMIT 1"
            ))
        })
        .collect()
}

/// Finds the time of a session's newest message.
pub(super) struct NewestMessageTimes<'a>(Vec<Statement<'a>>);

impl<'a> NewestMessageTimes<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        statements: &[String],
        degraded: &mut DegradedParts,
    ) -> Self {
        let mut prepare =
            |sql| degraded.ok_or_record(OptionalPart::LastMessageAt, conn.prepare(sql));
        Self(statements.iter().filter_map(|sql| prepare(sql)).collect())
    }

    /// Returns the newest time of all tables, or `None` if one table cannot be read: the
    /// newest of the others need not be the newest of all.
    pub(super) fn find(&mut self, id: &SessionId, degraded: &mut DegradedParts) -> Option<Millis> {
        let mut newest = None;
        for statement in &mut self.0 {
            let time = statement
                .query_row([id.as_str()], |row| Ok(to_millis(row.get_ref(0)?)))
                .optional();
            newest = newest.max(
                degraded
                    .ok_or_record(OptionalPart::LastMessageAt, time)?
                    .flatten(),
            );
        }
        newest
    }
}
