//! The connection: opened so that its owner does not notice.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, FileControl, OpenFlags, Transaction};

use super::StoreError;
use super::inspect::{FileState, inspect};
use super::interrupt::Interrupt;
use super::lock;
use super::log::{IndexHeader, WalIndex, WalPosition};
use super::stamp::FileStamp;
use crate::locate::{DatabaseFiles, says_wal};

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
    end: Option<WalPosition>,
    blocks_writers: bool,
}

impl Snapshot<'_> {
    /// Where in the log it ends: it has these frames, no more and no fewer;
    /// [nowhere](WalPosition::is_nowhere) if the file alone is the database. `None` where
    /// that is not certain.
    #[must_use]
    pub fn end(&self) -> Option<WalPosition> {
        self.end
    }

    /// True if no other program can commit while this snapshot is held: the database
    /// is in rollback mode.
    #[must_use]
    pub fn blocks_writers(&self) -> bool {
        self.blocks_writers
    }

    /// The bytes at the end of each page that SQLite leaves alone, in this snapshot:
    /// the file's own header can be older.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails.
    pub fn reserved_bytes(&self) -> Result<usize, StoreError> {
        // A negative number asks and sets nothing.
        let mut reserved = -1;
        let ask = FileControl::ReserveBytes(&mut reserved);
        self.transaction.file_control(None::<&str>, ask)?;
        Ok(usize::try_from(reserved).unwrap_or(0))
    }
}

impl Deref for Snapshot<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.transaction
    }
}

/// A database, open for reading.
#[derive(Debug)]
pub struct Database {
    // Dropped in this order: the descriptors must outlive the connection (see
    // `look`).
    conn: Connection,
    file: File,
    kind: Kind,
    files: DatabaseFiles,
    interrupt: Arc<Interrupt>,
    log_elsewhere: bool,
}

/// What tells where a snapshot of a database ends.
#[derive(Debug)]
enum Kind {
    /// The published end of its log.
    Wal(WalIndex),
    /// The log's end is not known: the wal-index cannot be opened.
    WalUnknown,
    /// The file, which nobody can write to while a snapshot is held.
    Rollback,
    /// The file, which looked so when it was opened as unchanging.
    Unchanging(Unchanging),
}

impl Database {
    /// Opens the database that `path` leads to.
    ///
    /// In a directory that cannot be written to, where SQLite can make no
    /// wal-index, a database whose log is absent or empty is opened as
    /// unchanging; [`close`](Self::close) then checks that it was.
    ///
    /// # Errors
    ///
    /// Returns an error if the file is not a database or cannot be read.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Opened, StoreError> {
        let files = DatabaseFiles::resolve(path)?;
        let (held, header) = match inspect(&files)? {
            FileState::Missing => return Ok(Opened::Missing),
            FileState::Young => return Ok(Opened::Young),
            FileState::Empty => return Ok(Opened::Empty),
            FileState::Open(file, header) => (file, header),
        };
        let log_elsewhere = files.log_can_be_elsewhere(&header, &held.metadata()?);
        let interrupt = Arc::new(Interrupt::new(options.deadline));
        let conn = connect(&files.main, OpenFlags::empty(), options, &interrupt)?;
        let (conn, before) = match touch(&conn) {
            Ok(()) => (conn, None),
            Err(error) if needs_a_wal_index(&error) => {
                let Some(before) = Unchanging::inspect(&files) else {
                    return Err(StoreError::of_wal_index(error, &files));
                };
                let uri = immutable_uri(&files.main);
                let conn = connect(&uri, OpenFlags::SQLITE_OPEN_URI, options, &interrupt)?;
                touch(&conn)?;
                (conn, Some(before))
            }
            Err(error) => return Err(lock::explain(error, &held, &files)),
        };
        let journal: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        let kind = match before {
            Some(before) => Kind::Unchanging(before),
            None if journal == "wal" => {
                // While the connection is open nobody can put another in its place.
                WalIndex::open(&files.shm).map_or(Kind::WalUnknown, Kind::Wal)
            }
            None => Kind::Rollback,
        };
        Ok(Opened::Ready(Self {
            conn,
            file: held,
            kind,
            files,
            interrupt,
            log_elsewhere,
        }))
    }

    /// Begins a read transaction: all that is read through it is of one moment.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails.
    pub fn begin(&self) -> Result<Snapshot<'_>, StoreError> {
        let mut attempts = 0;
        loop {
            let before = self.published()?;
            let transaction = self.conn.unchecked_transaction()?;
            // BEGIN alone takes no snapshot.
            touch(&transaction).map_err(|error| lock::explain(error, &self.file, &self.files))?;
            attempts += 1;
            if matches!(self.kind, Kind::Rollback) && is_in_wal_mode(&self.file)? {
                // Somebody switched since it was opened: its log would be ignored.
                return Err(StoreError::Changed);
            }
            let end = match self.kind {
                Kind::Rollback | Kind::Unchanging(_) => Some(WalPosition::NOWHERE),
                Kind::WalUnknown => None,
                Kind::Wal(_) => {
                    // The same header before and after: it is this one that was taken.
                    let after = self.published()?;
                    let taken = before.filter(|before| after == Some(*before));
                    if taken.is_none() && attempts < ATTEMPTS {
                        continue;
                    }
                    taken.map(|header| header.position())
                }
            };
            return Ok(Snapshot {
                transaction,
                end,
                blocks_writers: matches!(self.kind, Kind::Rollback),
            });
        }
    }

    /// The published end of the log, where SQLite trusts it.
    fn published(&self) -> Result<Option<IndexHeader>, StoreError> {
        Ok(match &self.kind {
            Kind::Wal(index) => index.published()?,
            _ => None,
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
    /// Returns an error if it cannot be opened.
    pub fn log(&self) -> io::Result<Option<File>> {
        match File::open(&self.files.log) {
            Ok(log) => Ok(Some(log)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file's stamp now; `None` where another file is in its place.
    ///
    /// # Errors
    ///
    /// Returns an error if one of both cannot be inspected.
    pub fn stamp(&self) -> io::Result<Option<FileStamp>> {
        let ours = FileStamp::of(&self.file)?;
        let same = match std::fs::metadata(&self.files.main) {
            Ok(there) => (ours.device, ours.inode) == (there.dev(), there.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(same.then_some(ours))
    }

    /// Does `work` with statements that are interrupted at `until`; they then fail as
    /// [`StoreError::is_interrupted`] tells.
    pub(crate) fn interrupted_at<T>(&self, until: Option<Instant>, work: impl FnOnce() -> T) -> T {
        self.interrupt.during(until, work)
    }

    /// True where it was opened as unchanging.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        matches!(self.kind, Kind::Unchanging(_))
    }

    /// True where its log can be elsewhere, and what is in it is missing here: see
    /// [`DatabaseFiles::log_can_be_elsewhere`].
    #[must_use]
    pub fn log_elsewhere(&self) -> bool {
        self.log_elsewhere
    }

    /// Closes the database. What was read counts only if this succeeds.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError::Changed`] if the file was opened as unchanging and has
    /// changed.
    pub fn close(self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Unchanging(before)
                if Unchanging::inspect(&self.files).as_ref() != Some(before) =>
            {
                Err(StoreError::Changed)
            }
            _ => Ok(()),
        }
    }
}

fn connect(
    path: &Path,
    more: OpenFlags,
    options: &OpenOptions,
    interrupt: &Arc<Interrupt>,
) -> Result<Connection, StoreError> {
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
    // What SQLite sorts here is small; a directory for temporary files may not be had.
    conn.pragma_update(None, "temp_store", "memory")?;
    let interrupt = Arc::clone(interrupt);
    // Every ten thousand instructions of one statement, which can be hundreds of rows.
    conn.progress_handler(10_000, Some(move || interrupt.is_due()))?;
    Ok(conn)
}

/// The first access to the file; opening alone does not make one.
fn touch(conn: &Connection) -> rusqlite::Result<()> {
    // In pages, and an access itself. Nearly every page is read once, and memory
    // for more would be taken and given back for nothing.
    conn.pragma_update(None, "cache_size", 64)?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// The file says so now.
fn is_in_wal_mode(file: &File) -> io::Result<bool> {
    let mut header = [0; 20];
    file.read_exact_at(&mut header, 0)?;
    Ok(says_wal(&header))
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
    fn inspect(files: &DatabaseFiles) -> Option<Self> {
        let directory = files.main.parent()?;
        let writable = rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok();
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |log| log.len());
        let logs = size(&files.log) + size(&files.journal());
        let about = std::fs::metadata(&files.main).ok()?;
        (!writable && logs == 0).then_some(Self {
            len: about.len(),
            changed: about.modified().ok()?,
        })
    }
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
