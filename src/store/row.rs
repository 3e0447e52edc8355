//! The row of one session: every column that is shown, if its table has it. No large cell
//! is loaded.

use std::borrow::Cow;
use std::io::Read;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, Row};

use super::cell_limit::{CellLimit, RowById};
use super::quote_identifier;
use super::row_buffer::{NewRow, RowBuffer};
use super::schema::{Schema, Table};
use crate::session::{Millis, SessionId, Store};
use crate::text::cut;
use crate::wire::limits;

/// The size in bytes of the largest cell that is loaded whole.
pub(super) const MAX_LOADED_BYTES: i32 = 64 << 10;

/// The placeholder in a row for a text larger than [`MAX_LOADED_BYTES`]. It is a BLOB,
/// which is otherwise not a valid value.
const LARGE_TEXT: &str = "opencode-lister: a large text";

/// The text columns of a session, in the order in which they are selected.
pub(super) const TEXT_COLUMNS: [&str; 13] = [
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

/// The number columns of a session, in the order in which they are selected.
pub(super) const NUMBER_COLUMNS: [&str; 16] = [
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
        let row = |text: fn(&str) -> String, number: fn(&str) -> String| {
            let columns = columns(table, text, number);
            format!("SELECT {columns} FROM {name} AS s WHERE s.{rowid} = ?1")
        };
        Self {
            table,
            rowid,
            store,
            is_utf8: schema.is_utf8,
            row: row(plain, plain),
            large_row: row(text_expr, number_expr),
        }
    }

    /// Returns the columns of a row without a large cell, separated by commas.
    pub(super) fn columns(&self) -> String {
        columns(self.table, plain, plain)
    }
}

fn plain(column: &str) -> String {
    format!("s.{column}")
}

/// Returns the columns that [`read_row`] reads, separated by commas.
fn columns(table: &Table, text: fn(&str) -> String, number: fn(&str) -> String) -> String {
    let or_null = |column: &str, sql: String| match table.has_column(column) {
        true => sql,
        false => "NULL".to_owned(),
    };
    let texts = TEXT_COLUMNS.map(|column| or_null(column, text(column)));
    let numbers = NUMBER_COLUMNS.map(|column| or_null(column, number(column)));
    let columns: Vec<_> = texts.into_iter().chain(numbers).collect();
    columns.join(", ")
}

/// Returns an SQL expression for a text column, which yields [`LARGE_TEXT`] for a large
/// text without loading it.
fn text_expr(column: &str) -> String {
    let column = plain(column);
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

pub(super) fn to_integer(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(value) => Some(value),
        #[expect(clippy::cast_possible_truncation, reason = "`as` clamps to the range")]
        ValueRef::Real(value) => Some(value.floor() as i64),
        _ => None,
    }
}

/// Reads the sessions of one table by their rowids.
pub(super) struct SessionRows<'a> {
    query: &'a RowQuery<'a>,
    conn: &'a Connection,
    row: RowById<'a>,
}

impl<'a> SessionRows<'a> {
    /// Prepares the statement.
    pub(super) fn new(query: &'a RowQuery<'a>, conn: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            query,
            conn,
            row: RowById::new(conn, &query.row, query.large_row.clone())?,
        })
    }

    /// As [`new`](Self::new), but the statement is prepared when it is needed.
    pub(super) fn lazy(query: &'a RowQuery<'a>, conn: &'a Connection) -> Self {
        Self {
            query,
            conn,
            row: RowById::lazy(conn, query.row.clone(), query.large_row.clone()),
        }
    }

    /// Adds the row with this rowid to `buffer`, without its optional parts. Returns its index,
    /// or `None` if the row has no valid id. The limit must be [`MAX_LOADED_BYTES`].
    pub(super) fn read(
        &mut self,
        rowid: i64,
        limit: &CellLimit<'_>,
        buffer: &mut RowBuffer,
    ) -> rusqlite::Result<Option<usize>> {
        let start = |column: &str| read_text_start(self.conn, self.query, rowid, column);
        let row = self.row.read(rowid, limit, |_, row| {
            let mut new = buffer.begin(self.query.store);
            let is_session = read_row(row, 0, &mut new, start)?;
            Ok::<_, rusqlite::Error>(is_session.then(|| new.finish()))
        })?;
        Ok(row.flatten())
    }
}

/// Adds the columns of a row, which begin with this one. Returns false if the row has no valid
/// id. Of a text that is too large to be loaded, `start` returns the start.
pub(super) fn read_row(
    row: &Row<'_>,
    first: usize,
    new: &mut NewRow<'_>,
    start: impl Fn(&str) -> Option<Vec<u8>>,
) -> rusqlite::Result<bool> {
    if !new.id(row.get_ref(first)?) {
        return Ok(false);
    }
    for (index, name) in TEXT_COLUMNS.into_iter().enumerate().skip(1) {
        let value = row.get_ref(first + index)?;
        match (name, value) {
            ("model", value) => add_model(value, new),
            (_, ValueRef::Text(text)) => new.text(Some(text), name != "title"),
            (_, ValueRef::Blob(bytes)) if bytes == LARGE_TEXT.as_bytes() => {
                let start = start(name);
                if start.is_none() {
                    new.count_unreadable();
                }
                new.text(start.as_deref(), name != "title");
            }
            _ => new.text(None, true),
        }
    }
    for (index, name) in NUMBER_COLUMNS.into_iter().enumerate() {
        let value = row.get_ref(first + TEXT_COLUMNS.len() + index)?;
        match name {
            "cost" => new.cost(value),
            _ => new.number(value),
        }
    }
    Ok(true)
}

/// Adds the three texts of a model.
fn add_model(value: ValueRef<'_>, new: &mut NewRow<'_>) {
    /// The model in the form that OpenCode stores.
    #[derive(serde::Deserialize)]
    struct StoredModel<'j> {
        #[serde(borrow)]
        id: Cow<'j, str>,
        #[serde(borrow, rename = "providerID")]
        provider_id: Cow<'j, str>,
        #[serde(borrow)]
        variant: Option<Cow<'j, str>>,
    }
    let stored: Option<StoredModel<'_>> = match value {
        ValueRef::Text(json) => serde_json::from_slice(json).ok(),
        _ => None,
    };
    let stored = stored.as_ref();
    new.text(stored.map(|model| model.id.as_bytes()), false);
    new.text(stored.map(|model| model.provider_id.as_bytes()), false);
    let variant = stored.and_then(|model| model.variant.as_deref());
    new.text(variant.map(str::as_bytes), false);
}

/// Reads the start of a large text. Returns `None` after any failure: the text is then null
/// and counts as truncated.
fn read_text_start(
    conn: &Connection,
    query: &RowQuery<'_>,
    rowid: i64,
    column: &str,
) -> Option<Vec<u8>> {
    if !query.is_utf8 {
        return None;
    }
    let table = query.table.name.as_str();
    let cell = conn.blob_open(MAIN_DB, table, column, rowid, true).ok()?;
    let mut start = Vec::with_capacity(2 * limits::TEXT);
    cell.take(2 * limits::TEXT as u64)
        .read_to_end(&mut start)
        .ok()?;
    Some(start)
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

/// Reads a session id. Only a TEXT is an id; a number or a BLOB is not the id of an OpenCode
/// session.
pub(super) fn parse_id(value: ValueRef<'_>) -> Option<&str> {
    let ValueRef::Text(bytes) = value else {
        return None;
    };
    let id = std::str::from_utf8(bytes).ok()?;
    SessionId::check(id).ok().map(|()| id)
}
