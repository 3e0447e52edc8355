//! The worktrees of projects. They are optional: a session without a worktree has its
//! directory.

use std::collections::HashMap;
use std::rc::Rc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Statement};

use super::row::MAX_LOADED_BYTES;
use super::schema::Schema;
use super::value::TextTruncator;
use super::{StoreError, quote_identifier};

/// OpenCode's project for all directories without a git history. The worktree of its one
/// row is the directory that was opened last, so it is ignored.
const GLOBAL_PROJECT: &str = "global";

/// How many projects are read at most if the project table has no index on its id.
const MAX_UNINDEXED_PROJECTS: u32 = 10_000;

/// The worktree of a project, and how many texts were truncated for it.
type CachedWorktree = (Option<Rc<str>>, u64);

/// The SQL of worktrees for one schema.
#[derive(Debug, Clone)]
pub(super) struct WorktreeQuery {
    sql: Option<String>,
    is_indexed: bool,
}

impl WorktreeQuery {
    pub(super) fn new(schema: &Schema) -> Self {
        let project = schema
            .table("project")
            .filter(|project| project.has_column("id") && project.has_column("worktree"));
        let is_indexed = project.is_some_and(|project| project.index_on(&["id"]).is_some());
        let condition = if is_indexed {
            "WHERE id = ?1 LIMIT 1".to_owned()
        } else {
            format!("WHERE octet_length(id) <= {MAX_LOADED_BYTES} LIMIT {MAX_UNINDEXED_PROJECTS}")
        };
        Self {
            sql: project.map(|project| {
                format!(
                    "SELECT CASE WHEN octet_length(worktree) <= {MAX_LOADED_BYTES} THEN worktree END, \
                     typeof(worktree) = 'text', id FROM {} {condition}",
                    quote_identifier(&project.name)
                )
            }),
            is_indexed,
        }
    }

    pub(super) fn statement(&self) -> Option<&str> {
        self.sql.as_deref()
    }
}

/// Finds the worktrees of projects, each one once.
pub(super) struct Worktrees<'a> {
    by_id: Option<Statement<'a>>,
    cache: HashMap<String, CachedWorktree>,
}

impl<'a> Worktrees<'a> {
    pub(super) fn empty() -> Self {
        Self {
            by_id: None,
            cache: HashMap::new(),
        }
    }

    pub(super) fn new(conn: &'a Connection, query: &WorktreeQuery) -> Result<Self, StoreError> {
        let mut worktrees = Self::empty();
        let Some(sql) = &query.sql else {
            return Ok(worktrees);
        };
        let mut statement = conn.prepare(sql)?;
        if query.is_indexed {
            worktrees.by_id = Some(statement);
            return Ok(worktrees);
        }
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let ValueRef::Text(id) = row.get_ref(2)?
                && let Ok(id) = std::str::from_utf8(id)
                && !worktrees.cache.contains_key(id)
            {
                let found = read_worktree(row)?;
                worktrees.cache.insert(id.to_owned(), found);
            }
        }
        Ok(worktrees)
    }

    /// Returns the worktree of a project. Returns `None` for the global project and for a
    /// worktree that is blank or `/`. Adds the number of truncated texts to `truncated`.
    pub(super) fn find(
        &mut self,
        project: &str,
        truncated: &mut u64,
    ) -> Result<Option<Rc<str>>, StoreError> {
        if project == GLOBAL_PROJECT {
            return Ok(None);
        }
        if !self.cache.contains_key(project)
            && let Some(statement) = &mut self.by_id
        {
            let found = statement.query_row([project], read_worktree).optional()?;
            self.cache
                .insert(project.to_owned(), found.unwrap_or_default());
        }
        Ok(self.cache.get(project).and_then(|(worktree, count)| {
            *truncated += count;
            worktree.clone()
        }))
    }
}

fn read_worktree(row: &rusqlite::Row<'_>) -> rusqlite::Result<CachedWorktree> {
    Ok(match row.get_ref(0)? {
        ValueRef::Text(bytes) => {
            let mut truncator = TextTruncator::default();
            let text = truncator.truncate(bytes);
            let is_useful = !matches!(text.trim(), "" | "/");
            (is_useful.then(|| text.into()), truncator.count)
        }
        // The worktree is too large to be loaded.
        ValueRef::Null if row.get(1)? => (None, 1),
        _ => (None, 0),
    })
}
