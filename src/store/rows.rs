//! The sessions of one table, one by one.
//!
//! Two steps: the keys (rowids, newest activity first) from SQLite's sorter,
//! which spills to disk when there are many, then each row by its rowid. So
//! rows stream in their order, and memory follows neither their number nor the
//! size of cells: one larger than 64 KiB is not loaded but read from its start.

use std::collections::HashSet;
use std::io::Read;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, OptionalExtension, Row, Statement};

use super::cell_limit::{CellLimit, is_too_big};
use super::schema::{Schema, Table};
use super::{StoreError, quoted};
use crate::session::{Millis, Model, Session, SessionId, Store, Summary, Tokens, is_untitled};
use crate::text::cut;
use crate::wire::{Skipped, limits};

/// The largest cell that is loaded whole, in bytes.
const WHOLE_CELL: i32 = 64 << 10;

/// What stands in a row for a text larger than [`WHOLE_CELL`]: a BLOB, where
/// only a TEXT counts.
const LARGE: &[u8] = b"opencode-lister: a large text";

/// OpenCode's project of all directories without a git history. Its one row's
/// worktree is whichever of them was opened last, so it says nothing.
const GLOBAL_PROJECT: &str = "global";

/// Which sessions to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Children too, not just roots.
    pub children: bool,
    /// Archived ones too.
    pub archived: bool,
}

/// What a listing of rows was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// The table's name.
    pub table: String,
    /// It has no `parent_id`: every session was taken for a root.
    pub flat: bool,
    /// What was left out or cut.
    pub skipped: Skipped,
}

/// The SQL of a listing, made for one schema.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    table: &'a Table,
    utf8: bool,
    unique: bool,
    keys: String,
    row: String,
    /// The same of a row with a large cell.
    large_row: String,
    newest: Vec<String>,
}

/// The texts of a session, in the order in which [`Query::row`] selects them.
const TEXTS: [&str; 11] = [
    "id",
    "directory",
    "project_id",
    "parent_id",
    "title",
    "agent",
    "version",
    "slug",
    "share_url",
    "workspace_id",
    "model",
];

/// The numbers of a session, in the order in which [`Query::row`] selects them.
const NUMBERS: [&str; 12] = [
    "time_created",
    "time_updated",
    "time_archived",
    "cost",
    "tokens_input",
    "tokens_output",
    "tokens_reasoning",
    "tokens_cache_read",
    "tokens_cache_write",
    "summary_additions",
    "summary_deletions",
    "summary_files",
];

/// Where the worktree stands in a row.
const WORKTREE: usize = TEXTS.len() + NUMBERS.len();

impl<'a> Query<'a> {
    /// The SQL for the table `session` of `schema`; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Where the table is not one whose rows can be told apart and named.
    pub fn new(schema: &'a Schema, filter: Filter) -> Result<Option<Self>, StoreError> {
        let Some(table) = schema.table("session") else {
            return Ok(None);
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

        let mut wanted = vec!["1".to_owned()];
        if table.has("parent_id") && !filter.children {
            wanted.push("s.parent_id IS NULL".to_owned());
        }
        if table.has("time_archived") && !filter.archived {
            wanted.push("s.time_archived IS NULL".to_owned());
        }
        if table.has("directory") {
            // A session without a directory belongs nowhere in a list.
            wanted
                .push("typeof(s.directory) = 'text' AND octet_length(s.directory) > 0".to_owned());
        }
        let newest_first = if table.has("time_updated") {
            format!("{} DESC, ", number("time_updated"))
        } else {
            // OpenCode's ids descend with time: the newest session comes first.
            String::new()
        };
        let keys = format!(
            "SELECT s.{rowid} FROM {name} AS s WHERE {} \
             ORDER BY {newest_first}CASE WHEN octet_length(s.id) <= {} THEN s.id END COLLATE BINARY",
            wanted.join(" AND "),
            SessionId::MAX_BYTES,
        );

        let row = |text: fn(&str, &str) -> String, number: fn(&str) -> String| {
            let own = |column: &str, sql: String| {
                if table.has(column) {
                    sql
                } else {
                    "NULL".to_owned()
                }
            };
            let texts = TEXTS.iter().map(|column| own(column, text("s", column)));
            let numbers = NUMBERS.iter().map(|column| own(column, number(column)));
            let worktree = match schema.table("project") {
                Some(project)
                    if table.has("project_id") && project.has("id") && project.has("worktree") =>
                {
                    let (worktree, project) = (text("p", "worktree"), quoted(&project.name));
                    format!(
                        "(SELECT {worktree} FROM {project} AS p WHERE p.id = s.project_id LIMIT 1)"
                    )
                }
                _ => "NULL".to_owned(),
            };
            let columns: Vec<_> = texts.chain(numbers).chain([worktree]).collect();
            format!(
                "SELECT {} FROM {name} AS s WHERE s.{rowid} = ?1",
                columns.join(", ")
            )
        };

        Ok(Some(Self {
            table,
            utf8: schema.utf8,
            // Texts that differ in UTF-16 can be the same once they are UTF-8.
            unique: schema.utf8 && table.is_unique("id"),
            keys,
            row: row(
                |table, column| format!("{table}.{}", quoted(column)),
                |column| format!("s.{column}"),
            ),
            large_row: row(text, number),
            newest: newest_message(schema),
        }))
    }

    /// Each statement's SQL, with a name for it.
    #[must_use]
    pub fn statements(&self) -> Vec<(&'static str, &str)> {
        let mut all = vec![
            ("keys", self.keys.as_str()),
            ("row", self.row.as_str()),
            ("row with a large cell", self.large_row.as_str()),
        ];
        all.extend(
            self.newest
                .iter()
                .map(|sql| ("newest message", sql.as_str())),
        );
        all
    }

    /// Hands the sessions to `sink`, newest activity first, ties by id. It sets
    /// every field but `marked` and `first_prompt`.
    ///
    /// # Errors
    ///
    /// Where SQLite fails, or `sink` does.
    pub fn run<E: From<StoreError>>(
        &self,
        conn: &Connection,
        mut sink: impl FnMut(Session) -> Result<(), E>,
    ) -> Result<Listed, E> {
        let store = |error: rusqlite::Error| E::from(StoreError::from(error));
        let mut listed = Listed {
            table: self.table.name.clone(),
            flat: !self.table.has("parent_id"),
            skipped: Skipped::default(),
        };
        let mut seen = HashSet::new();
        let mut keys = conn.prepare(&self.keys).map_err(store)?;
        let mut rows = Rows::new(self, conn).map_err(store)?;
        let mut newest = self
            .newest
            .iter()
            .map(|sql| conn.prepare(sql))
            .collect::<Result<Vec<_>, _>>()
            .map_err(store)?;
        let mut keys = keys.query([]).map_err(store)?;
        while let Some(key) = keys.next().map_err(store)? {
            let rowid: i64 = key.get(0).map_err(store)?;
            let mut reader = Reader {
                query: self,
                conn,
                rowid,
                truncated: 0,
            };
            let session = rows.session(&mut reader).map_err(store)?;
            let Some(mut session) = session else {
                listed.skipped.invalid_id += 1;
                continue;
            };
            // Newest first, so the first of several is the one to keep. Where
            // the database promises that there are none, nothing is remembered.
            if !self.unique && !seen.insert(session.id.clone()) {
                listed.skipped.duplicate_id += 1;
                continue;
            }
            listed.skipped.truncated += reader.truncated;
            session.last_message_at = newest_of(&mut newest, &session.id).map_err(store)?;
            sink(session)?;
        }
        Ok(listed)
    }
}

/// A text column, without loading one that is large: `?2` is [`LARGE`].
fn text(table: &str, column: &str) -> String {
    let column = format!("{table}.{}", quoted(column));
    format!(
        "CASE WHEN octet_length({column}) <= {WHOLE_CELL} THEN {column} \
         WHEN typeof({column}) = 'text' THEN ?2 END"
    )
}

/// A column where it is a number. `typeof` loads nothing.
fn number(column: &str) -> String {
    format!("CASE WHEN typeof(s.{column}) IN ('integer', 'real') THEN s.{column} END")
}

/// The newest message's time, for each content table in which an index makes
/// that a seek.
fn newest_message(schema: &Schema) -> Vec<String> {
    ["message", "session_message"]
        .iter()
        .filter_map(|name| schema.table(name))
        .filter_map(|table| {
            let index = table.index_on(&["session_id", "time_created"])?;
            let (name, index) = (quoted(&table.name), quoted(&index.name));
            Some(format!(
                "SELECT time_created FROM {name} INDEXED BY {index} WHERE session_id = ?1 \
                 AND typeof(time_created) IN ('integer', 'real') \
                 ORDER BY time_created DESC LIMIT 1"
            ))
        })
        .collect()
}

fn newest_of(statements: &mut [Statement<'_>], id: &SessionId) -> rusqlite::Result<Option<Millis>> {
    let mut newest = None;
    for statement in statements {
        let time = statement
            .query_row([id.as_str()], |row| Ok(millis(row.get_ref(0)?)))
            .optional()?;
        newest = newest.max(time.flatten());
    }
    Ok(newest)
}

/// A time as stored. REAL values are floored, and held at the ends of the range.
fn millis(value: ValueRef<'_>) -> Option<Millis> {
    integer(value).map(Millis)
}

fn integer(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(value) => Some(value),
        #[expect(clippy::cast_possible_truncation, reason = "`as` holds it at the ends")]
        ValueRef::Real(value) => Some(value.floor() as i64),
        _ => None,
    }
}

/// The rows by their rowids.
struct Rows<'a> {
    query: &'a Query<'a>,
    conn: &'a Connection,
    limit: CellLimit<'a>,
    row: Statement<'a>,
    /// Slower: it asks for the size of each cell.
    large_row: Option<Statement<'a>>,
}

impl<'a> Rows<'a> {
    fn new(query: &'a Query<'a>, conn: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            query,
            conn,
            limit: CellLimit::new(conn, WHOLE_CELL)?,
            row: conn.prepare(&query.row)?,
            large_row: None,
        })
    }

    fn session(&mut self, reader: &mut Reader<'_>) -> rusqlite::Result<Option<Session>> {
        let rowid = reader.rowid;
        let found = self.row.query_row([rowid], |row| reader.session(row));
        if !is_too_big(&found) {
            return found;
        }
        let large_row = match &mut self.large_row {
            Some(statement) => statement,
            none => none.insert(self.conn.prepare(&self.query.large_row)?),
        };
        self.limit
            .lifted(|| large_row.query_row((rowid, LARGE), |row| reader.session(row)))
    }
}

/// Reads one row into a session, and counts the texts that it cuts.
struct Reader<'a> {
    query: &'a Query<'a>,
    conn: &'a Connection,
    rowid: i64,
    truncated: u64,
}

impl Reader<'_> {
    /// `None` where the row has no valid id.
    fn session(&mut self, row: &Row<'_>) -> rusqlite::Result<Option<Session>> {
        let Some(id) = id(row.get_ref(0)?) else {
            return Ok(None);
        };
        let title = self.own_text(row, 4)?;
        let project_id = self.own_text(row, 2)?;
        let worktree = match project_id.as_deref() {
            Some(GLOBAL_PROJECT) | None => None,
            Some(_) => self
                .text(row.get_ref(WORKTREE)?, None)
                .filter(|worktree| !matches!(worktree.trim(), "" | "/")),
        };
        let mut numbers = [ValueRef::Null; NUMBERS.len()];
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = row.get_ref(TEXTS.len() + at)?;
        }
        let [created, updated, archived, cost, counts @ ..] = numbers;
        let [
            input,
            output,
            reasoning,
            cache_read,
            cache_write,
            additions,
            deletions,
            files,
        ] = counts.map(integer);
        let tokens = input.map(|input| Tokens {
            input,
            output: output.unwrap_or(0),
            reasoning: reasoning.unwrap_or(0),
            cache_read: cache_read.unwrap_or(0),
            cache_write: cache_write.unwrap_or(0),
        });
        let summary = additions
            .zip(deletions)
            .map(|(additions, deletions)| Summary {
                additions,
                deletions,
                files: files.unwrap_or(0),
            });
        Ok(Some(Session {
            id,
            directory: self.own_text(row, 1)?,
            worktree,
            parent_id: self.own_text(row, 3)?,
            untitled: is_untitled(title.as_deref()),
            title,
            project_id,
            first_prompt: None,
            time_created: millis(created),
            time_updated: millis(updated),
            time_archived: millis(archived),
            last_message_at: None,
            marked: None,
            store: Store::V1,
            agent: self.own_text(row, 5)?,
            version: self.own_text(row, 6)?,
            slug: self.own_text(row, 7)?,
            share_url: self.own_text(row, 8)?,
            workspace_id: self.own_text(row, 9)?,
            model: self.model(row.get_ref(10)?),
            cost: match cost {
                #[expect(clippy::cast_precision_loss, reason = "dollars")]
                ValueRef::Integer(cost) => Some(cost as f64),
                ValueRef::Real(cost) => Some(cost).filter(|cost| cost.is_finite()),
                _ => None,
            },
            tokens,
            summary,
        }))
    }

    /// A text of the session's own row.
    fn own_text(&mut self, row: &Row<'_>, at: usize) -> rusqlite::Result<Option<String>> {
        Ok(self.text(row.get_ref(at)?, Some(TEXTS[at])))
    }

    /// A text as the wire carries it: UTF-8, at most 4 KiB. `column` names the
    /// column of the session's row that it comes from.
    fn text(&mut self, value: ValueRef<'_>, column: Option<&str>) -> Option<String> {
        match value {
            ValueRef::Text(bytes) => Some(self.cut(bytes)),
            ValueRef::Blob(LARGE) => {
                let start = column.and_then(|column| self.start_of(column));
                self.truncated += u64::from(start.is_none());
                start.map(|start| self.cut(&start))
            }
            _ => None,
        }
    }

    fn cut(&mut self, bytes: &[u8]) -> String {
        // Replacing invalid bytes makes a text longer, so cut before and after.
        let start = &bytes[..bytes.len().min(limits::TEXT + 4)];
        let text = String::from_utf8_lossy(start);
        let cut = cut(&text, limits::TEXT);
        self.truncated += u64::from(start.len() < bytes.len() || cut.len() < text.len());
        cut.to_owned()
    }

    /// The start of a large text. Any failure means none: what is not there is
    /// null and counted, like a text that was cut.
    fn start_of(&self, column: &str) -> Option<Vec<u8>> {
        if !self.query.utf8 {
            return None;
        }
        let table = self.query.table.name.as_str();
        let cell = self
            .conn
            .blob_open(MAIN_DB, table, column, self.rowid, true)
            .ok()?;
        let mut start = Vec::with_capacity(2 * limits::TEXT);
        cell.take(2 * limits::TEXT as u64)
            .read_to_end(&mut start)
            .ok()?;
        Some(start)
    }

    fn model(&mut self, value: ValueRef<'_>) -> Option<Model> {
        /// As OpenCode stores it.
        #[derive(serde::Deserialize)]
        struct Stored {
            id: String,
            #[serde(rename = "providerID")]
            provider_id: String,
            variant: Option<String>,
        }
        let ValueRef::Text(json) = value else {
            return None;
        };
        let stored: Stored = serde_json::from_slice(json).ok()?;
        Some(Model {
            id: self.cut(stored.id.as_bytes()),
            provider_id: self.cut(stored.provider_id.as_bytes()),
            variant: stored.variant.map(|variant| self.cut(variant.as_bytes())),
        })
    }
}

/// Only a TEXT is an id: a number or a BLOB names no session of OpenCode.
fn id(value: ValueRef<'_>) -> Option<SessionId> {
    let ValueRef::Text(bytes) = value else {
        return None;
    };
    SessionId::new(std::str::from_utf8(bytes).ok()?).ok()
}
