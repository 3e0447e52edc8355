//! SQLite's result codes as policy, in one table.

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

/// Reading a database failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed.
    #[error("{}", sqlite_text(.0))]
    Sqlite(#[from] rusqlite::Error),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another program has it locked.
    #[error("it is locked{}", holder(.0.as_ref()))]
    Locked(Option<LockHolder>),
    /// SQLite needs this file beside the database to read its log, and cannot open or
    /// create it.
    #[error(
        "cannot {what} {}, which SQLite needs to read the write-ahead log: {error}",
        DisplayPath(path)
    )]
    BesideIt {
        /// Open or create.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not an SQLite database, for this reason.
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

fn holder(holder: Option<&LockHolder>) -> String {
    holder.map_or_else(String::new, |holder| format!(" by {holder}"))
}

impl StoreError {
    /// The cause of an error that says that SQLite could not open a file beside the
    /// database. No connection to the database may be in use any more.
    pub(super) fn of_wal_index(error: rusqlite::Error, files: &DatabaseFiles) -> Self {
        let beside = |what, path: &Path, error| Self::BesideIt {
            what,
            path: path.to_owned(),
            error,
        };
        for file in [&files.log, &files.shm] {
            match File::open(file).and_then(|file| file.metadata()) {
                Ok(about) if about.is_dir() => {
                    return beside("open", file, Errno::ISDIR.into());
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return beside("open", file, error);
                }
                _ => {}
            }
        }
        let directory = files.main.parent().unwrap_or(&files.main);
        match rustix::fs::access(directory, Access::WRITE_OK) {
            Err(why) if !files.shm.exists() => beside("create", &files.shm, why.into()),
            _ => error.into(),
        }
    }

    /// The cause behind this error of the database at `path`, to which no connection of
    /// this process is open any more: SQLite calls a file damaged that the disk cannot
    /// read.
    #[must_use]
    pub fn with_its_cause(self, path: &Path) -> Self {
        if self.kind() != ErrorKind::Corrupt {
            return self;
        }
        match DatabaseFiles::resolve(path).and_then(|files| read_through(&files.main)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => error.into(),
            _ => self,
        }
    }

    /// True if a statement was interrupted, because its time was over.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Sqlite(error)
            if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
    }

    /// What the caller of the helper can act on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sqlite(error) => error.sqlite_error().map_or(ErrorKind::Schema, |error| {
                sqlite_kind(error.code, error.extended_code)
            }),
            Self::Io(error) => io_kind(error),
            Self::BesideIt { error, .. } => io_kind(error),
            Self::NotADatabase(_) => ErrorKind::NotADatabase,
            Self::Schema(_) => ErrorKind::Schema,
            Self::Changed | Self::Locked(_) => ErrorKind::Busy,
        }
    }

    /// The `error` line about the database at `path`: what happened to it, and
    /// the way out. It names no option: whoever shows it may have others.
    #[must_use]
    pub fn failure(&self, path: &Path) -> HelperError {
        HelperError {
            kind: self.kind(),
            message: format!(
                "cannot read {}: {self} ({})",
                DisplayPath(path),
                self.way_out()
            ),
        }
    }

    fn way_out(&self) -> &'static str {
        let of_io = match self {
            Self::Io(error) => io_way_out(error),
            Self::BesideIt { error, .. } if io_kind(error) == ErrorKind::Permission => Some(
                "make the directory writable, or copy the database and its -wal file to one that is",
            ),
            Self::BesideIt { error, .. } => io_way_out(error),
            Self::Locked(None) => Some(
                "try again when the program that uses it is done; if none does, its file system cannot lock files",
            ),
            Self::Sqlite(error) => error
                .sqlite_error()
                .and_then(|error| sqlite_way_out(error.extended_code)),
            _ => None,
        };
        of_io.unwrap_or(match self.kind() {
            ErrorKind::Busy => "try again when that program is done",
            ErrorKind::Corrupt => {
                "the database is damaged: see https://sqlite.org/recovery.html before OpenCode writes to it again"
            }
            ErrorKind::NotADatabase => "check that the path names the right file",
            ErrorKind::Permission => "check who may read it, its -wal and -shm files and its directory",
            ErrorKind::Io => "the system refused a file operation: see its log",
            ErrorKind::Schema => "check that it is a database of OpenCode",
            ErrorKind::OutOfMemory => "the helper's memory limit was reached",
            ErrorKind::Usage | ErrorKind::Internal => {
                "run `opencode-lister explain` on it and report what it prints"
            }
        })
    }
}

/// So long a file is read at most to see whether it can be.
const READ_THROUGH: Duration = Duration::from_millis(500);

/// Reads a file, as far as it comes in half a second.
fn read_through(path: &Path) -> io::Result<()> {
    let until = Instant::now() + READ_THROUGH;
    let mut file = File::open(path)?;
    let mut piece = vec![0; 1 << 20];
    while Instant::now() < until && file.read(&mut piece)? > 0 {}
    Ok(())
}

/// What SQLite says, but for "disk I/O error", which it says of every refused system
/// call.
fn sqlite_text(error: &rusqlite::Error) -> String {
    let failed = error
        .sqlite_error()
        .filter(|error| error.code == ErrorCode::SystemIoFailure);
    let Some(failed) = failed else {
        return match error.sqlite_error().map(|error| error.extended_code) {
            Some(READONLY_ROLLBACK) => "a transaction of it was not finished".to_owned(),
            _ => error.to_string(),
        };
    };
    let what = match failed.extended_code >> 8 {
        1 | 2 | 33 => "it cannot be read",
        7 => "it cannot be inspected",
        8 | 9 | 14 | 15 => "it cannot be locked",
        18..=21 => "its -shm file cannot be used",
        25 => "no temporary file can be made",
        _ => "a file operation failed",
    };
    format!("{what} (SQLite error {})", failed.extended_code)
}

/// The way out of a failed system call, where there is a better one than that of its
/// kind.
fn io_way_out(error: &io::Error) -> Option<&'static str> {
    Some(match Errno::from_io_error(error)? {
        Errno::IO => "check the disk and the system log",
        Errno::MFILE | Errno::NFILE => "too many files are open: raise the limit (ulimit -n)",
        Errno::STALE => "the network file system has lost the file: mount it again",
        Errno::LOOP => "its path is a loop of symbolic links",
        Errno::NAMETOOLONG => "its path is too long",
        Errno::NOLCK => "its file system cannot lock files",
        Errno::ROFS => "its file system is read-only",
        _ => return None,
    })
}

/// <https://sqlite.org/rescode.html#extrc>: `SQLITE_IOERR` and this, shifted.
const fn ioerr(detail: i32) -> i32 {
    10 | detail << 8
}

/// `SQLITE_READONLY_ROLLBACK`: a hot journal, which only a program that writes can roll
/// back.
const READONLY_ROLLBACK: i32 = 8 | 3 << 8;

/// The way out of an extended result code, where there is a better one than that of its
/// kind.
fn sqlite_way_out(extended: i32) -> Option<&'static str> {
    Some(match extended {
        READONLY_ROLLBACK => {
            "an unfinished transaction is in its -journal file: start OpenCode, which rolls it back"
        }
        // CORRUPTFS, which is what `EIO` becomes.
        code if code == ioerr(33) => "check the disk and the system log",
        // UNLOCK, RDLOCK, CHECKRESERVEDLOCK, LOCK.
        code if [8, 9, 14, 15].map(ioerr).contains(&code) => "its file system cannot lock files",
        // SHMOPEN, SHMSIZE, SHMLOCK, SHMMAP.
        code if [18, 19, 20, 21].map(ioerr).contains(&code) => {
            "its -shm file cannot be mapped: its file system may not share memory between programs"
        }
        // GETTEMPPATH.
        code if code == ioerr(25) => "no directory for temporary files can be written to",
        _ => return None,
    })
}

/// <https://sqlite.org/rescode.html>
fn sqlite_kind(code: ErrorCode, extended: i32) -> ErrorKind {
    /// `SQLITE_CANTOPEN_ISDIR`
    const CANTOPEN_ISDIR: i32 = 14 | 2 << 8;
    /// `SQLITE_IOERR_NOMEM`
    const IOERR_NOMEM: i32 = ioerr(12);
    match code {
        // A lock, or a race with recovery or with a writer that a retry settles.
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => ErrorKind::Busy,
        ErrorCode::DatabaseCorrupt => ErrorKind::Corrupt,
        ErrorCode::NotADatabase => ErrorKind::NotADatabase,
        ErrorCode::ReadOnly if extended == READONLY_ROLLBACK => ErrorKind::Busy,
        // READONLY is a log or a journal that must be recovered where we may not.
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
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::Permission
        }
        io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
        _ => ErrorKind::Io,
    }
}
