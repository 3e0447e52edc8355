//! Sessions by id: any session, including archived sessions, subagents and sessions
//! without a directory.

use std::collections::{HashMap, HashSet};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Statement};

use super::row::{RowQuery, non_blank_text_expr, time_updated_expr};
use super::schema::Schema;
use super::sessions::{Prepare, SessionLoader, SessionQuery};
use super::value::{parse_id, to_millis};
use super::{StoreError, quote_identifier};
use crate::session::{Millis, Session, SessionId};
use crate::wire::Unresolved;

/// The SQL of look-ups for one schema.
#[derive(Debug, Clone)]
pub struct LookUpQuery<'a> {
    sessions: SessionQuery<'a>,
    /// For each session table, the SQL that selects rowid, time and parent of the row
    /// with an id.
    by_id_sql: Vec<String>,
}

impl<'a> LookUpQuery<'a> {
    /// Builds the SQL for `schema`.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError::Schema`] if a session table has no rowid or no column `id`.
    pub fn new(schema: &'a Schema) -> Result<Self, StoreError> {
        let sessions = SessionQuery::new(schema)?;
        Ok(Self {
            by_id_sql: sessions.tables.iter().map(by_id_sql).collect(),
            sessions,
        })
    }

    /// Returns true if the schema has no session tables.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id_sql.is_empty()
    }
}

fn by_id_sql(rows: &RowQuery<'_>) -> String {
    let table = rows.table;
    let parent = if table.has_column("parent_id") {
        // A text longer than any id is invalid, and is not loaded.
        format!(
            "CASE WHEN {} THEN CASE WHEN octet_length(s.parent_id) <= {} \
             THEN s.parent_id ELSE x'' END END",
            non_blank_text_expr("parent_id"),
            SessionId::MAX_BYTES
        )
    } else {
        "NULL".to_owned()
    };
    format!(
        "SELECT s.{}, {} AS time, {parent} FROM {} AS s \
         WHERE s.id = ?1 ORDER BY time DESC LIMIT 1",
        rows.rowid,
        time_updated_expr(table),
        quote_identifier(&table.name)
    )
}

/// Looks up sessions in one transaction.
pub struct Finder<'a> {
    by_id: Vec<Statement<'a>>,
    loader: SessionLoader<'a>,
    /// The roots found so far. Grows with the sessions on the paths to them.
    roots: HashMap<SessionId, Result<SessionId, Unresolved>>,
}

/// The location of a session's row.
struct RowLocation {
    table: usize,
    rowid: i64,
    updated: Option<Millis>,
    parent: Parent,
}

enum Parent {
    None,
    Id(SessionId),
    /// The column does not hold a valid id.
    Invalid,
}

impl<'a> Finder<'a> {
    /// Creates a finder in `conn`'s transaction. First prompts have at most
    /// `prompt_limit` characters.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails.
    pub fn new(
        conn: &'a Connection,
        query: &'a LookUpQuery<'a>,
        prompt_limit: usize,
    ) -> Result<Self, StoreError> {
        let by_id = query.by_id_sql.iter().map(|sql| conn.prepare(sql));
        Ok(Self {
            by_id: by_id.collect::<Result<_, _>>()?,
            loader: SessionLoader::new(conn, &query.sessions, prompt_limit, Prepare::Now)?,
            roots: HashMap::new(),
        })
    }

    /// Returns the session with this id, without `marked`, or `None` if it does not
    /// exist.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails.
    pub fn session(&mut self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        let Some(location) = self.locate(id)? else {
            return Ok(None);
        };
        let session = self.loader.session(location.table, location.rowid)?;
        // A column with a case-insensitive collation finds other ids too.
        Ok(session.filter(|session| session.id == *id))
    }

    /// Returns the root of this session's chain of parents, which can be the session
    /// itself, or the reason why it has none.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails.
    pub fn root(&mut self, id: &SessionId) -> Result<Result<SessionId, Unresolved>, StoreError> {
        let (mut path, mut seen) = (Vec::new(), HashSet::new());
        let mut current = id.clone();
        let root = loop {
            if let Some(root) = self.roots.get(&current) {
                break root.clone();
            }
            if !seen.insert(current.clone()) {
                break Err(Unresolved::Cycle);
            }
            let Some(location) = self.locate(&current)? else {
                break Err(Unresolved::Orphan);
            };
            path.push(current.clone());
            current = match location.parent {
                Parent::None => break Ok(current),
                Parent::Id(parent) => parent,
                Parent::Invalid => break Err(Unresolved::Orphan),
            };
        };
        if path.is_empty() && !self.roots.contains_key(id) {
            return Ok(Err(Unresolved::Absent));
        }
        for id in path {
            self.roots.insert(id, root.clone());
        }
        Ok(root)
    }

    /// Returns the working directory of the session with this id.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails.
    pub fn directory(&mut self, id: &SessionId) -> Result<Option<String>, StoreError> {
        Ok(self.session(id)?.and_then(|session| session.directory))
    }

    /// Finds the newest row with this id. Of two equally new rows it returns that of the
    /// later table.
    fn locate(&mut self, id: &SessionId) -> Result<Option<RowLocation>, StoreError> {
        let mut newest: Option<RowLocation> = None;
        for (table, statement) in self.by_id.iter_mut().enumerate() {
            let found = statement
                .query_row([id.as_str()], |row| read_location(table, row))
                .optional()?;
            let is_newer = |found: &RowLocation| {
                newest
                    .as_ref()
                    .is_none_or(|newest| newest.updated <= found.updated)
            };
            newest = found.filter(is_newer).or(newest);
        }
        let loader = &mut self.loader;
        Ok(newest
            .filter(|location| !loader.is_deleted(location.table, id.as_str(), location.updated)))
    }
}

fn read_location(table: usize, row: &Row<'_>) -> rusqlite::Result<RowLocation> {
    Ok(RowLocation {
        table,
        rowid: row.get(0)?,
        updated: to_millis(row.get_ref(1)?),
        parent: match row.get_ref(2)? {
            ValueRef::Null => Parent::None,
            other => parse_id(other)
                .and_then(|id| SessionId::new(id).ok())
                .map_or(Parent::Invalid, Parent::Id),
        },
    })
}
