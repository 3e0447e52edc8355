//! One session's row: every column that is shown, as far as its table has it, and
//! no large cell loaded.

use std::io::Read;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, Row};

use super::cell_limit::{CellLimit, RowById};
use super::quoted;
use super::schema::{Schema, Table};
use crate::session::{Millis, Model, Session, SessionId, Store, Summary, Tokens, is_untitled};
use crate::text::cut;
use crate::wire::limits;

/// The largest cell that is loaded whole, in bytes.
pub(super) const WHOLE_CELL: i32 = 64 << 10;

/// What stands in a row for a text larger than [`WHOLE_CELL`]: a BLOB, where
/// only a TEXT counts.
const LARGE: &str = "opencode-lister: a large text";

/// The texts of a session, in the order in which [`RowQuery::row`] selects them.
const TEXTS: [&str; 13] = [
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
    "idle_outcome",
    "fork_session_id",
];

/// The numbers of a session, in the order in which [`RowQuery::row`] selects them.
const NUMBERS: [&str; 16] = [
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
    "time_idle",
    "time_viewed",
    "time_compacting",
    "time_suspended",
];

/// The SQL of a row, made for one table.
#[derive(Debug, Clone)]
pub(super) struct RowQuery<'a> {
    pub(super) table: &'a Table,
    pub(super) rowid: &'static str,
    pub(super) store: Store,
    utf8: bool,
    pub(super) row: String,
    /// The same of a row with a large cell.
    pub(super) large_row: String,
}

impl<'a> RowQuery<'a> {
    /// The SQL for a table of `schema` whose rowid goes by the name `rowid`.
    pub(super) fn new(
        schema: &Schema,
        table: &'a Table,
        store: Store,
        rowid: &'static str,
    ) -> Self {
        let name = quoted(&table.name);
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
            let columns: Vec<_> = texts.chain(numbers).collect();
            format!(
                "SELECT {} FROM {name} AS s WHERE s.{rowid} = ?1",
                columns.join(", ")
            )
        };
        Self {
            table,
            rowid,
            store,
            utf8: schema.utf8,
            row: row(
                |table, column| format!("{table}.{}", quoted(column)),
                |column| format!("s.{column}"),
            ),
            large_row: row(text, number),
        }
    }
}

/// A text column, without loading one that is large: that is [`LARGE`].
fn text(table: &str, column: &str) -> String {
    let column = format!("{table}.{}", quoted(column));
    format!(
        "CASE WHEN octet_length({column}) <= {WHOLE_CELL} THEN {column} \
         WHEN typeof({column}) = 'text' THEN CAST('{LARGE}' AS BLOB) END"
    )
}

/// The time of the last update, where the table has it.
pub(super) fn time_updated(table: &Table) -> String {
    if table.has("time_updated") {
        number("time_updated")
    } else {
        "NULL".to_owned()
    }
}

/// What is blank: spaces and line ends of ASCII.
const BLANKS: &str = "char(9, 10, 12, 13, 32)";

/// True, in SQL, for a row whose column is a text that is not blank. One that is larger
/// than the wire carries is not loaded to be looked at.
pub(super) fn has_text(column: &str) -> String {
    format!(
        "(typeof(s.{column}) = 'text' AND CASE WHEN octet_length(s.{column}) <= {} \
         THEN trim(s.{column}, {BLANKS}) <> '' ELSE 1 END)",
        limits::TEXT
    )
}

/// True, in SQL, for a row whose column is a time. OpenCode's clients cannot write null
/// and write 0 instead.
pub(super) fn has_time(column: &str) -> String {
    format!(
        "(typeof(s.{column}) IN ('integer', 'real') AND NOT (s.{column} >= 0 AND s.{column} < 1))"
    )
}

/// A column where it is a number. `typeof` loads nothing.
fn number(column: &str) -> String {
    format!("CASE WHEN typeof(s.{column}) IN ('integer', 'real') THEN s.{column} END")
}

/// A time as stored. REAL values are floored, and held at the ends of the range.
pub(super) fn millis(value: ValueRef<'_>) -> Option<Millis> {
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

/// The rows of one table.
pub(super) struct Rows<'a> {
    query: &'a RowQuery<'a>,
    conn: &'a Connection,
    row: RowById<'a>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(query: &'a RowQuery<'a>, conn: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            query,
            conn,
            row: RowById::new(conn, &query.row, query.large_row.clone())?,
        })
    }

    /// The session of this rowid, without `marked`, `worktree`, `first_prompt` and
    /// `last_message_at`, and how many of its texts were cut. `None` where it has no
    /// valid id. The limit must be [`WHOLE_CELL`].
    pub(super) fn session(
        &mut self,
        rowid: i64,
        limit: &CellLimit<'_>,
    ) -> rusqlite::Result<Option<(Session, u64)>> {
        let mut reader = Reader {
            query: self.query,
            conn: self.conn,
            rowid,
            cut: Cut::default(),
        };
        let found = self.row.read(rowid, limit, |_, row| reader.session(row))?;
        let session = found.flatten();
        Ok(session.map(|session| (session, reader.cut.count)))
    }
}

/// Reads one row into a session, and counts the texts that it cuts.
struct Reader<'a> {
    query: &'a RowQuery<'a>,
    conn: &'a Connection,
    rowid: i64,
    cut: Cut,
}

impl Reader<'_> {
    /// `None` where the row has no valid id.
    fn session(&mut self, row: &Row<'_>) -> rusqlite::Result<Option<Session>> {
        let Some(id) = id(row.get_ref(0)?) else {
            return Ok(None);
        };
        let title = self.text(row, 4)?;
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
            idle,
            viewed,
            compacting,
            suspended,
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
            directory: self.some_text(row, 1)?,
            worktree: None,
            parent_id: self.some_text(row, 3)?,
            untitled: is_untitled(title.as_deref()),
            title,
            project_id: self.some_text(row, 2)?,
            first_prompt: None,
            time_created: millis(created),
            time_updated: millis(updated),
            time_archived: some_time(integer(archived)),
            last_message_at: None,
            marked: None,
            store: self.query.store,
            agent: self.some_text(row, 5)?,
            version: self.some_text(row, 6)?,
            slug: self.some_text(row, 7)?,
            share_url: self.some_text(row, 8)?,
            workspace_id: self.some_text(row, 9)?,
            model: self.model(row.get_ref(10)?),
            cost: match cost {
                #[expect(clippy::cast_precision_loss, reason = "dollars")]
                ValueRef::Integer(cost) => Some(cost as f64),
                ValueRef::Real(cost) => Some(cost).filter(|cost| cost.is_finite()),
                _ => None,
            },
            tokens,
            summary,
            time_compacting: some_time(compacting),
            time_suspended: some_time(suspended),
            forked_from: self.some_text(row, 12)?,
            time_idle: some_time(idle),
            time_viewed: some_time(viewed),
            idle_outcome: self.some_text(row, 11)?,
        }))
    }

    /// A text as the wire carries it.
    fn text(&mut self, row: &Row<'_>, at: usize) -> rusqlite::Result<Option<String>> {
        Ok(match row.get_ref(at)? {
            ValueRef::Text(bytes) => Some(self.cut.text(bytes)),
            ValueRef::Blob(bytes) if bytes == LARGE.as_bytes() => {
                let start = self.start_of(TEXTS[at]);
                self.cut.count += u64::from(start.is_none());
                start.map(|start| self.cut.text(&start))
            }
            _ => None,
        })
    }

    /// The same of a column that can be null, for which a blank text stands, too.
    fn some_text(&mut self, row: &Row<'_>, at: usize) -> rusqlite::Result<Option<String>> {
        let text = self.text(row, at)?;
        Ok(text.filter(|text| !text.bytes().all(|byte| byte.is_ascii_whitespace())))
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
            id: self.cut.text(stored.id.as_bytes()),
            provider_id: self.cut.text(stored.provider_id.as_bytes()),
            variant: stored
                .variant
                .map(|variant| self.cut.text(variant.as_bytes())),
        })
    }
}

/// A time of a column that can be null, for which 0 stands, too.
fn some_time(value: Option<i64>) -> Option<Millis> {
    value.filter(|value| *value != 0).map(Millis)
}

/// Texts as the wire carries them: UTF-8, at most 4 KiB.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// How many were cut.
    pub(super) count: u64,
}

impl Cut {
    pub(super) fn text(&mut self, bytes: &[u8]) -> String {
        // Replacing invalid bytes makes a text longer, so cut before and after.
        let start = &bytes[..bytes.len().min(limits::TEXT + 4)];
        let text = String::from_utf8_lossy(start);
        let cut = cut(&text, limits::TEXT);
        self.count += u64::from(start.len() < bytes.len() || cut.len() < text.len());
        cut.to_owned()
    }
}

/// Only a TEXT is an id: a number or a BLOB names no session of OpenCode.
pub(super) fn id(value: ValueRef<'_>) -> Option<SessionId> {
    let ValueRef::Text(bytes) = value else {
        return None;
    };
    SessionId::new(std::str::from_utf8(bytes).ok()?).ok()
}
