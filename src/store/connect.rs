//! The connection: opened so that its owner does not notice.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};

use super::StoreError;
use super::look::{Look, look};

/// How to open a database.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// How long to wait for another program's lock.
    pub busy_timeout: Duration,
    /// Bytes that SQLite may allocate, all connections of the process together.
    /// `None` leaves the process's limit alone: a host may have its own.
    pub heap_limit: Option<u64>,
    /// When to give up, for a caller that cannot be killed.
    pub deadline: Option<Instant>,
}

/// What opening found.
#[derive(Debug)]
pub enum Opened {
    /// There is no file.
    Missing,
    /// The file has zero bytes.
    Empty,
    /// The file is being made or restored, and was left alone.
    Young,
    /// The file is open.
    Ready(Database),
}

/// A database, open for reading.
#[derive(Debug)]
pub struct Database {
    // Dropped in this order: the descriptor must outlive the connection (see
    // `look`).
    conn: Connection,
    _held: File,
    path: PathBuf,
    /// For a database opened as unchanging: what it looked like before.
    before: Option<Unchanging>,
}

impl Database {
    /// Opens the database at `path`.
    ///
    /// In a directory that cannot be written to, where SQLite can make no
    /// wal-index, a database whose log is absent or empty is opened as
    /// unchanging; [`close`](Self::close) then checks that it was.
    ///
    /// # Errors
    ///
    /// Where the file is no database, or cannot be read.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Opened, StoreError> {
        // SQLite takes a relative name that begins with `file:` for a URI.
        let path = std::path::absolute(path)?;
        let held = match look(&path)? {
            Look::Missing => return Ok(Opened::Missing),
            Look::Young => return Ok(Opened::Young),
            Look::Empty => return Ok(Opened::Empty),
            Look::Open(file) => file,
        };
        let conn = connect(&path, OpenFlags::empty(), options)?;
        let (conn, before) = match touch(&conn) {
            Ok(()) => (conn, None),
            Err(error) if needs_a_wal_index(&error) => {
                let Some(before) = Unchanging::look(&path) else {
                    return Err(error.into());
                };
                let conn = connect(&immutable_uri(&path), OpenFlags::SQLITE_OPEN_URI, options)?;
                touch(&conn)?;
                (conn, Some(before))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Opened::Ready(Self {
            conn,
            _held: held,
            path,
            before,
        }))
    }

    /// Begins a read transaction: all that is read through it is of one moment.
    /// It ends when it is dropped.
    ///
    /// # Errors
    ///
    /// Where SQLite fails.
    pub fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        Ok(self.conn.unchecked_transaction()?)
    }

    /// The connection, for what needs no transaction.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.conn
    }

    /// The database's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True where it was opened as unchanging.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        self.before.is_some()
    }

    /// Closes the database. What was read counts only if this succeeds.
    ///
    /// # Errors
    ///
    /// Where the file was opened as unchanging and has changed.
    pub fn close(self) -> Result<(), StoreError> {
        match &self.before {
            Some(before) if Unchanging::look(&self.path).as_ref() != Some(before) => {
                Err(StoreError::Changed)
            }
            _ => Ok(()),
        }
    }
}

fn connect(path: &Path, more: OpenFlags, options: &OpenOptions) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    let mut conn = Connection::open_with_flags(path, flags)?;
    // Without it, closing tries the exclusive lock, and OpenCode's start fails.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // The schema may be anybody's: its views and defaults run no function that
    // does more than compute, and nothing writes.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.busy_timeout(options.busy_timeout)?;
    conn.pragma_update(None, "query_only", true)?;
    // Mapped memory of a file that another program truncates is a SIGBUS.
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    if let Some(limit) = options.heap_limit {
        conn.pragma_update(
            None,
            "hard_heap_limit",
            i64::try_from(limit).unwrap_or(i64::MAX),
        )?;
    }
    if let Some(deadline) = options.deadline {
        // Every ten thousand instructions: some microseconds to a millisecond.
        conn.progress_handler(10_000, Some(move || Instant::now() >= deadline))?;
    }
    Ok(conn)
}

/// The first access to the file; opening alone does not make one.
fn touch(conn: &Connection) -> rusqlite::Result<()> {
    // In pages, and an access itself. Nearly every page is read once, and memory
    // for more would be taken and given back for nothing.
    conn.pragma_update(None, "cache_size", 64)?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// SQLite could not make or open the wal-index, or not recover the log.
fn needs_a_wal_index(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
    )
}

/// What a database looks like that nobody can be writing to: its directory
/// cannot be written to (by us), and it has no log or journal, or an empty one.
#[derive(Debug, PartialEq)]
struct Unchanging {
    len: u64,
    changed: SystemTime,
}

impl Unchanging {
    fn look(path: &Path) -> Option<Self> {
        let writable = rustix::fs::access(path.parent()?, rustix::fs::Access::WRITE_OK).is_ok();
        let log = |suffix| std::fs::metadata(with_suffix(path, suffix)).map_or(0, |log| log.len());
        let logs = log("-wal") + log("-journal");
        let about = std::fs::metadata(path).ok()?;
        (!writable && logs == 0).then_some(Self {
            len: about.len(),
            changed: about.modified().ok()?,
        })
    }
}

/// The file beside the database at `path` whose name has `suffix` more.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// <https://sqlite.org/uri.html>
fn immutable_uri(path: &Path) -> PathBuf {
    use std::fmt::Write as _;
    let mut uri = String::from("file://");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_uri_is_the_same_path() {
        assert_eq!(
            immutable_uri(Path::new("/a b/100%?#ö.db")),
            Path::new("file:///a%20b/100%25%3F%23%C3%B6.db?immutable=1")
        );
    }
}
