//! A limit on the size of cells that SQLite loads. SQLite reports that a cell is too big
//! before it allocates memory for it. Rows without a large cell have no extra cost.

use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, Row, Statement};

/// Limits the size of cells: while it exists, a statement of its connection that loads or
/// creates a cell larger than the limit fails.
///
/// It must be created within a transaction that has already read the schema, since a
/// schema can be large.
#[derive(Debug)]
pub(crate) struct CellLimit<'c> {
    conn: &'c Connection,
    limit_bytes: i32,
    previous_limit_bytes: i32,
}

impl<'c> CellLimit<'c> {
    pub(crate) fn new(conn: &'c Connection, limit_bytes: i32) -> rusqlite::Result<Self> {
        Ok(Self {
            conn,
            limit_bytes,
            previous_limit_bytes: conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, limit_bytes)?,
        })
    }

    pub(crate) fn run_unlimited<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.conn
            .set_limit(Limit::SQLITE_LIMIT_LENGTH, self.previous_limit_bytes)?;
        let result = work();
        self.conn
            .set_limit(Limit::SQLITE_LIMIT_LENGTH, self.limit_bytes)?;
        result
    }
}

impl Drop for CellLimit<'_> {
    fn drop(&mut self) {
        // The limit was valid before.
        let _ = self
            .conn
            .set_limit(Limit::SQLITE_LIMIT_LENGTH, self.previous_limit_bytes);
    }
}

/// Reads rows by rowid. A row with a large cell is read by a second, slower statement,
/// which selects the size of each cell.
#[derive(Debug)]
pub(crate) struct RowById<'c> {
    conn: &'c Connection,
    row: Statement<'c>,
    large_sql: String,
    large_row: Option<Statement<'c>>,
}

impl<'c> RowById<'c> {
    /// Prepares these statements. Each has the rowid as its only parameter.
    pub(crate) fn new(
        conn: &'c Connection,
        sql: &str,
        large_sql: String,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            conn,
            row: conn.prepare(sql)?,
            large_sql,
            large_row: None,
        })
    }

    /// Reads a row with `read`, which also receives the statement that the row came from.
    /// Returns `None` if the row does not exist.
    pub(crate) fn read<T, E: From<rusqlite::Error>>(
        &mut self,
        rowid: i64,
        limit: &CellLimit<'_>,
        read: impl FnOnce(RowFormat, &Row<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let mut rows = self.row.query([rowid])?;
        match rows.next() {
            Ok(row) => return row.map(|row| read(RowFormat::Plain, row)).transpose(),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => {}
            Err(error) => return Err(error.into()),
        }
        drop(rows);
        let Self {
            conn,
            large_sql,
            large_row,
            ..
        } = self;
        limit.run_unlimited(|| {
            let large_row = match large_row {
                Some(statement) => statement,
                // Preparing can exceed the limit too, because of a large default of a
                // column.
                none => none.insert(conn.prepare(large_sql)?),
            };
            let mut rows = large_row.query([rowid])?;
            let row = rows.next()?;
            row.map(|row| read(RowFormat::Large, row)).transpose()
        })
    }
}

/// The statement that a row came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowFormat {
    /// The statement for rows without a large cell.
    Plain,
    /// The slower statement.
    Large,
}
