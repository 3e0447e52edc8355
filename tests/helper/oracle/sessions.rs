//! Complete sessions from all session tables: their rows and their optional parts. The
//! optional parts are the worktree of the project, the time of the newest message and,
//! for a session without a title, the first prompt.

use rusqlite::Connection;

use super::activity::{NewestMessageTimes, newest_message_sql};
use super::cell_limit::CellLimit;
use super::degraded::DegradedParts;
use super::deleted::DeletedSessions;
use super::prompt::{PromptQuery, Prompts};
use super::row::{MAX_LOADED_BYTES, RowQuery, SessionRows};
use super::schema::Schema;
use super::worktree::{WorktreeQuery, Worktrees};
use super::{StoreError, quote_identifier};
use crate::session::{Millis, Session, Store};
use crate::wire::OptionalPart;

/// The session tables of OpenCode 1 and OpenCode 2. Of equally new rows the later table's
/// wins.
pub(crate) const SESSION_TABLES: [(&str, Store); 2] =
    [("session", Store::V1), ("session_v2", Store::V2)];

/// The SQL of sessions for one schema.
#[derive(Debug, Clone)]
pub(super) struct SessionQuery<'a> {
    schema: &'a Schema,
    /// In the order of [`SESSION_TABLES`], without those that are missing.
    pub(super) tables: Vec<RowQuery<'a>>,
    newest_message: Vec<String>,
    prompts: PromptQuery,
    worktrees: WorktreeQuery,
}

impl<'a> SessionQuery<'a> {
    /// Builds the SQL for the session tables in `schema`.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError::Schema`] if a session table has no rowid or no column `id`.
    /// A listing without its sessions would be incomplete.
    pub(super) fn new(schema: &'a Schema) -> Result<Self, StoreError> {
        let mut tables = Vec::new();
        for (name, store) in SESSION_TABLES {
            let Some(table) = schema.table(name) else {
                continue;
            };
            let name = quote_identifier(&table.name);
            let Some(rowid) = table.rowid() else {
                return Err(StoreError::Schema(format!(
                    "table {name} has no rowid (it is a view, virtual or WITHOUT ROWID)"
                )));
            };
            if !table.has_column("id") {
                return Err(StoreError::Schema(format!("table {name} has no column id")));
            }
            // Betas of OpenCode 2 had the new columns in a table of the old name.
            let store = match table.has_column("fork_session_id") {
                true => Store::V2,
                false => store,
            };
            tables.push(RowQuery::new(schema, table, store, rowid));
        }
        Ok(Self {
            schema,
            tables,
            newest_message: newest_message_sql(schema),
            prompts: PromptQuery::new(schema),
            worktrees: WorktreeQuery::new(schema),
        })
    }

    /// Returns the SQL of each statement with a label.
    pub(super) fn statements(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let rows = self.tables.iter().flat_map(|table| {
            [
                ("row", table.row.as_str()),
                ("row with a large cell", table.large_row.as_str()),
            ]
        });
        let worktrees = self.worktrees.statement().map(|sql| ("worktree", sql));
        let newest = self
            .newest_message
            .iter()
            .map(|sql| ("newest message", &**sql));
        let prompts = self.prompts.statements().map(|sql| ("first prompt", sql));
        rows.chain(worktrees).chain(newest).chain(prompts)
    }
}

/// Returns the optional parts that are read from this table, except the marker.
fn optional_parts(table: &str) -> &'static [OptionalPart] {
    use OptionalPart::{Deleted, FirstPrompt, LastMessageAt, Worktree};
    match table {
        "project" => &[Worktree],
        "kv" | "event_sequence" => &[Deleted],
        "message" | "session_message" => &[LastMessageAt, FirstPrompt],
        _ => &[FirstPrompt],
    }
}

/// Reads sessions. While it exists, its connection loads no large cell.
pub(super) struct SessionLoader<'a> {
    query: &'a SessionQuery<'a>,
    rows: Vec<SessionRows<'a>>,
    worktrees: Worktrees<'a>,
    newest_messages: NewestMessageTimes<'a>,
    prompts: Prompts<'a>,
    prompt_limit: usize,
    deleted: Option<DeletedSessions<'a>>,
    pub(super) degraded: DegradedParts,
    limit: CellLimit<'a>,
}

impl<'a> SessionLoader<'a> {
    /// Creates a reader whose first prompts have at most `prompt_limit` characters.
    pub(super) fn new(
        conn: &'a Connection,
        query: &'a SessionQuery<'a>,
        prompt_limit: usize,
    ) -> rusqlite::Result<Self> {
        let rows = query
            .tables
            .iter()
            .map(|table| SessionRows::new(table, conn));
        let mut degraded = DegradedParts::default();
        for (table, reason) in &query.schema.unreadable {
            for part in optional_parts(table) {
                degraded.record(*part, reason);
            }
        }
        let worktrees = Worktrees::new(conn, &query.worktrees);
        let prompts = Prompts::new(conn, &query.prompts);
        let deleted = DeletedSessions::new(conn, query.schema);
        Ok(Self {
            query,
            rows: rows.collect::<Result<_, _>>()?,
            worktrees: degraded
                .ok_or_record(OptionalPart::Worktree, worktrees)
                .unwrap_or_else(Worktrees::empty),
            newest_messages: NewestMessageTimes::new(conn, &query.newest_message, &mut degraded),
            prompts: degraded
                .ok_or_record(OptionalPart::FirstPrompt, prompts)
                .unwrap_or_else(Prompts::empty),
            prompt_limit,
            deleted: degraded
                .ok_or_record(OptionalPart::Deleted, deleted)
                .flatten(),
            degraded,
            limit: CellLimit::new(conn, MAX_LOADED_BYTES)?,
        })
    }

    /// Reads the session with this rowid from the table with this index, without
    /// `marked`. Also returns how many of its texts were truncated. Returns `None` if the
    /// row has no valid id.
    pub(super) fn load(
        &mut self,
        table: usize,
        rowid: i64,
    ) -> rusqlite::Result<Option<(Session, u64)>> {
        let row = self.rows[table].read(rowid, &self.limit)?;
        let Some((mut session, mut truncated)) = row else {
            return Ok(None);
        };
        let degraded = &mut self.degraded;
        if let Some(project) = &session.project_id {
            let worktree = self.worktrees.find(project, &mut truncated);
            session.worktree = degraded
                .ok_or_record(OptionalPart::Worktree, worktree)
                .flatten()
                .map(|worktree| worktree.to_string());
        }
        session.last_message_at = self.newest_messages.find(&session.id, degraded);
        if session.untitled {
            let prompts = &mut self.prompts;
            let prompt = self
                .limit
                .run_unlimited(|| prompts.find(session.id.as_str(), self.prompt_limit));
            session.first_prompt = degraded
                .ok_or_record(OptionalPart::FirstPrompt, prompt)
                .flatten();
        }
        Ok(Some((session, truncated)))
    }

    /// Returns true if the session was deleted, given its id and time of update in this
    /// table: see [`DeletedSessions`].
    pub(super) fn is_deleted(&mut self, table: usize, id: &str, updated: Option<Millis>) -> bool {
        let is_v1_table = self.query.tables[table].store == Store::V1;
        let Some(deleted) = self.deleted.as_mut().filter(|_| is_v1_table) else {
            return false;
        };
        let result = deleted.contains(id, updated);
        let is_deleted = self.degraded.ok_or_record(OptionalPart::Deleted, result);
        if is_deleted.is_none() {
            // Otherwise every session would read the same tables up to the same damage.
            self.deleted = None;
        }
        is_deleted.unwrap_or(false)
    }
}
