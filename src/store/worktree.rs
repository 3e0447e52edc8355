//! The worktrees of projects. They are optional: a session without one has its
//! directory.

use std::collections::HashMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Statement};

use super::row::{Cut, WHOLE_CELL};
use super::schema::Schema;
use super::{StoreError, quoted};

/// OpenCode's project of all directories without a git history. Its one row's
/// worktree is whichever of them was opened last, so it says nothing.
const GLOBAL_PROJECT: &str = "global";

/// Without an index on a project's id, so many projects are read at most.
const MOST: u32 = 10_000;

/// The worktree of a project, and whether it was cut.
type Worktree = (Option<String>, u64);

/// The SQL of worktrees, made for one schema.
#[derive(Debug, Clone)]
pub(super) struct WorktreeQuery {
    sql: Option<String>,
    is_indexed: bool,
}

impl WorktreeQuery {
    pub(super) fn new(schema: &Schema) -> Self {
        let project = schema
            .table("project")
            .filter(|project| project.has("id") && project.has("worktree"));
        let is_indexed = project.is_some_and(|project| project.index_on(&["id"]).is_some());
        let which = if is_indexed {
            "WHERE id = ?1 LIMIT 1".to_owned()
        } else {
            format!("WHERE octet_length(id) <= {WHOLE_CELL} LIMIT {MOST}")
        };
        Self {
            sql: project.map(|project| {
                format!(
                    "SELECT CASE WHEN octet_length(worktree) <= {WHOLE_CELL} THEN worktree END, \
                     typeof(worktree) = 'text', id FROM {} {which}",
                    quoted(&project.name)
                )
            }),
            is_indexed,
        }
    }

    /// The statement.
    pub(super) fn statement(&self) -> Option<&str> {
        self.sql.as_deref()
    }
}

/// Finds worktrees, each once.
pub(super) struct Worktrees<'a> {
    of_one: Option<Statement<'a>>,
    known: HashMap<String, Worktree>,
}

impl<'a> Worktrees<'a> {
    /// Nothing is found.
    pub(super) fn none() -> Self {
        Self {
            of_one: None,
            known: HashMap::new(),
        }
    }

    pub(super) fn new(conn: &'a Connection, query: &WorktreeQuery) -> Result<Self, StoreError> {
        let mut worktrees = Self::none();
        let Some(sql) = &query.sql else {
            return Ok(worktrees);
        };
        let mut statement = conn.prepare(sql)?;
        if query.is_indexed {
            worktrees.of_one = Some(statement);
            return Ok(worktrees);
        }
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let ValueRef::Text(id) = row.get_ref(2)?
                && let Ok(id) = std::str::from_utf8(id)
                && !worktrees.known.contains_key(id)
            {
                let found = worktree(row)?;
                worktrees.known.insert(id.to_owned(), found);
            }
        }
        Ok(worktrees)
    }

    /// The worktree of a project, where it means something; how many texts were cut is
    /// added to `truncated`.
    pub(super) fn of(
        &mut self,
        project: &str,
        truncated: &mut u64,
    ) -> Result<Option<String>, StoreError> {
        if project == GLOBAL_PROJECT {
            return Ok(None);
        }
        if !self.known.contains_key(project)
            && let Some(statement) = &mut self.of_one
        {
            let found = statement.query_row([project], worktree).optional()?;
            self.known
                .insert(project.to_owned(), found.unwrap_or_default());
        }
        Ok(self.known.get(project).and_then(|(worktree, cut)| {
            *truncated += cut;
            worktree.clone()
        }))
    }
}

fn worktree(row: &rusqlite::Row<'_>) -> rusqlite::Result<Worktree> {
    Ok(match row.get_ref(0)? {
        ValueRef::Text(bytes) => {
            let mut cut = Cut::default();
            let text = cut.text(bytes);
            let means_something = !matches!(text.trim(), "" | "/");
            (Some(text).filter(|_| means_something), cut.count)
        }
        // One that is too large to be loaded.
        ValueRef::Null if row.get(1)? => (None, 1),
        _ => (None, 0),
    })
}
