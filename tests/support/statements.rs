//! What is done to a made database.

use crate::support::Made;

impl Made {
    /// Inserts a part of this session.
    pub(crate) fn part(&self, session: &str, data: &str) {
        self.conn
            .execute(
                "INSERT INTO part (id, message_id, session_id, time_created, time_updated, data) \
                 VALUES ('prt_' || (SELECT count(*) FROM part), 'msg', ?1, 1, 1, ?2)",
                (session, data),
            )
            .unwrap();
    }

    /// Runs a statement.
    pub(crate) fn run(&self, sql: &str) {
        self.conn.execute_batch(sql).unwrap();
    }
}
