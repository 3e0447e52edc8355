//! Sessions whole, out of whichever tables there are: their rows, their newest
//! messages, and for those without a title their first prompts.

use rusqlite::Connection;

use super::activity::{Activity, newest_message};
use super::cell_limit::CellLimit;
use super::prompt::{PromptQuery, Prompts};
use super::row::{RowQuery, Rows, WHOLE_CELL};
use super::schema::Schema;
use super::{StoreError, quoted};
use crate::session::{Session, Store};

/// The tables of sessions: OpenCode 1's, and OpenCode 2's, which comes later.
pub(crate) const STORES: [(&str, Store); 2] = [("session", Store::V1), ("session_v2", Store::V2)];

/// The SQL of sessions, made for one schema.
#[derive(Debug, Clone)]
pub(super) struct SessionQuery<'a> {
    /// In the order of [`STORES`].
    pub(super) tables: Vec<RowQuery<'a>>,
    newest: Vec<String>,
    prompts: PromptQuery,
}

impl<'a> SessionQuery<'a> {
    /// The SQL for the tables of sessions in `schema`.
    ///
    /// # Errors
    ///
    /// Where a table is not one whose rows can be told apart and named: a list
    /// without its sessions would be shorter.
    pub(super) fn new(schema: &'a Schema) -> Result<Self, StoreError> {
        let mut tables = Vec::new();
        for (name, store) in STORES {
            let Some(table) = schema.table(name) else {
                continue;
            };
            let name = quoted(&table.name);
            let Some(rowid) = table.rowid() else {
                return Err(StoreError::Schema(format!(
                    "{name} is no ordinary table with a rowid"
                )));
            };
            if !table.has("id") {
                return Err(StoreError::Schema(format!("{name} has no column id")));
            }
            tables.push(RowQuery::new(schema, table, store, rowid));
        }
        Ok(Self {
            tables,
            newest: newest_message(schema),
            prompts: PromptQuery::new(schema),
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
        let newest = self.newest.iter().map(|sql| ("newest message", &**sql));
        let prompts = self.prompts.statements().map(|sql| ("first prompt", sql));
        rows.chain(newest).chain(prompts)
    }
}

/// Reads sessions. While it lives, no large cell is loaded by its connection.
pub(super) struct Sessions<'a> {
    rows: Vec<Rows<'a>>,
    activity: Activity<'a>,
    prompts: Prompts<'a>,
    limit: CellLimit<'a>,
}

impl<'a> Sessions<'a> {
    pub(super) fn new(conn: &'a Connection, query: &'a SessionQuery<'a>) -> rusqlite::Result<Self> {
        let rows = query.tables.iter().map(|table| Rows::new(table, conn));
        Ok(Self {
            rows: rows.collect::<Result<_, _>>()?,
            activity: Activity::new(conn, &query.newest)?,
            prompts: Prompts::new(conn, &query.prompts)?,
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
        let Some((mut session, truncated)) = found else {
            return Ok(None);
        };
        session.last_message_at = self.activity.of(&session.id)?;
        if session.untitled {
            session.first_prompt = self.prompts.of(&session.id);
        }
        Ok(Some((session, truncated)))
    }
}
