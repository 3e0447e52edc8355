//! Loading no large cell: SQLite says that one is too big before it makes room for
//! it, at no cost for those that are not.

use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, Row, Statement};

/// While it lives, no statement of its connection loads or makes a cell that is
/// larger than so many bytes; it fails instead.
///
/// Within a transaction whose schema was read before: a schema can be large.
#[derive(Debug)]
pub(crate) struct CellLimit<'c> {
    conn: &'c Connection,
    limit: i32,
    before: i32,
}

impl<'c> CellLimit<'c> {
    pub(crate) fn new(conn: &'c Connection, limit: i32) -> rusqlite::Result<Self> {
        Ok(Self {
            conn,
            limit,
            before: conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, limit)?,
        })
    }

    /// Does something without it.
    pub(crate) fn lifted<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.conn
            .set_limit(Limit::SQLITE_LIMIT_LENGTH, self.before)?;
        let done = work();
        self.conn
            .set_limit(Limit::SQLITE_LIMIT_LENGTH, self.limit)?;
        done
    }
}

impl Drop for CellLimit<'_> {
    fn drop(&mut self) {
        // It was a valid one.
        let _ = self.conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, self.before);
    }
}

/// Reads rows by their rowids: those without a large cell as they are, the others by
/// a slower statement, which asks for the size of each cell.
#[derive(Debug)]
pub(crate) struct RowById<'c> {
    conn: &'c Connection,
    row: Statement<'c>,
    large_sql: String,
    large_row: Option<Statement<'c>>,
}

impl<'c> RowById<'c> {
    /// By these statements, each with the rowid for its parameter.
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

    /// What `read` makes of a row, or of what the slower statement says of it; `None`
    /// where there is none.
    pub(crate) fn read<T, E: From<rusqlite::Error>>(
        &mut self,
        rowid: i64,
        limit: &CellLimit<'_>,
        read: impl FnOnce(Shape, &Row<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let mut rows = self.row.query([rowid])?;
        match rows.next() {
            Ok(row) => return row.map(|row| read(Shape::Plain, row)).transpose(),
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
        limit.lifted(|| {
            let large_row = match large_row {
                Some(statement) => statement,
                // A column's default can be large, too.
                none => none.insert(conn.prepare(large_sql)?),
            };
            let mut rows = large_row.query([rowid])?;
            let row = rows.next()?;
            row.map(|row| read(Shape::Large, row)).transpose()
        })
    }
}

/// Which statement a row came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// That for rows without a large cell.
    Plain,
    /// The slower one.
    Large,
}
