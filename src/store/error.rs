//! SQLite's result codes as policy, in one table.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;

use crate::text::Shown;
use crate::wire::{ErrorKind, Failure};

/// Reading a database failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The file could not be looked at.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is no SQLite database, for this reason.
    #[error("it {0}")]
    NotADatabase(&'static str),
    /// A table is not of a kind that can be read, for this reason.
    #[error("{0}")]
    Schema(String),
    /// The file was changed under a connection that had to take it for
    /// unchanging, because its directory cannot be written to.
    #[error("it changed while it was read")]
    Changed,
}

impl StoreError {
    /// What the caller of the helper can act on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sqlite(error) => error.sqlite_error().map_or(ErrorKind::Schema, |error| {
                sqlite_kind(error.code, error.extended_code)
            }),
            Self::Io(error) => io_kind(error),
            Self::NotADatabase(_) => ErrorKind::NotADatabase,
            Self::Schema(_) => ErrorKind::Schema,
            Self::Changed => ErrorKind::Busy,
        }
    }

    /// The `error` line about the database at `path`: what happened to it, and
    /// the way out.
    #[must_use]
    pub fn failure(&self, path: &Path) -> Failure {
        let kind = self.kind();
        let way_out = match kind {
            ErrorKind::Busy => {
                "it is locked by another program: try again, or wait longer with --busy-timeout"
            }
            ErrorKind::Corrupt => {
                "the database is damaged: see https://sqlite.org/recovery.html before OpenCode writes to it again"
            }
            ErrorKind::NotADatabase => "is it the right file?",
            ErrorKind::Permission => "see who may read it and its directory",
            ErrorKind::Io => "see whether its disk is well",
            ErrorKind::Schema => "is it a database of OpenCode?",
            ErrorKind::OutOfMemory => "raise --memory-limit",
            ErrorKind::Usage | ErrorKind::Internal => {
                "run `opencode-lister explain` on it and report what it says"
            }
        };
        Failure {
            kind,
            message: format!("cannot list {}: {self}; {way_out}", Shown(path)),
        }
    }
}

/// <https://sqlite.org/rescode.html>
fn sqlite_kind(code: ErrorCode, extended: i32) -> ErrorKind {
    /// `SQLITE_CANTOPEN_ISDIR`
    const CANTOPEN_ISDIR: i32 = 14 | 2 << 8;
    /// `SQLITE_IOERR_NOMEM`
    const IOERR_NOMEM: i32 = 10 | 12 << 8;
    /// `SQLITE_IOERR_CORRUPTFS`
    const IOERR_CORRUPTFS: i32 = 10 | 33 << 8;
    match code {
        // A lock, or a race with recovery or with a writer that a retry settles.
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => ErrorKind::Busy,
        ErrorCode::DatabaseCorrupt => ErrorKind::Corrupt,
        ErrorCode::NotADatabase => ErrorKind::NotADatabase,
        // READONLY is a log or a journal that must be recovered where we may not.
        ErrorCode::PermissionDenied
        | ErrorCode::AuthorizationForStatementDenied
        | ErrorCode::ReadOnly => ErrorKind::Permission,
        ErrorCode::OutOfMemory => ErrorKind::OutOfMemory,
        ErrorCode::SystemIoFailure => match extended {
            IOERR_NOMEM => ErrorKind::OutOfMemory,
            IOERR_CORRUPTFS => ErrorKind::Corrupt,
            _ => ErrorKind::Io,
        },
        ErrorCode::CannotOpen if extended == CANTOPEN_ISDIR => ErrorKind::NotADatabase,
        ErrorCode::CannotOpen | ErrorCode::DiskFull | ErrorCode::NoLargeFileSupport => {
            ErrorKind::Io
        }
        // SQLITE_ERROR comes from preparing: a column or table is not there.
        ErrorCode::Unknown
        | ErrorCode::SchemaChanged
        | ErrorCode::TypeMismatch
        | ErrorCode::ConstraintViolation => ErrorKind::Schema,
        _ => ErrorKind::Internal,
    }
}

fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Permission,
        io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
        _ => ErrorKind::Io,
    }
}
