//! Sessions by their ids: any of them, also archived ones, children, and such
//! without a directory.

use std::collections::{HashMap, HashSet};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Statement};

use super::row::{RowQuery, has_text, id, millis, time_updated};
use super::schema::Schema;
use super::sessions::{SessionQuery, Sessions};
use super::{StoreError, quoted};
use crate::session::{Millis, Session, SessionId};
use crate::wire::Unresolved;

/// The SQL of look-ups, made for one schema.
#[derive(Debug, Clone)]
pub struct LookUpQuery<'a> {
    sessions: SessionQuery<'a>,
    /// Of each table: the rowid, the time and the parent of the row with an id.
    by_id: Vec<String>,
}

impl<'a> LookUpQuery<'a> {
    /// The SQL for `schema`.
    ///
    /// # Errors
    ///
    /// Where a table is not one whose rows can be told apart and named.
    pub fn new(schema: &'a Schema) -> Result<Self, StoreError> {
        let sessions = SessionQuery::new(schema)?;
        Ok(Self {
            by_id: sessions.tables.iter().map(by_id).collect(),
            sessions,
        })
    }

    /// True where there are no tables of sessions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

fn by_id(rows: &RowQuery<'_>) -> String {
    let table = rows.table;
    let parent = if table.has("parent_id") {
        // What is longer than an id is none, and is not loaded.
        format!(
            "CASE WHEN {} THEN CASE WHEN octet_length(s.parent_id) <= {} \
             THEN s.parent_id ELSE x'' END END",
            has_text("parent_id"),
            SessionId::MAX_BYTES
        )
    } else {
        "NULL".to_owned()
    };
    format!(
        "SELECT s.{}, {} AS time, {parent} FROM {} AS s \
         WHERE s.id = ?1 ORDER BY time DESC LIMIT 1",
        rows.rowid,
        time_updated(table),
        quoted(&table.name)
    )
}

/// Looks sessions up, in one transaction.
pub struct Finder<'a> {
    by_id: Vec<Statement<'a>>,
    sessions: Sessions<'a>,
    /// What is known of the sessions on the way to a root. Grows with them.
    roots: HashMap<SessionId, Result<SessionId, Unresolved>>,
}

/// Where a session is.
struct Place {
    table: usize,
    rowid: i64,
    updated: Option<Millis>,
    parent: Parent,
}

enum Parent {
    None,
    Is(SessionId),
    /// What stands there names no session.
    Odd,
}

impl<'a> Finder<'a> {
    /// A finder in `conn`'s transaction, whose first prompts have at most `prompt_limit`
    /// characters.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails.
    pub fn new(
        conn: &'a Connection,
        query: &'a LookUpQuery<'a>,
        prompt_limit: usize,
    ) -> Result<Self, StoreError> {
        let by_id = query.by_id.iter().map(|sql| conn.prepare(sql));
        Ok(Self {
            by_id: by_id.collect::<Result<_, _>>()?,
            sessions: Sessions::new(conn, &query.sessions, prompt_limit)?,
            roots: HashMap::new(),
        })
    }

    /// The session with this id, but for `marked`; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Where SQLite fails.
    pub fn session(&mut self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        let Some(place) = self.place(id)? else {
            return Ok(None);
        };
        let found = self.sessions.session(place.table, place.rowid)?;
        // A column that folds cases finds others.
        let session = found.map(|(session, _)| session);
        Ok(session.filter(|session| session.id == *id))
    }

    /// The session at the top of this one's parents, or itself; or why there is none.
    ///
    /// # Errors
    ///
    /// Where SQLite fails.
    pub fn root(&mut self, id: &SessionId) -> Result<Result<SessionId, Unresolved>, StoreError> {
        let (mut way, mut seen) = (Vec::new(), HashSet::new());
        let mut at = id.clone();
        let found = loop {
            if let Some(known) = self.roots.get(&at) {
                break known.clone();
            }
            if !seen.insert(at.clone()) {
                break Err(Unresolved::Cycle);
            }
            let Some(place) = self.place(&at)? else {
                break Err(Unresolved::Orphan);
            };
            way.push(at.clone());
            at = match place.parent {
                Parent::None => break Ok(at),
                Parent::Is(parent) => parent,
                Parent::Odd => break Err(Unresolved::Orphan),
            };
        };
        if way.is_empty() && !self.roots.contains_key(id) {
            return Ok(Err(Unresolved::Absent));
        }
        for at in way {
            self.roots.insert(at, found.clone());
        }
        Ok(found)
    }

    /// The working directory of the session with this id.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails.
    pub fn directory(&mut self, id: &SessionId) -> Result<Option<String>, StoreError> {
        Ok(self.session(id)?.and_then(|session| session.directory))
    }

    /// Where the newest row with this id is, the later table's of equally new ones.
    fn place(&mut self, id: &SessionId) -> Result<Option<Place>, StoreError> {
        let mut newest: Option<Place> = None;
        for (table, statement) in self.by_id.iter_mut().enumerate() {
            let found = statement
                .query_row([id.as_str()], |row| place(table, row))
                .optional()?;
            let is_newer = |found: &Place| {
                newest
                    .as_ref()
                    .is_none_or(|newest| newest.updated <= found.updated)
            };
            newest = found.filter(is_newer).or(newest);
        }
        let sessions = &mut self.sessions;
        Ok(newest.filter(|place| !sessions.is_deleted(place.table, id.as_str(), place.updated)))
    }
}

fn place(table: usize, row: &Row<'_>) -> rusqlite::Result<Place> {
    Ok(Place {
        table,
        rowid: row.get(0)?,
        updated: millis(row.get_ref(1)?),
        parent: match row.get_ref(2)? {
            ValueRef::Null => Parent::None,
            other => id(other).map_or(Parent::Odd, Parent::Is),
        },
    })
}
