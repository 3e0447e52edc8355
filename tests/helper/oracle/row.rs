//! The row of one session: every column that is shown, if its table has it. No large cell
//! is loaded.

use std::io::Read;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, Row};

use super::cell_limit::{CellLimit, RowById};
use super::quote_identifier;
use super::schema::{Schema, Table};
use crate::session::{Millis, Model, Session, SessionId, Store, Summary, Tokens, is_untitled};
use crate::text::cut;
use crate::wire::limits;

/// The size in bytes of the largest cell that is loaded whole.
pub(super) const MAX_LOADED_BYTES: i32 = 64 << 10;

/// The placeholder in a row for a text larger than [`MAX_LOADED_BYTES`]. It is a BLOB,
/// which is otherwise not a valid value.
const LARGE_TEXT: &str = "opencode-lister: a large text";

/// The text columns of a session, in the order in which [`RowQuery::row`] selects them.
const TEXT_COLUMNS: [&str; 13] = [
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

/// The number columns of a session, in the order in which [`RowQuery::row`] selects them.
const NUMBER_COLUMNS: [&str; 16] = [
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

/// The SQL of a row for one table.
#[derive(Debug, Clone)]
pub(super) struct RowQuery<'a> {
    pub(super) table: &'a Table,
    pub(super) rowid: &'static str,
    pub(super) store: Store,
    is_utf8: bool,
    pub(super) row: String,
    /// The statement for a row with a large cell.
    pub(super) large_row: String,
}

impl<'a> RowQuery<'a> {
    /// Builds the SQL for a table of `schema`, whose rowid is named `rowid`.
    pub(super) fn new(
        schema: &Schema,
        table: &'a Table,
        store: Store,
        rowid: &'static str,
    ) -> Self {
        let name = quote_identifier(&table.name);
        let row = |text: fn(&str, &str) -> String, number: fn(&str) -> String| {
            let or_null = |column: &str, sql: String| {
                if table.has_column(column) {
                    sql
                } else {
                    "NULL".to_owned()
                }
            };
            let texts = TEXT_COLUMNS
                .iter()
                .map(|column| or_null(column, text("s", column)));
            let numbers = NUMBER_COLUMNS
                .iter()
                .map(|column| or_null(column, number(column)));
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
            is_utf8: schema.is_utf8,
            row: row(
                |table, column| format!("{table}.{}", quote_identifier(column)),
                |column| format!("s.{column}"),
            ),
            large_row: row(text_expr, number_expr),
        }
    }
}

/// Returns an SQL expression for a text column, which yields [`LARGE_TEXT`] for a large
/// text without loading it.
fn text_expr(table: &str, column: &str) -> String {
    let column = format!("{table}.{}", quote_identifier(column));
    format!(
        "CASE WHEN octet_length({column}) <= {MAX_LOADED_BYTES} THEN {column} \
         WHEN typeof({column}) = 'text' THEN CAST('{LARGE_TEXT}' AS BLOB) END"
    )
}

/// Returns an SQL expression for the time of the last update, or `NULL` if the table has
/// no such column.
pub(super) fn time_updated_expr(table: &Table) -> String {
    if table.has_column("time_updated") {
        number_expr("time_updated")
    } else {
        "NULL".to_owned()
    }
}

/// SQL for the blank characters: ASCII spaces and line ends.
const BLANK_CHARACTERS: &str = "char(9, 10, 12, 13, 32)";

/// Returns an SQL condition: the column is a text that is not blank. A text larger than
/// the wire carries counts as not blank and is not loaded.
pub(super) fn non_blank_text_expr(column: &str) -> String {
    format!(
        "(typeof(s.{column}) = 'text' AND CASE WHEN octet_length(s.{column}) <= {} \
         THEN trim(s.{column}, {BLANK_CHARACTERS}) <> '' ELSE 1 END)",
        limits::TEXT
    )
}

/// Returns an SQL condition: the column is a time. Clients of OpenCode cannot write null,
/// so they write 0 instead.
pub(super) fn time_set_expr(column: &str) -> String {
    format!(
        "(typeof(s.{column}) IN ('integer', 'real') AND NOT (s.{column} >= 0 AND s.{column} < 1))"
    )
}

/// Returns an SQL expression for a number column. `typeof` loads nothing.
fn number_expr(column: &str) -> String {
    format!("CASE WHEN typeof(s.{column}) IN ('integer', 'real') THEN s.{column} END")
}

/// Converts a stored time. REAL values are rounded down and clamped to the range.
pub(super) fn to_millis(value: ValueRef<'_>) -> Option<Millis> {
    to_integer(value).map(Millis)
}

fn to_integer(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(value) => Some(value),
        #[expect(clippy::cast_possible_truncation, reason = "`as` clamps to the range")]
        ValueRef::Real(value) => Some(value.floor() as i64),
        _ => None,
    }
}

/// Reads the sessions of one table.
pub(super) struct SessionRows<'a> {
    query: &'a RowQuery<'a>,
    conn: &'a Connection,
    row: RowById<'a>,
}

impl<'a> SessionRows<'a> {
    pub(super) fn new(query: &'a RowQuery<'a>, conn: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            query,
            conn,
            row: RowById::new(conn, &query.row, query.large_row.clone())?,
        })
    }

    /// Reads the session with this rowid, without `marked`, `worktree`, `first_prompt`
    /// and `last_message_at`. Also returns how many of its texts were truncated. Returns
    /// `None` if the row has no valid id. The limit must be [`MAX_LOADED_BYTES`].
    pub(super) fn read(
        &mut self,
        rowid: i64,
        limit: &CellLimit<'_>,
    ) -> rusqlite::Result<Option<(Session, u64)>> {
        let mut reader = RowReader {
            query: self.query,
            conn: self.conn,
            rowid,
            truncator: TextTruncator::default(),
        };
        let session = self.row.read(rowid, limit, |_, row| reader.read(row))?;
        Ok(session
            .flatten()
            .map(|session| (session, reader.truncator.count)))
    }
}

/// Reads one row into a session and counts the texts that it truncates.
struct RowReader<'a> {
    query: &'a RowQuery<'a>,
    conn: &'a Connection,
    rowid: i64,
    truncator: TextTruncator,
}

impl RowReader<'_> {
    /// Returns `None` if the row has no valid id.
    fn read(&mut self, row: &Row<'_>) -> rusqlite::Result<Option<Session>> {
        let Some(id) = parse_id(row.get_ref(0)?) else {
            return Ok(None);
        };
        let title = self.text(row, 4)?;
        let mut numbers = [ValueRef::Null; NUMBER_COLUMNS.len()];
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = row.get_ref(TEXT_COLUMNS.len() + index)?;
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
        ] = counts.map(to_integer);
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
        let mut session = Session::new(id, self.query.store);
        session.directory = self.non_blank_text(row, 1)?;
        session.parent_id = self.non_blank_text(row, 3)?;
        session.untitled = is_untitled(title.as_deref());
        session.title = title;
        session.project_id = self.non_blank_text(row, 2)?;
        session.time_created = to_millis(created);
        session.time_updated = to_millis(updated);
        session.time_archived = non_zero_time(to_integer(archived));
        session.agent = self.non_blank_text(row, 5)?;
        session.version = self.non_blank_text(row, 6)?;
        session.slug = self.non_blank_text(row, 7)?;
        session.share_url = self.non_blank_text(row, 8)?;
        session.workspace_id = self.non_blank_text(row, 9)?;
        session.model = self.parse_model(row.get_ref(10)?);
        session.cost = match cost {
            #[expect(clippy::cast_precision_loss, reason = "dollars are small numbers")]
            ValueRef::Integer(cost) => Some(cost as f64),
            ValueRef::Real(cost) => Some(cost).filter(|cost| cost.is_finite()),
            _ => None,
        };
        session.tokens = tokens;
        session.summary = summary;
        session.time_compacting = non_zero_time(compacting);
        session.time_suspended = non_zero_time(suspended);
        session.forked_from = self.non_blank_text(row, 12)?;
        session.time_idle = non_zero_time(idle);
        session.time_viewed = non_zero_time(viewed);
        session.idle_outcome = self.non_blank_text(row, 11)?;
        Ok(Some(session))
    }

    /// Reads a text in the form that the wire carries.
    fn text(&mut self, row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
        Ok(match row.get_ref(column)? {
            ValueRef::Text(bytes) => Some(self.truncator.truncate(bytes)),
            ValueRef::Blob(bytes) if bytes == LARGE_TEXT.as_bytes() => {
                let start = self.read_text_start(TEXT_COLUMNS[column]);
                self.truncator.count += u64::from(start.is_none());
                start.map(|start| self.truncator.truncate(&start))
            }
            _ => None,
        })
    }

    /// Reads a text of a nullable column, in which a blank text means null.
    fn non_blank_text(&mut self, row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
        let text = self.text(row, column)?;
        Ok(text.filter(|text| !text.bytes().all(|byte| byte.is_ascii_whitespace())))
    }

    /// Reads the start of a large text. Returns `None` after any failure: the text is
    /// then null and counts as truncated.
    fn read_text_start(&self, column: &str) -> Option<Vec<u8>> {
        if !self.query.is_utf8 {
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

    fn parse_model(&mut self, value: ValueRef<'_>) -> Option<Model> {
        /// The model in the form that OpenCode stores.
        #[derive(serde::Deserialize)]
        struct StoredModel {
            id: String,
            #[serde(rename = "providerID")]
            provider_id: String,
            variant: Option<String>,
        }
        let ValueRef::Text(json) = value else {
            return None;
        };
        let stored: StoredModel = serde_json::from_slice(json).ok()?;
        Some(Model {
            id: self.truncator.truncate(stored.id.as_bytes()),
            provider_id: self.truncator.truncate(stored.provider_id.as_bytes()),
            variant: stored
                .variant
                .map(|variant| self.truncator.truncate(variant.as_bytes())),
        })
    }
}

/// Converts a time of a nullable column, in which 0 means null.
fn non_zero_time(value: Option<i64>) -> Option<Millis> {
    value.filter(|value| *value != 0).map(Millis)
}

/// Converts texts to the form that the wire carries: UTF-8, at most 4 KiB.
#[derive(Debug, Default)]
pub(super) struct TextTruncator {
    /// How many texts were truncated.
    pub(super) count: u64,
}

impl TextTruncator {
    pub(super) fn truncate(&mut self, bytes: &[u8]) -> String {
        // Replacing invalid bytes makes a text longer, so it is truncated before and
        // after.
        let start = &bytes[..bytes.len().min(limits::TEXT + 4)];
        let text = String::from_utf8_lossy(start);
        let cut = cut(&text, limits::TEXT);
        self.count += u64::from(start.len() < bytes.len() || cut.len() < text.len());
        cut.to_owned()
    }
}

/// Reads a session id. Only a TEXT is an id; a number or a BLOB is not the id of an
/// OpenCode session.
pub(super) fn parse_id(value: ValueRef<'_>) -> Option<SessionId> {
    let ValueRef::Text(bytes) = value else {
        return None;
    };
    SessionId::new(std::str::from_utf8(bytes).ok()?).ok()
}
