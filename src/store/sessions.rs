//! Complete sessions from all session tables: their rows and their optional parts. The
//! optional parts are the worktree of the project, the time of the newest message and,
//! for a session without a title, the first prompt.

use std::rc::Rc;

use rusqlite::Connection;

use super::activity::{NewestMessageTimes, newest_message_sql};
use super::cell_limit::CellLimit;
use super::degraded::DegradedParts;
use super::deleted::DeletedSessions;
use super::prompt::{PromptQuery, Prompts};
use super::row::{MAX_LOADED_BYTES, RowQuery};
use super::schema::Schema;
use super::session_row::{SessionRow, SessionRows};
use super::worktree::{WorktreeQuery, Worktrees};
use super::{StoreError, quote_identifier};
use crate::session::{Millis, Session, Store};
use crate::wire::{OptionalPart, SessionLine};

/// The session tables of OpenCode 1 and OpenCode 2. Of equally new rows the later table's
/// wins.
pub(crate) const SESSION_TABLES: [(&str, Store); 2] =
    [("session", Store::V1), ("session_v2", Store::V2)];

/// The SQL of sessions for one schema.
#[derive(Debug, Clone)]
pub(super) struct SessionQuery<'a> {
    pub(super) schema: &'a Schema,
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
            newest_message: newest_message_sql(schema, "?1"),
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

/// When the statements are prepared that can also be prepared later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prepare {
    Now,
    /// They are known to be valid.
    WhenNeeded,
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
    pub(super) limit: CellLimit<'a>,
}

/// The optional parts of a session that are not in its row.
pub(super) struct SessionParts {
    worktree: Option<Rc<str>>,
    first_prompt: Option<String>,
    /// How many texts were truncated.
    truncated: u64,
}

impl SessionParts {
    /// Adds the parts to the session.
    fn add_to<'p>(&'p self, session: &mut SessionLine<'p>) {
        session.worktree = self.worktree.as_deref();
        session.first_prompt = self.first_prompt.as_deref();
    }
}

impl<'a> SessionLoader<'a> {
    /// Creates a reader whose first prompts have at most `prompt_limit` characters.
    pub(super) fn new(
        conn: &'a Connection,
        query: &'a SessionQuery<'a>,
        prompt_limit: usize,
        prepare: Prepare,
    ) -> rusqlite::Result<Self> {
        let rows = query.tables.iter().map(|table| match prepare {
            Prepare::Now => SessionRows::new(table, conn),
            Prepare::WhenNeeded => Ok(SessionRows::lazy(table, conn)),
        });
        let mut degraded = DegradedParts::default();
        for (table, reason) in &query.schema.unreadable {
            for part in optional_parts(table) {
                degraded.record(*part, reason);
            }
        }
        let worktrees = Worktrees::new(conn, &query.worktrees);
        let prompts = Prompts::new(conn, &query.prompts);
        let deleted = DeletedSessions::new(conn, query.schema);
        let sql = &query.newest_message;
        Ok(Self {
            query,
            rows: rows.collect::<Result<_, _>>()?,
            worktrees: degraded
                .ok_or_record(OptionalPart::Worktree, worktrees)
                .unwrap_or_else(Worktrees::empty),
            newest_messages: match prepare {
                Prepare::Now => NewestMessageTimes::new(conn, sql, &mut degraded),
                Prepare::WhenNeeded => NewestMessageTimes::lazy(conn, sql),
            },
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

    /// Reads the row with this rowid of the table with this index. Returns `None` if it has no
    /// valid id.
    pub(super) fn read_row(
        &mut self,
        table: usize,
        rowid: i64,
    ) -> rusqlite::Result<Option<SessionRow>> {
        self.rows[table].read(rowid, &self.limit)
    }

    /// Reads the optional parts of a session that are in no row of a session table. The time of
    /// the newest message is added to `session` unless it is known.
    fn parts(&mut self, session: &mut SessionLine<'_>, newest: Newest) -> SessionParts {
        let degraded = &mut self.degraded;
        let mut truncated = 0;
        let worktree = session.project_id.and_then(|project| {
            let worktree = self.worktrees.find(project, &mut truncated);
            let worktree = degraded.ok_or_record(OptionalPart::Worktree, worktree);
            worktree.flatten()
        });
        if newest == Newest::Unknown {
            let found = self.newest_messages.find(session.id, &self.limit, degraded);
            session.last_message_at = found;
        }
        let first_prompt = session.untitled.then(|| {
            let prompts = &mut self.prompts;
            let prompt = self
                .limit
                .run_unlimited(|| prompts.find(session.id, self.prompt_limit));
            let prompt = degraded.ok_or_record(OptionalPart::FirstPrompt, prompt);
            prompt.flatten()
        });
        SessionParts {
            worktree,
            first_prompt: first_prompt.flatten(),
            truncated,
        }
    }

    /// Adds to a session of the table with this index, `truncated` texts of which were truncated,
    /// its optional parts and its mark, and appends its line. Returns how many texts were
    /// truncated, or `None` if the session is not listed because it has no directory.
    pub(super) fn append_line<'s>(
        &mut self,
        table: usize,
        mut session: SessionLine<'s>,
        newest: Newest,
        truncated: u64,
        mark: &impl Fn(&str) -> Option<bool>,
        line: &mut Vec<u8>,
    ) -> Option<u64> {
        let parts = self.parts(&mut session, newest);
        let truncated = truncated + parts.truncated;
        // A session with a directory that could not be read is still listed.
        let has_no_directory = session.directory.is_none() && truncated == 0;
        if has_no_directory && self.query.tables[table].table.has_column("directory") {
            return None;
        }
        session.marked = mark(session.id);
        let mut session: SessionLine<'_> = session;
        parts.add_to(&mut session);
        session.append_to(line);
        Some(truncated)
    }

    /// Reads the session with this rowid from the table with this index, without `marked`.
    /// Returns `None` if the row has no valid id.
    pub(super) fn session(
        &mut self,
        table: usize,
        rowid: i64,
    ) -> rusqlite::Result<Option<Session>> {
        let Some(row) = self.read_row(table, rowid)? else {
            return Ok(None);
        };
        let mut session = row.line();
        let parts = self.parts(&mut session, Newest::Unknown);
        parts.add_to(&mut session);
        Ok(session.to_session().ok())
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

/// Whether the time of the newest message was read with the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newest {
    Known,
    Unknown,
}
