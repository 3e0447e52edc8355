//! Errors of reading a database, and the mapping of SQLite's result codes to error kinds.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;
use rustix::fs::Access;
use rustix::io::Errno;

use super::lock::LockHolder;
use crate::locate::DatabaseFiles;
use crate::text::DisplayPath;
use crate::wire::{ErrorKind, HelperError};

/// An error of reading a database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed.
    #[error("{}", sqlite_message(.0))]
    Sqlite(#[from] rusqlite::Error),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another program has locked the database.
    #[error("database is locked{}", by_holder(.0.as_ref()))]
    Locked(Option<LockHolder>),
    /// SQLite needs this `-wal` or `-shm` file to read the log and cannot open or create
    /// it.
    #[error(
        "cannot {operation} {}, which SQLite needs to read the write-ahead log: {error}",
        DisplayPath(path)
    )]
    WalFile {
        /// The operation that failed: `open` or `create`.
        operation: &'static str,
        /// The path of the file.
        path: std::path::PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The file is not an SQLite database. The text says why.
    #[error("{0}")]
    NotADatabase(&'static str),
    /// The schema cannot be read. The text names the table and says why.
    #[error("{0}")]
    Schema(String),
    /// The file changed while it was open as immutable, because its directory is not
    /// writable.
    #[error("file changed while it was read")]
    Changed,
}

fn by_holder(holder: Option<&LockHolder>) -> String {
    holder.map_or_else(String::new, |holder| format!(" by {holder}"))
}

impl StoreError {
    /// Finds the cause when SQLite reports that it could not open a file beside the
    /// database. No connection of this process to the database may be in use any more.
    pub(super) fn from_wal_index_error(error: rusqlite::Error, files: &DatabaseFiles) -> Self {
        let wal_file = |operation, path: &Path, error| Self::WalFile {
            operation,
            path: path.to_owned(),
            error,
        };
        for file in [&files.log, &files.shm] {
            match File::open(file).and_then(|file| file.metadata()) {
                Ok(metadata) if metadata.is_dir() => {
                    return wal_file("open", file, Errno::ISDIR.into());
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return wal_file("open", file, error);
                }
                _ => {}
            }
        }
        let directory = files.main.parent().unwrap_or(&files.main);
        match rustix::fs::access(directory, Access::WRITE_OK) {
            Err(errno) if !files.shm.exists() => wal_file("create", &files.shm, errno.into()),
            _ => error.into(),
        }
    }

    /// Replaces a corruption error by the I/O error that caused it, if the file at `path`
    /// cannot be read: SQLite reports an unreadable file as corrupt. No connection of
    /// this process to the database may be open any more.
    #[must_use]
    pub fn with_io_cause(self, path: &Path) -> Self {
        if self.kind() != ErrorKind::Corrupt {
            return self;
        }
        match DatabaseFiles::resolve(path).and_then(|files| read_start(&files.main)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => error.into(),
            _ => self,
        }
    }

    /// Returns true if a statement was interrupted at a deadline.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Sqlite(error)
            if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
    }

    /// Returns the kind of the error, which the caller of the helper acts on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sqlite(error) => error.sqlite_error().map_or(ErrorKind::Schema, |error| {
                sqlite_kind(error.code, error.extended_code)
            }),
            Self::Io(error) => io_kind(error),
            Self::WalFile { error, .. } => io_kind(error),
            Self::NotADatabase(_) => ErrorKind::NotADatabase,
            Self::Schema(_) => ErrorKind::Schema,
            Self::Changed | Self::Locked(_) => ErrorKind::Busy,
        }
    }

    /// Returns the `error` message of the wire for the database at `path`: the problem
    /// and a hint. The hint names no command-line option, because the program that shows
    /// the message may have other options.
    #[must_use]
    pub fn to_helper_error(&self, path: &Path) -> HelperError {
        HelperError {
            kind: self.kind(),
            message: format!(
                "cannot read {}: {self} ({})",
                DisplayPath(path),
                self.hint()
            ),
        }
    }

    fn hint(&self) -> &'static str {
        let specific = match self {
            Self::Io(error) => io_hint(error),
            Self::WalFile { error, .. } if io_kind(error) == ErrorKind::Permission => Some(
                "make the directory writable, or copy the database and its -wal file to one that is",
            ),
            Self::WalFile { error, .. } => io_hint(error),
            Self::Locked(None) => Some(
                "retry when the other program has finished; if no program uses the database, the file system does not support file locks",
            ),
            Self::Sqlite(error) => error
                .sqlite_error()
                .and_then(|error| sqlite_hint(error.extended_code)),
            _ => None,
        };
        specific.unwrap_or(match self.kind() {
            ErrorKind::Busy => "retry when the other program has finished",
            ErrorKind::Corrupt => {
                "the database is damaged; see https://sqlite.org/recovery.html before OpenCode writes to it again"
            }
            ErrorKind::NotADatabase => "check that the path names the right file",
            ErrorKind::Permission => "check the permissions of the file, its -wal and -shm files and its directory",
            ErrorKind::Io => "a system call failed; check the system log",
            ErrorKind::Schema => "check that it is an OpenCode database",
            ErrorKind::OutOfMemory => "the helper's memory limit was reached",
            ErrorKind::Usage | ErrorKind::Internal => {
                "run `opencode-lister explain` on it and report the output"
            }
        })
    }
}

/// How long a file is read at most to find out whether it is readable.
const READ_TEST_TIME: Duration = Duration::from_millis(500);

/// Reads the file from its start for at most half a second.
fn read_start(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + READ_TEST_TIME;
    let mut file = File::open(path)?;
    let mut piece = vec![0; 1 << 20];
    while Instant::now() < deadline && file.read(&mut piece)? > 0 {}
    Ok(())
}

/// Returns SQLite's error message, except for "disk I/O error", which SQLite reports for
/// every failed system call.
fn sqlite_message(error: &rusqlite::Error) -> String {
    let io_error = error
        .sqlite_error()
        .filter(|error| error.code == ErrorCode::SystemIoFailure);
    let Some(io_error) = io_error else {
        return match error.sqlite_error().map(|error| error.extended_code) {
            Some(READONLY_ROLLBACK) => "unfinished transaction in the -journal file".to_owned(),
            _ => error.to_string(),
        };
    };
    let problem = match io_error.extended_code >> 8 {
        1 | 2 | 33 => "I/O error",
        7 => "cannot inspect the file",
        8 | 9 | 14 | 15 => "cannot lock the file",
        18..=21 => "cannot use the -shm file",
        25 => "cannot create a temporary file",
        _ => "file operation failed",
    };
    format!("{problem} (SQLite error {})", io_error.extended_code)
}

/// Returns the hint for a failed system call, if there is a better one than that of the
/// error kind.
fn io_hint(error: &io::Error) -> Option<&'static str> {
    Some(match Errno::from_io_error(error)? {
        Errno::IO => "check the disk and the system log",
        Errno::MFILE | Errno::NFILE => "raise the limit on open files with `ulimit -n`",
        Errno::STALE => "remount the network file system",
        Errno::LOOP => "the path contains a loop of symbolic links",
        Errno::NAMETOOLONG => "the path is too long",
        Errno::NOLCK => "the file system does not support file locks",
        Errno::ROFS => "the file system is read-only",
        _ => return None,
    })
}

/// Returns the extended result code of `SQLITE_IOERR` with this detail
/// (<https://sqlite.org/rescode.html#extrc>).
const fn ioerr_code(detail: i32) -> i32 {
    10 | detail << 8
}

/// `SQLITE_READONLY_ROLLBACK`: there is a hot journal, which only a program that may
/// write can roll back.
const READONLY_ROLLBACK: i32 = 8 | 3 << 8;

/// Returns the hint for an extended result code, if there is a better one than that of
/// the error kind.
fn sqlite_hint(extended: i32) -> Option<&'static str> {
    Some(match extended {
        READONLY_ROLLBACK => "start OpenCode, which rolls the transaction back",
        // CORRUPTFS, which SQLite reports for `EIO`.
        code if code == ioerr_code(33) => "check the disk and the system log",
        // UNLOCK, RDLOCK, CHECKRESERVEDLOCK, LOCK.
        code if [8, 9, 14, 15].map(ioerr_code).contains(&code) => {
            "the file system does not support file locks"
        }
        // SHMOPEN, SHMSIZE, SHMLOCK, SHMMAP.
        code if [18, 19, 20, 21].map(ioerr_code).contains(&code) => {
            "the -shm file cannot be mapped; the file system may not support shared memory"
        }
        // GETTEMPPATH.
        code if code == ioerr_code(25) => "no directory for temporary files is writable",
        _ => return None,
    })
}

/// Maps a result code to an error kind (<https://sqlite.org/rescode.html>).
fn sqlite_kind(code: ErrorCode, extended: i32) -> ErrorKind {
    /// `SQLITE_CANTOPEN_ISDIR`
    const CANTOPEN_ISDIR: i32 = 14 | 2 << 8;
    /// `SQLITE_IOERR_NOMEM`
    const IOERR_NOMEM: i32 = ioerr_code(12);
    match code {
        // A lock, or a race with recovery or a writer, which a retry resolves.
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => ErrorKind::Busy,
        ErrorCode::DatabaseCorrupt => ErrorKind::Corrupt,
        ErrorCode::NotADatabase => ErrorKind::NotADatabase,
        ErrorCode::ReadOnly if extended == READONLY_ROLLBACK => ErrorKind::Busy,
        // READONLY: a log or a journal needs recovery, and this process may not write.
        ErrorCode::PermissionDenied
        | ErrorCode::AuthorizationForStatementDenied
        | ErrorCode::ReadOnly => ErrorKind::Permission,
        ErrorCode::OutOfMemory => ErrorKind::OutOfMemory,
        ErrorCode::SystemIoFailure => match extended {
            IOERR_NOMEM => ErrorKind::OutOfMemory,
            _ => ErrorKind::Io,
        },
        ErrorCode::CannotOpen if extended == CANTOPEN_ISDIR => ErrorKind::NotADatabase,
        ErrorCode::CannotOpen | ErrorCode::DiskFull | ErrorCode::NoLargeFileSupport => {
            ErrorKind::Io
        }
        // SQLITE_ERROR comes from preparing a statement: a column or table is missing.
        ErrorCode::Unknown
        | ErrorCode::SchemaChanged
        | ErrorCode::TypeMismatch
        | ErrorCode::ConstraintViolation => ErrorKind::Schema,
        _ => ErrorKind::Internal,
    }
}

fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::Permission
        }
        io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
        _ => ErrorKind::Io,
    }
}
