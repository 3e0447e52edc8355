//! The tables that hold what was said in a session: one list for the marker, for first
//! prompts and for whatever else reads content.
//!
//! | table | written by |
//! | --- | --- |
//! | `part`, `message` | OpenCode 1, `/session` routes |
//! | `session_message` | OpenCode 2, and the `/api/session` routes of OpenCode 1.15 and later |
//! | `session_input` | the `/api/session` routes of OpenCode 1.17 and 1.18 |
//! | `session_inbox` | OpenCode 2: what waits to be delivered |
//! | `session_pending` | betas of OpenCode 2; later versions leave its rows as they are |

/// A table with content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The table.
    pub table: &'static str,
    /// Its column that holds what was said.
    pub column: &'static str,
}

/// All of them. Their places in this list are kept in the scan cache: new ones go to
/// the end.
pub const CONTENT: [Content; 6] = [
    Content {
        table: "part",
        column: "data",
    },
    Content {
        table: "message",
        column: "data",
    },
    Content {
        table: "session_message",
        column: "data",
    },
    Content {
        table: "session_input",
        column: "prompt",
    },
    Content {
        table: "session_inbox",
        column: "payload",
    },
    Content {
        table: "session_pending",
        column: "data",
    },
];
