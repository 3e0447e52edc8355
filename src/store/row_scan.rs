//! The rows of a table, read by one statement: all columns that are shown and, by a seek in an
//! index, the time of the newest message. This is several times as fast as one statement a row.
//!
//! A row with a large cell ends the statement. Its key is read by another one, and the statement
//! begins again after it. What else can go wrong, such as a damaged index of the messages, ends
//! the scan: the rows are then read one by one ([`super::sessions`]).

use std::cell::Cell;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Statement};

use super::activity::newest_message_sql;
use super::cell_limit::{CellLimit, LazyStatement, is_too_big};
use super::keys::{Filter, FirstRow, Keys, keys_sql};
use super::quote_identifier;
use super::row::{
    NUMBER_COLUMNS, RowQuery, TEXT_COLUMNS, non_blank_text_expr, read_row, time_set_expr,
    to_integer, to_millis,
};
use super::row_buffer::RowBuffer;
use super::schema::Schema;
use crate::session::SessionId;
use crate::wire::limits;

/// How much memory rows may take. It suffices for about 20,000 sessions; the rows of others are
/// read one by one when they are sent.
const MAX_BUFFERED_BYTES: usize = 8 << 20;

/// The SQL that reads all rows of one table.
#[derive(Debug, Clone)]
pub(super) struct ScanQuery<'a> {
    rows: RowQuery<'a>,
    filter: Filter,
    is_only_table: bool,
    /// How many tables have messages.
    message_tables: usize,
    /// `None` if the database is not in UTF-8: the bytes of a text then differ from those that
    /// are read, and all rows are read one by one.
    sql: Option<ScanSql>,
}

#[derive(Debug, Clone)]
struct ScanSql {
    all: String,
    from: String,
    keys_from: String,
}

impl<'a> ScanQuery<'a> {
    pub(super) fn new(
        schema: &Schema,
        rows: &RowQuery<'a>,
        filter: Filter,
        is_only_table: bool,
    ) -> Self {
        // `+` removes the affinity of the column, which a parameter does not have either.
        let newest = newest_message_sql(schema, "+s.id");
        let message_tables = newest.len();
        let sql = |from| scan_sql(rows, filter, is_only_table, &newest, from);
        Self {
            sql: schema.is_utf8.then(|| ScanSql {
                all: sql(FirstRow::OfTable),
                from: sql(FirstRow::Parameter),
                keys_from: keys_sql(rows, filter, is_only_table, FirstRow::Parameter),
            }),
            rows: rows.clone(),
            filter,
            is_only_table,
            message_tables,
        }
    }

    /// Returns the SQL of each statement with a label.
    pub(super) fn statements(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.sql.iter().flat_map(|sql| {
            [
                ("rows", sql.all.as_str()),
                ("rows after a large cell", &sql.from),
                ("keys after a large cell", &sql.keys_from),
            ]
        })
    }

    /// Returns true if the filter accepts a row, as the conditions of [`keys_sql`] do.
    fn is_wanted(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let column = |name: &str, index: usize| match self.rows.table.has_column(name) {
            true => row.get_ref(1 + index).map(Some),
            false => Ok(None),
        };
        let is_child = match column("parent_id", PARENT_ID)? {
            Some(parent) if !self.filter.children => is_non_blank(parent),
            _ => false,
        };
        let is_archived = match column("time_archived", TEXT_COLUMNS.len() + TIME_ARCHIVED)? {
            Some(ValueRef::Integer(time)) if !self.filter.archived => time != 0,
            Some(ValueRef::Real(time)) if !self.filter.archived => !(0.0..1.0).contains(&time),
            _ => false,
        };
        let has_directory = column("directory", DIRECTORY)?.is_none_or(is_non_blank);
        Ok(!is_child && !is_archived && has_directory)
    }
}

const DIRECTORY: usize = 1;
const PARENT_ID: usize = 3;
const TIME_UPDATED: usize = 1;
const TIME_ARCHIVED: usize = 2;

/// Returns true if the value is a text that is not blank, as [`non_blank_text_expr`] does.
fn is_non_blank(value: ValueRef<'_>) -> bool {
    match value {
        ValueRef::Text(text) => {
            text.len() > limits::TEXT || !text.iter().all(u8::is_ascii_whitespace)
        }
        _ => false,
    }
}

/// Builds the SQL that selects the rowid, the columns of the row and the times of the newest
/// messages.
///
/// The conditions reject most rows that the filter rejects, at little cost: most columns that
/// can reject a row are null, and comparing with null calls no function. If rows of another table
/// can hide those of this one, all rows are selected, because their ids are needed.
fn scan_sql(
    rows: &RowQuery<'_>,
    filter: Filter,
    is_only_table: bool,
    newest: &[String],
    from: FirstRow,
) -> String {
    let (table, rowid) = (rows.table, rows.rowid);
    let mut wanted = vec!["1".to_owned()];
    if table.has_column("parent_id") && !filter.children {
        let is_child = non_blank_text_expr("parent_id");
        wanted.push(format!("(s.parent_id IS NULL OR NOT {is_child})"));
    }
    if table.has_column("time_archived") && !filter.archived {
        let is_archived = time_set_expr("time_archived");
        wanted.push(format!("(s.time_archived IS NULL OR NOT {is_archived})"));
    }
    let wanted = wanted.join(" AND ");
    let newest = newest.iter().map(|sql| match is_only_table {
        true => format!(", ({sql})"),
        false => format!(", CASE WHEN {wanted} THEN ({sql}) END"),
    });
    let condition = if is_only_table { &wanted } else { "1" };
    format!(
        "SELECT s.{rowid}, {}{} FROM {} AS s NOT INDEXED WHERE {condition}{}",
        rows.columns(),
        newest.collect::<String>(),
        quote_identifier(&table.name),
        from.condition(rowid),
    )
}

/// Reads all rows of one table.
pub(super) struct TableScan<'a> {
    query: &'a ScanQuery<'a>,
    table: u8,
    all: Statement<'a>,
    from: LazyStatement<'a>,
    keys_from: LazyStatement<'a>,
}

/// Why a statement ended.
enum ScanEnd {
    /// All rows are read.
    Complete,
    /// The buffer is full. Holds the rowid at which the rest begins.
    Full(i64),
    /// A row with at least this rowid has a large cell.
    LargeCell(i64),
    /// The rowids do not ascend.
    Damaged,
}

impl<'a> TableScan<'a> {
    /// Prepares the statement. `table` is the index of the table.
    ///
    /// # Errors
    ///
    /// Returns an error if the rows of the table can only be read one by one.
    pub(super) fn new(
        conn: &'a Connection,
        query: &'a ScanQuery<'a>,
        table: u8,
    ) -> rusqlite::Result<Self> {
        let sql = query.sql.as_ref().ok_or(rusqlite::Error::InvalidQuery)?;
        Ok(Self {
            query,
            table,
            all: conn.prepare(&sql.all)?,
            from: LazyStatement::new(conn, sql.from.clone()),
            keys_from: LazyStatement::new(conn, sql.keys_from.clone()),
        })
    }

    /// Adds the keys of all rows, and to `buffer` the rows that the filter accepts, except those
    /// with a large cell and those for which there is no memory. Returns false if the rowids do
    /// not ascend.
    pub(super) fn read(
        mut self,
        limit: &CellLimit<'_>,
        keys: &mut Keys,
        buffer: &mut RowBuffer,
    ) -> rusqlite::Result<bool> {
        let (query, table) = (self.query, self.table);
        let mut end = query.read_rows(table, &mut self.all, None, keys, buffer)?;
        loop {
            let (from, count) = match end {
                ScanEnd::Complete => return Ok(true),
                ScanEnd::Damaged => return Ok(false),
                ScanEnd::Full(from) => (from, usize::MAX),
                ScanEnd::LargeCell(from) => (from, 1),
            };
            let keys_from = self.keys_from.get(limit)?;
            // The conditions of this statement may create large cells.
            let last = limit.run_unlimited(|| keys.read(table, keys_from.query([from])?, count))?;
            let next = last.and_then(|last| last.checked_add(1));
            let Some(next) = next.filter(|_| count == 1) else {
                return Ok(true);
            };
            if next <= from {
                return Ok(false);
            }
            let rest = self.from.get(limit)?;
            end = query.read_rows(table, rest, Some(next), keys, buffer)?;
        }
    }
}

impl ScanQuery<'_> {
    /// Reads rows until the statement ends or the buffer is full.
    fn read_rows(
        &self,
        table: u8,
        statement: &mut Statement<'_>,
        from: Option<i64>,
        keys: &mut Keys,
        buffer: &mut RowBuffer,
    ) -> rusqlite::Result<ScanEnd> {
        let mut rows = match from {
            Some(from) => statement.query([from])?,
            None => statement.query([])?,
        };
        let mut next = from.unwrap_or(i64::MIN);
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(ScanEnd::Complete),
                Err(error) if is_too_big(&error) => return Ok(ScanEnd::LargeCell(next)),
                Err(error) => return Err(error),
            };
            let rowid = row.get(0)?;
            if rowid < next {
                return Ok(ScanEnd::Damaged);
            }
            if buffer.size_bytes() > MAX_BUFFERED_BYTES {
                return Ok(ScanEnd::Full(rowid));
            }
            self.add(table, rowid, row, keys, buffer)?;
            match rowid.checked_add(1) {
                Some(after) => next = after,
                None => return Ok(ScanEnd::Complete),
            }
        }
    }

    /// Adds the key of a row and, if the filter accepts it, the row.
    fn add(
        &self,
        table: u8,
        rowid: i64,
        row: &Row<'_>,
        keys: &mut Keys,
        buffer: &mut RowBuffer,
    ) -> rusqlite::Result<()> {
        let is_wanted = self.is_wanted(row)?;
        if !is_wanted && self.is_only_table {
            return Ok(());
        }
        let id = match row.get_ref(1)? {
            ValueRef::Text(id) if id.len() <= SessionId::MAX_BYTES => Some(id),
            _ => None,
        };
        let updated = to_millis(row.get_ref(1 + TEXT_COLUMNS.len() + TIME_UPDATED)?);
        let mut buffered = None;
        if is_wanted {
            let mut new = buffer.begin(self.rows.store);
            // A BLOB can look like the placeholder of a large text, of which there are none here.
            let has_placeholder = Cell::new(false);
            let is_session = read_row(row, 1, &mut new, |_| {
                has_placeholder.set(true);
                None
            })?;
            if is_session && !has_placeholder.get() {
                let first = 1 + TEXT_COLUMNS.len() + NUMBER_COLUMNS.len();
                let mut newest = None;
                for column in first..first + self.message_tables {
                    newest = newest.max(to_integer(row.get_ref(column)?));
                }
                new.integer(newest);
                buffered = Some(new.finish());
            } else {
                new.abandon();
            }
        }
        keys.push(table, rowid, updated, id, is_wanted, buffered);
        Ok(())
    }
}
