//! The SQL of the row of one session: every column that is shown, if its table has it. No
//! large cell is loaded.

use super::quote_identifier;
use super::schema::{Schema, Table};
use crate::session::Store;
use crate::wire::limits;

/// The size in bytes of the largest cell that is loaded whole.
pub(super) const MAX_LOADED_BYTES: i32 = 64 << 10;

/// The placeholder in a row for a text larger than [`MAX_LOADED_BYTES`]. It is a BLOB,
/// which is otherwise not a valid value.
pub(super) const LARGE_TEXT: &str = "opencode-lister: a large text";

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
    pub(super) is_utf8: bool,
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

/// Returns the columns of [`TEXT_COLUMNS`] and [`NUMBER_COLUMNS`], separated by commas.
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

/// Returns the index of a column.
pub(super) const fn index_of(column: &str, columns: &[&str]) -> usize {
    let mut index = 0;
    while !is_equal(columns[index].as_bytes(), column.as_bytes()) {
        index += 1;
    }
    index
}

const fn is_equal(one: &[u8], other: &[u8]) -> bool {
    match (one, other) {
        ([], []) => true,
        ([a, one @ ..], [b, other @ ..]) => *a == *b && is_equal(one, other),
        _ => false,
    }
}
