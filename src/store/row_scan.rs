//! The rows of a table, read by one statement: all columns that are shown and, by a seek in an
//! index, the time of the newest message. This is several times as fast as one statement a row.
//!
//! A row with a large cell ends the statement. Its key is read by another one, and the statement
//! begins again after it. What else can go wrong, such as a damaged index of the messages, ends
//! the scan: the rows are then read one by one ([`super::sessions`]).

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Rows, Statement};

use super::activity::newest_message_sql;
use super::cell_limit::{LazyStatement, is_too_big};
use super::keys::{Filter, KeyLine, Keys, RowRange, filter_conditions, keys_sql};
use super::lines::Lines;
use super::quote_identifier;
use super::row::{NUMBER_COLUMNS, RowQuery, TEXT_COLUMNS, index_of};
use super::schema::Schema;
use super::session_row::RowReader;
use super::sessions::{Newest, SessionLoader};
use super::value::to_millis;
use crate::session::SessionId;
use crate::wire::{SessionLine, limits};

/// How much memory lines may take. It suffices for about 12,000 sessions; the rows of others are
/// read one by one when they are sent.
const MAX_LINES_BYTES: usize = 8 << 20;

/// The SQL that reads all rows of one table.
#[derive(Debug, Clone)]
pub(super) struct ScanQuery<'a> {
    rows: RowQuery<'a>,
    is_only_table: bool,
    /// Whether rows with a parent are rejected, or with a time of archiving, or without a
    /// directory.
    rejects_children: bool,
    rejects_archived: bool,
    has_directory: bool,
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
    one: String,
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
        let sql = |range| scan_sql(rows, filter, is_only_table, &newest, range);
        Self {
            sql: schema.is_utf8.then(|| ScanSql {
                all: sql(RowRange::All),
                from: sql(RowRange::From),
                one: sql(RowRange::Only),
                keys_from: keys_sql(rows, filter, is_only_table, RowRange::From),
            }),
            rows: rows.clone(),
            is_only_table,
            rejects_children: !filter.children && rows.table.has_column("parent_id"),
            rejects_archived: !filter.archived && rows.table.has_column("time_archived"),
            has_directory: rows.table.has_column("directory"),
            message_tables,
        }
    }

    /// Returns the SQL of each statement with a label.
    pub(super) fn statements(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.sql.iter().flat_map(|sql| {
            [
                ("rows", sql.all.as_str()),
                ("rows after a large cell", &sql.from),
                ("row that was not kept", &sql.one),
                ("keys after a large cell", &sql.keys_from),
            ]
        })
    }

    /// Returns true if the filter accepts a session.
    fn is_wanted(&self, session: &SessionLine<'_>) -> bool {
        let is_rejected = self.rejects_children && session.parent_id.is_some()
            || self.rejects_archived && session.time_archived.is_some()
            || self.has_directory && session.directory.is_none();
        !is_rejected
    }

    /// Returns true if the filter accepts a row, as the conditions of [`keys_sql`] do.
    fn is_wanted_row(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let is_rejected = self.rejects_children && is_non_blank(row.get_ref(PARENT_ID)?)
            || self.rejects_archived && is_time(row.get_ref(TIME_ARCHIVED)?)
            || self.has_directory && !is_non_blank(row.get_ref(DIRECTORY)?);
        Ok(!is_rejected)
    }
}

const DIRECTORY: usize = 1 + index_of("directory", &TEXT_COLUMNS);
const PARENT_ID: usize = 1 + index_of("parent_id", &TEXT_COLUMNS);
const NUMBERS: usize = 1 + TEXT_COLUMNS.len();
const TIME_UPDATED: usize = NUMBERS + index_of("time_updated", &NUMBER_COLUMNS);
const TIME_ARCHIVED: usize = NUMBERS + index_of("time_archived", &NUMBER_COLUMNS);
const NEWEST: usize = NUMBERS + NUMBER_COLUMNS.len();

/// Returns true if the value is a text that is not blank, as [`super::row::non_blank_text_expr`] does.
fn is_non_blank(value: ValueRef<'_>) -> bool {
    match value {
        ValueRef::Text(text) => {
            text.len() > limits::TEXT || !text.iter().all(u8::is_ascii_whitespace)
        }
        _ => false,
    }
}

/// Returns true if the value is a time, as [`super::row::time_set_expr`] does.
fn is_time(value: ValueRef<'_>) -> bool {
    match value {
        ValueRef::Integer(time) => time != 0,
        ValueRef::Real(time) => !(0.0..1.0).contains(&time),
        _ => false,
    }
}

/// Builds the SQL that selects the rowid, the columns of the row and the times of the newest
/// messages.
///
/// If rows of another table can hide those of this one, all rows are selected, because their ids
/// are needed.
fn scan_sql(
    rows: &RowQuery<'_>,
    filter: Filter,
    is_only_table: bool,
    newest: &[String],
    range: RowRange,
) -> String {
    let (table, rowid) = (rows.table, rows.rowid);
    let wanted = filter_conditions(rows, filter).join(" AND ");
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
        range.condition(rowid),
    )
}

/// Reads all rows of one table.
pub(super) struct TableScan<'a> {
    query: &'a ScanQuery<'a>,
    table: u8,
    all: Statement<'a>,
    from: LazyStatement<'a>,
    one: LazyStatement<'a>,
    keys_from: LazyStatement<'a>,
    reader: RowReader,
}

/// Why a statement ended.
enum ScanEnd {
    /// All rows are read.
    Complete,
    /// The buffer is full. Holds the rowid at which the rest begins.
    Full(i64),
    /// A row with at least this rowid has a large cell.
    LargeCell(i64),
    /// The rows must be read one by one.
    Refused,
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
            one: LazyStatement::new(conn, sql.one.clone()),
            reader: RowReader::new(&query.rows),
            keys_from: LazyStatement::new(conn, sql.keys_from.clone()),
        })
    }

    /// Adds the keys of all rows, and the lines of the sessions that the filter accepts, except
    /// those with an odd cell and those for which there is no memory. Returns false if an
    /// optional part cannot be read or the rowids do not ascend.
    pub(super) fn read(
        &mut self,
        loader: &mut SessionLoader<'_>,
        mark: &impl Fn(&str) -> Option<bool>,
        keys: &mut Keys,
        lines: &mut Lines,
    ) -> rusqlite::Result<bool> {
        let mut added = RowsRead {
            query: self.query,
            table: self.table,
            reader: &mut self.reader,
            mark,
            keys,
            lines,
        };
        let mut end = added.add_rows(self.all.query([])?, i64::MIN, loader)?;
        loop {
            let (from, count, line) = match end {
                ScanEnd::Complete => return Ok(true),
                ScanEnd::Refused => return Ok(false),
                ScanEnd::Full(from) => (from, usize::MAX, KeyLine::Unread),
                ScanEnd::LargeCell(from) => (from, 1, KeyLine::Odd),
            };
            let keys_from = self.keys_from.get(&loader.limit)?;
            // The conditions of this statement may create large cells.
            let last = loader.limit.run_unlimited(|| {
                let rows = keys_from.query([from])?;
                added.keys.read(self.table, rows, count, line)
            })?;
            let next = last.and_then(|last| last.checked_add(1));
            let Some(next) = next.filter(|_| count == 1) else {
                return Ok(true);
            };
            if next <= from {
                return Ok(false);
            }
            let rows = self.from.get(&loader.limit)?.query([next])?;
            end = added.add_rows(rows, next, loader)?;
        }
    }

    /// Appends the line of the session with this rowid. Returns how many texts were truncated,
    /// or `None` if the row must be read by the loader.
    pub(super) fn read_one(
        &mut self,
        rowid: i64,
        loader: &mut SessionLoader<'_>,
        mark: &impl Fn(&str) -> Option<bool>,
        line: &mut Vec<u8>,
    ) -> Option<u64> {
        let mut rows = self.one.get(&loader.limit).ok()?.query([rowid]).ok()?;
        let row = rows.next().ok()??;
        let session = read_session(self.query, &mut self.reader, row).ok()??;
        loader.append_line(self.table.into(), session, Newest::Known, 0, mark, line)
    }
}

/// What is read of one table.
struct RowsRead<'r, 'a, M> {
    query: &'r ScanQuery<'a>,
    table: u8,
    reader: &'r mut RowReader,
    mark: &'r M,
    keys: &'r mut Keys,
    lines: &'r mut Lines,
}

impl<M: Fn(&str) -> Option<bool>> RowsRead<'_, '_, M> {
    /// Adds rows, which have at least this rowid, until the statement ends or the memory is
    /// full.
    fn add_rows(
        &mut self,
        mut rows: Rows<'_>,
        from: i64,
        loader: &mut SessionLoader<'_>,
    ) -> rusqlite::Result<ScanEnd> {
        let mut next = from;
        let degraded = loader.degraded.clone();
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(ScanEnd::Complete),
                Err(error) if is_too_big(&error) => return Ok(ScanEnd::LargeCell(next)),
                Err(error) => return Err(error),
            };
            let rowid = row.get(0)?;
            if rowid < next {
                return Ok(ScanEnd::Refused);
            }
            if self.lines.size_bytes() >= MAX_LINES_BYTES {
                return Ok(ScanEnd::Full(rowid));
            }
            self.add(rowid, row, loader)?;
            if loader.degraded != degraded {
                return Ok(ScanEnd::Refused);
            }
            match rowid.checked_add(1) {
                Some(after) => next = after,
                None => return Ok(ScanEnd::Complete),
            }
        }
    }

    /// Adds the key of a row and, if the filter accepts it, its line.
    fn add(
        &mut self,
        rowid: i64,
        row: &Row<'_>,
        loader: &mut SessionLoader<'_>,
    ) -> rusqlite::Result<()> {
        let Some(session) = read_session(self.query, self.reader, row)? else {
            return self.add_odd(rowid, row);
        };
        let is_wanted = self.query.is_wanted(&session);
        if !is_wanted && self.query.is_only_table {
            return Ok(());
        }
        let (id, updated) = (session.id, session.time_updated);
        let mut line = KeyLine::Odd;
        if is_wanted {
            let text = self.lines.begin();
            let (table, mark) = (self.table.into(), self.mark);
            let listed = loader.append_line(table, session, Newest::Known, 0, mark, text);
            if let Some(truncated) = listed {
                line = KeyLine::Known(self.lines.end(truncated));
            }
        }
        let id = Some(id.as_bytes());
        self.keys
            .push(self.table, rowid, updated, id, is_wanted, line);
        Ok(())
    }

    /// Adds the key of a row that the loader must read.
    fn add_odd(&mut self, rowid: i64, row: &Row<'_>) -> rusqlite::Result<()> {
        let is_wanted = self.query.is_wanted_row(row)?;
        if !is_wanted && self.query.is_only_table {
            return Ok(());
        }
        let id = match row.get_ref(1)? {
            ValueRef::Text(id) if id.len() <= SessionId::MAX_BYTES => Some(id),
            _ => None,
        };
        let updated = to_millis(row.get_ref(TIME_UPDATED)?);
        let line = KeyLine::Odd;
        self.keys
            .push(self.table, rowid, updated, id, is_wanted, line);
        Ok(())
    }
}

/// Reads a session with the time of its newest message. Returns `None` if the loader must read
/// the row.
fn read_session<'r>(
    query: &ScanQuery<'_>,
    reader: &'r mut RowReader,
    row: &'r Row<'_>,
) -> rusqlite::Result<Option<SessionLine<'r>>> {
    let Some(mut session) = reader.read(row, 1)? else {
        return Ok(None);
    };
    for column in NEWEST..NEWEST + query.message_tables {
        let time = to_millis(row.get_ref(column)?);
        session.last_message_at = session.last_message_at.max(time);
    }
    Ok(Some(session))
}
