//! The tables that hold the content of sessions. The marker scan and the first prompts
//! share this list.
//!
//! | table | written by |
//! | --- | --- |
//! | `part`, `message` | OpenCode 1, `/session` routes |
//! | `session_message` | OpenCode 2, and the `/api/session` routes of OpenCode 1.15 and later |
//! | `session_input` | the `/api/session` routes of OpenCode 1.17 and 1.18 |
//! | `session_inbox` | OpenCode 2: messages that wait to be delivered |
//! | `session_pending` | betas of OpenCode 2; later versions leave its rows as they are |

/// A table with content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentColumn {
    /// The name of the table.
    pub table: &'static str,
    /// The column that holds the content.
    pub column: &'static str,
}

/// All content tables. The scan cache stores indexes into this list, so new entries go to
/// the end.
pub const CONTENT_TABLES: [ContentColumn; 6] = [
    ContentColumn {
        table: "part",
        column: "data",
    },
    ContentColumn {
        table: "message",
        column: "data",
    },
    ContentColumn {
        table: "session_message",
        column: "data",
    },
    ContentColumn {
        table: "session_input",
        column: "prompt",
    },
    ContentColumn {
        table: "session_inbox",
        column: "payload",
    },
    ContentColumn {
        table: "session_pending",
        column: "data",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::KNOWN_TABLES;
    use crate::store::sessions::SESSION_TABLES;

    /// The schema is read of no other tables, so that they would count as missing.
    #[test]
    fn schema_is_read_of_all_tables_with_sessions_or_content() {
        let content = CONTENT_TABLES.iter().map(|content| content.table);
        let sessions = SESSION_TABLES.iter().map(|(table, _)| *table);
        for table in content.chain(sessions) {
            assert!(KNOWN_TABLES.contains(&table), "{table}");
        }
    }
}
