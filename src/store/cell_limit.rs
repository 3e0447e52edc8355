//! Loading no large cell: SQLite says that one is too big before it makes room for
//! it, at no cost for those that are not.

use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode};

/// While it lives, no statement of its connection loads or makes a cell that is
/// larger than so many bytes; it fails instead ([`is_too_big`]).
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

/// True where a statement failed because of a large cell.
pub(crate) fn is_too_big<T>(result: &rusqlite::Result<T>) -> bool {
    matches!(result, Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig))
}
