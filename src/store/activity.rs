//! The newest message's time of a session, where an index makes that a seek.

use rusqlite::{Connection, OptionalExtension, Statement};

use super::degraded::DegradedParts;
use super::row::millis;
use super::{Schema, quoted};
use crate::session::{Millis, SessionId};
use crate::wire::OptionalPart;

/// The newest message's time, for each content table in which an index makes
/// that a seek.
pub(super) fn newest_message(schema: &Schema) -> Vec<String> {
    ["message", "session_message"]
        .iter()
        .filter_map(|name| schema.table(name))
        .filter_map(|table| {
            let index = table.index_on(&["session_id", "time_created"])?;
            let (name, index) = (quoted(&table.name), quoted(&index.name));
            Some(format!(
                "SELECT time_created FROM {name} INDEXED BY {index} WHERE session_id = ?1 \
                 AND typeof(time_created) IN ('integer', 'real') \
                 ORDER BY time_created DESC LIMIT 1"
            ))
        })
        .collect()
}

/// Finds them.
pub(super) struct Activity<'a>(Vec<Statement<'a>>);

impl<'a> Activity<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        newest: &[String],
        degraded: &mut DegradedParts,
    ) -> Self {
        let mut prepare = |sql| degraded.accept(OptionalPart::LastMessageAt, conn.prepare(sql));
        Self(newest.iter().filter_map(|sql| prepare(sql)).collect())
    }

    /// The newest of all; `None` if one table cannot be read: what is in the others need
    /// not be the newest.
    pub(super) fn of(&mut self, id: &SessionId, degraded: &mut DegradedParts) -> Option<Millis> {
        let mut newest = None;
        for statement in &mut self.0 {
            let time = statement
                .query_row([id.as_str()], |row| Ok(millis(row.get_ref(0)?)))
                .optional();
            newest = newest.max(
                degraded
                    .accept(OptionalPart::LastMessageAt, time)?
                    .flatten(),
            );
        }
        newest
    }
}
