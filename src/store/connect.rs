//! The connection: opened so that its owner does not notice.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use bincode::{Decode, Encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};

use super::StoreError;
use super::log::{IndexHeader, Position};
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

/// How often a snapshot is taken anew whose place in the log is not certain,
/// because somebody commits just then.
const ATTEMPTS: usize = 16;

/// A read transaction; it ends when it is dropped.
#[derive(Debug)]
pub struct Snapshot<'a> {
    transaction: Transaction<'a>,
    end: Option<Position>,
}

impl Snapshot<'_> {
    /// Where in the log it ends: it has these frames, no more and no fewer.
    /// `None` without a log, or where that could not be made certain.
    #[must_use]
    pub fn end(&self) -> Option<Position> {
        self.end
    }
}

impl Deref for Snapshot<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.transaction
    }
}

/// What a file looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FileLooks {
    /// The device it is on.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its content changed, in seconds and nanoseconds.
    pub modified: (i64, i64),
    /// When its inode changed.
    pub changed: (i64, i64),
}

/// A database, open for reading.
#[derive(Debug)]
pub struct Database {
    // Dropped in this order: the descriptors must outlive the connection (see
    // `look`).
    conn: Connection,
    file: File,
    /// The `-shm` file of a database in WAL mode.
    shm: Option<File>,
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
        let journal: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        let shm = if journal == "wal" && before.is_none() {
            // While the connection is open nobody can put another in its place.
            File::open(with_suffix(&path, "-shm")).ok()
        } else {
            None
        };
        Ok(Opened::Ready(Self {
            conn,
            file: held,
            shm,
            path,
            before,
        }))
    }

    /// Begins a read transaction: all that is read through it is of one moment.
    ///
    /// # Errors
    ///
    /// Where SQLite fails.
    pub fn begin(&self) -> Result<Snapshot<'_>, StoreError> {
        let mut attempts = 0;
        loop {
            let before = self.index_header()?;
            let transaction = self.conn.unchecked_transaction()?;
            // BEGIN alone takes no snapshot.
            touch(&transaction)?;
            attempts += 1;
            // The same header before and after: it is this one that was taken.
            let after = self.index_header()?;
            let taken = before.filter(|before| after == Some(*before));
            if taken.is_some() || self.shm.is_none() || attempts == ATTEMPTS {
                let end = taken.map(|header| header.position());
                return Ok(Snapshot { transaction, end });
            }
        }
    }

    fn index_header(&self) -> Result<Option<IndexHeader>, StoreError> {
        Ok(match &self.shm {
            Some(shm) => IndexHeader::read(shm)?,
            None => None,
        })
    }

    /// The file itself, past SQLite: for reading at offsets, and not to be cloned
    /// (see `look`).
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The log; `None` where there is none. It carries no locks.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened.
    pub fn log(&self) -> io::Result<Option<File>> {
        match File::open(with_suffix(&self.path, "-wal")) {
            Ok(log) => Ok(Some(log)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the file looks like now; `None` where another one is in its place.
    ///
    /// # Errors
    ///
    /// Where the system refuses.
    pub fn looks(&self) -> io::Result<Option<FileLooks>> {
        let ours = self.file.metadata()?;
        let same = match std::fs::metadata(&self.path) {
            Ok(there) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(same.then(|| FileLooks {
            device: ours.dev(),
            inode: ours.ino(),
            size: ours.len(),
            modified: (ours.mtime(), ours.mtime_nsec()),
            changed: (ours.ctime(), ours.ctime_nsec()),
        }))
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
