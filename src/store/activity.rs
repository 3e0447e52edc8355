//! The newest message's time of a session, where an index makes that a seek.

use rusqlite::{Connection, OptionalExtension, Statement};

use super::row::millis;
use super::{Schema, quoted};
use crate::session::{Millis, SessionId};

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

/// Asks them.
pub(super) struct Activity<'a>(Vec<Statement<'a>>);

impl<'a> Activity<'a> {
    pub(super) fn new(conn: &'a Connection, newest: &[String]) -> rusqlite::Result<Self> {
        let statements = newest.iter().map(|sql| conn.prepare(sql));
        Ok(Self(statements.collect::<Result<_, _>>()?))
    }

    /// The newest of all.
    pub(super) fn of(&mut self, id: &SessionId) -> rusqlite::Result<Option<Millis>> {
        let mut newest = None;
        for statement in &mut self.0 {
            let time = statement
                .query_row([id.as_str()], |row| Ok(millis(row.get_ref(0)?)))
                .optional()?;
            newest = newest.max(time.flatten());
        }
        Ok(newest)
    }
}
