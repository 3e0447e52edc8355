//! Sessions whole, out of whichever tables there are: their rows, and what is optional:
//! the worktrees of their projects, their newest messages, and for those without a title
//! their first prompts.

use rusqlite::Connection;

use super::activity::{Activity, newest_message};
use super::cell_limit::CellLimit;
use super::degraded::DegradedParts;
use super::deleted::Deleted;
use super::prompt::{PromptQuery, Prompts};
use super::row::{RowQuery, Rows, WHOLE_CELL};
use super::schema::Schema;
use super::worktree::{WorktreeQuery, Worktrees};
use super::{StoreError, quoted};
use crate::session::{Millis, Session, Store};
use crate::wire::OptionalPart;

/// The tables of sessions: OpenCode 1's, and OpenCode 2's, which comes later.
pub(crate) const STORES: [(&str, Store); 2] = [("session", Store::V1), ("session_v2", Store::V2)];

/// The SQL of sessions, made for one schema.
#[derive(Debug, Clone)]
pub(super) struct SessionQuery<'a> {
    schema: &'a Schema,
    /// In the order of [`STORES`].
    pub(super) tables: Vec<RowQuery<'a>>,
    newest: Vec<String>,
    prompts: PromptQuery,
    worktrees: WorktreeQuery,
}

impl<'a> SessionQuery<'a> {
    /// The SQL for the tables of sessions in `schema`.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError::Schema`] for a table whose rows cannot be told apart and
    /// named: a list without its sessions would be shorter.
    pub(super) fn new(schema: &'a Schema) -> Result<Self, StoreError> {
        let mut tables = Vec::new();
        for (name, store) in STORES {
            let Some(table) = schema.table(name) else {
                continue;
            };
            let name = quoted(&table.name);
            let Some(rowid) = table.rowid() else {
                return Err(StoreError::Schema(format!(
                    "table {name} has no rowid (it is a view, virtual or WITHOUT ROWID)"
                )));
            };
            if !table.has("id") {
                return Err(StoreError::Schema(format!("table {name} has no column id")));
            }
            // Betas of OpenCode 2 had its columns in a table of the old name.
            let store = match table.has("fork_session_id") {
                true => Store::V2,
                false => store,
            };
            tables.push(RowQuery::new(schema, table, store, rowid));
        }
        Ok(Self {
            schema,
            tables,
            newest: newest_message(schema),
            prompts: PromptQuery::new(schema),
            worktrees: WorktreeQuery::new(schema),
        })
    }

    /// Each statement's SQL, with a name for it.
    pub(super) fn statements(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let rows = self.tables.iter().flat_map(|table| {
            [
                ("row", table.row.as_str()),
                ("row with a large cell", table.large_row.as_str()),
            ]
        });
        let worktrees = self.worktrees.statement().map(|sql| ("worktree", sql));
        let newest = self.newest.iter().map(|sql| ("newest message", &**sql));
        let prompts = self.prompts.statements().map(|sql| ("first prompt", sql));
        rows.chain(worktrees).chain(newest).chain(prompts)
    }
}

/// The optional parts, but for the marker, that are in this table.
fn parts_of(table: &str) -> &'static [OptionalPart] {
    use OptionalPart::{Deleted, FirstPrompt, LastMessageAt, Worktree};
    match table {
        "project" => &[Worktree],
        "kv" | "event_sequence" => &[Deleted],
        "message" | "session_message" => &[LastMessageAt, FirstPrompt],
        _ => &[FirstPrompt],
    }
}

/// Reads sessions. While it lives, no large cell is loaded by its connection.
pub(super) struct Sessions<'a> {
    query: &'a SessionQuery<'a>,
    rows: Vec<Rows<'a>>,
    worktrees: Worktrees<'a>,
    activity: Activity<'a>,
    prompts: Prompts<'a>,
    prompt_limit: usize,
    deleted: Option<Deleted<'a>>,
    /// The optional parts that could not be read.
    pub(super) degraded: DegradedParts,
    limit: CellLimit<'a>,
}

impl<'a> Sessions<'a> {
    /// A reader whose first prompts have at most `prompt_limit` characters.
    pub(super) fn new(
        conn: &'a Connection,
        query: &'a SessionQuery<'a>,
        prompt_limit: usize,
    ) -> rusqlite::Result<Self> {
        let rows = query.tables.iter().map(|table| Rows::new(table, conn));
        let mut degraded = DegradedParts::default();
        for (table, reason) in &query.schema.unreadable {
            for part in parts_of(table) {
                degraded.note(*part, reason);
            }
        }
        let worktrees = Worktrees::new(conn, &query.worktrees);
        let prompts = Prompts::new(conn, &query.prompts);
        let deleted = Deleted::new(conn, query.schema);
        Ok(Self {
            query,
            rows: rows.collect::<Result<_, _>>()?,
            worktrees: degraded
                .accept(OptionalPart::Worktree, worktrees)
                .unwrap_or_else(Worktrees::none),
            activity: Activity::new(conn, &query.newest, &mut degraded),
            prompts: degraded
                .accept(OptionalPart::FirstPrompt, prompts)
                .unwrap_or_else(Prompts::none),
            prompt_limit,
            deleted: degraded.accept(OptionalPart::Deleted, deleted).flatten(),
            degraded,
            limit: CellLimit::new(conn, WHOLE_CELL)?,
        })
    }

    /// The session of this rowid in a table of the query, but for `marked`, and how
    /// many of its texts were cut. `None` where it has no valid id.
    pub(super) fn session(
        &mut self,
        table: usize,
        rowid: i64,
    ) -> rusqlite::Result<Option<(Session, u64)>> {
        let found = self.rows[table].session(rowid, &self.limit)?;
        let Some((mut session, mut truncated)) = found else {
            return Ok(None);
        };
        let degraded = &mut self.degraded;
        if let Some(project) = &session.project_id {
            let worktree = self.worktrees.of(project, &mut truncated);
            session.worktree = degraded.accept(OptionalPart::Worktree, worktree).flatten();
        }
        session.last_message_at = self.activity.of(&session.id, degraded);
        if session.untitled {
            let prompts = &mut self.prompts;
            let prompt = self
                .limit
                .lifted(|| prompts.of(&session.id, self.prompt_limit));
            session.first_prompt = degraded.accept(OptionalPart::FirstPrompt, prompt).flatten();
        }
        Ok(Some((session, truncated)))
    }

    /// True if the session of a row of this table, which was updated then, was deleted:
    /// see [`Deleted`].
    pub(super) fn is_deleted(&mut self, table: usize, id: &str, updated: Option<Millis>) -> bool {
        let is_of_v1 = self.query.tables[table].store == Store::V1;
        let Some(deleted) = self.deleted.as_mut().filter(|_| is_of_v1) else {
            return false;
        };
        let found = deleted.has(id, updated);
        let found = self.degraded.accept(OptionalPart::Deleted, found);
        if found.is_none() {
            // It would read the same tables up to the same damage for each session.
            self.deleted = None;
        }
        found.unwrap_or(false)
    }
}
