//! The connection to a database, opened so that OpenCode is not disturbed.

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
use super::stamp::DatabaseStamp;
use crate::locate::{DatabaseFiles, is_wal_header};

/// Options for opening a database.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// How long to wait for another program's lock.
    pub busy_timeout: Duration,
    /// Limit in bytes on SQLite's heap, for all connections of the process together.
    /// `None` keeps the limit of the process: a host program may have set its own.
    pub heap_limit: Option<u64>,
    /// When statements are interrupted, for a caller that cannot be killed.
    pub deadline: Option<Instant>,
}

/// The result of opening a database.
#[derive(Debug)]
pub enum Opened {
    /// The file does not exist.
    Missing,
    /// The file has zero bytes.
    Empty,
    /// The file is being created or restored and was not opened.
    Young,
    /// The file is open.
    Ready(Database),
}

/// How many snapshots are taken until one has a known position in the log. A commit
/// during the attempt leaves the position unknown.
const MAX_SNAPSHOT_ATTEMPTS: usize = 16;

/// A read transaction, which ends when this value is dropped.
#[derive(Debug)]
pub struct Snapshot<'a> {
    transaction: Transaction<'a>,
    wal_position: Option<WalPosition>,
    published: Option<PublishedLog>,
    blocks_writers: bool,
}

/// What the wal-index publishes of a snapshot beside its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedLog {
    /// The checksum of the frame that ended the last commit. It stays published when the
    /// log is restarted, until the next commit or recovery.
    pub last_commit_checksum: [u32; 2],
    /// How many commits were made since the wal-index was built.
    pub commits: u32,
    /// No generation of the log has had more frames since the wal-index was built.
    pub max_frames: u64,
}

impl Snapshot<'_> {
    /// Returns the position in the log at which the snapshot ends: it contains exactly
    /// the frames before it. [`has_log`](WalPosition::has_log) is false for it if the file
    /// alone is the database. Returns `None` if the position is unknown.
    #[must_use]
    pub fn wal_position(&self) -> Option<WalPosition> {
        self.wal_position
    }

    /// Returns what the wal-index publishes of the log, if the position is known from it.
    #[must_use]
    pub fn published(&self) -> Option<PublishedLog> {
        self.published
    }

    /// Returns true if no other program can commit while this snapshot is held, because
    /// the database is in rollback mode.
    #[must_use]
    pub fn blocks_writers(&self) -> bool {
        self.blocks_writers
    }

    /// Returns the number of reserved bytes at the end of each page, as of this snapshot.
    /// The header in the file can be older than the snapshot.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails.
    pub fn reserved_bytes(&self) -> Result<usize, StoreError> {
        // A negative value queries the setting without changing it.
        let mut reserved = -1;
        let control = FileControl::ReserveBytes(&mut reserved);
        self.transaction.file_control(None::<&str>, control)?;
        Ok(usize::try_from(reserved).unwrap_or(0))
    }
}

impl Deref for Snapshot<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.transaction
    }
}

/// A database that is open for reading.
#[derive(Debug)]
pub struct Database {
    // Fields are dropped in this order: the file descriptors must outlive the connection
    // (see `inspect`).
    conn: Connection,
    file: File,
    journal: Journal,
    files: DatabaseFiles,
    interrupt: Arc<Interrupt>,
    log_elsewhere: bool,
}

/// How the end of a snapshot in the log is determined.
#[derive(Debug)]
enum Journal {
    /// WAL mode: the wal-index header publishes the end of the log.
    Wal(WalIndex),
    /// WAL mode, but the wal-index cannot be opened: the end of the log is unknown.
    WalUnpublished,
    /// Rollback mode: no program can write to the file while a snapshot is held.
    Rollback,
    /// Opened with `immutable=1`, with the state of the file at that time.
    Immutable(ImmutableStamp),
}

impl Database {
    /// Opens the database at `path`.
    ///
    /// If the directory is not writable, SQLite cannot create a wal-index. A database
    /// whose log is absent or empty is then opened as immutable, and
    /// [`close`](Self::close) checks that it did not change.
    ///
    /// # Errors
    ///
    /// Returns an error if the file is not a database or cannot be read.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Opened, StoreError> {
        let files = DatabaseFiles::resolve(path)?;
        let (file, header) = match inspect(&files)? {
            FileState::Missing => return Ok(Opened::Missing),
            FileState::Young => return Ok(Opened::Young),
            FileState::Empty => return Ok(Opened::Empty),
            FileState::Open(file, header) => (file, header),
        };
        let log_elsewhere = files.log_can_be_elsewhere(&header, &file.metadata()?);
        let interrupt = Arc::new(Interrupt::new(options.deadline));
        let conn = connect(&files.main, OpenFlags::empty(), options, &interrupt)?;
        let (conn, immutable_stamp) = match access_file(&conn) {
            Ok(()) => (conn, None),
            Err(error) if is_wal_index_error(&error) => {
                let Some(stamp) = ImmutableStamp::inspect(&files) else {
                    return Err(StoreError::from_wal_index_error(error, &files));
                };
                let uri = immutable_uri(&files.main);
                let conn = connect(&uri, OpenFlags::SQLITE_OPEN_URI, options, &interrupt)?;
                access_file(&conn)?;
                (conn, Some(stamp))
            }
            Err(error) => return Err(lock::to_store_error(error, &file, &files)),
        };
        let journal_mode: String =
            conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        let journal = match immutable_stamp {
            Some(stamp) => Journal::Immutable(stamp),
            None if journal_mode == "wal" => {
                // No program can replace the wal-index while the connection is open.
                WalIndex::open(&files.shm).map_or(Journal::WalUnpublished, Journal::Wal)
            }
            None => Journal::Rollback,
        };
        Ok(Opened::Ready(Self {
            conn,
            file,
            journal,
            files,
            interrupt,
            log_elsewhere,
        }))
    }

    /// Begins a read transaction. Everything read through it belongs to one snapshot.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails, or [`StoreError::Changed`] if the database was
    /// switched to WAL mode after it was opened.
    pub fn begin(&self) -> Result<Snapshot<'_>, StoreError> {
        let mut attempts = 0;
        loop {
            let before = self.published_header()?;
            let transaction = self.conn.unchecked_transaction()?;
            // BEGIN alone takes no snapshot.
            access_file(&transaction)
                .map_err(|error| lock::to_store_error(error, &self.file, &self.files))?;
            attempts += 1;
            if matches!(self.journal, Journal::Rollback) && is_in_wal_mode(&self.file)? {
                // The database was switched to WAL mode after it was opened. This
                // connection would ignore the log.
                return Err(StoreError::Changed);
            }
            let (wal_position, published) = match &self.journal {
                Journal::Rollback | Journal::Immutable(_) => (Some(WalPosition::NO_LOG), None),
                Journal::WalUnpublished => (None, None),
                Journal::Wal(index) => {
                    // The snapshot is that of the header only if the header is the same
                    // before and after BEGIN.
                    let after = self.published_header()?;
                    let taken = before.filter(|before| after == Some(*before));
                    if taken.is_none() && attempts < MAX_SNAPSHOT_ATTEMPTS {
                        continue;
                    }
                    let max_frames = index.max_frames()?;
                    let published = |header: IndexHeader| PublishedLog {
                        last_commit_checksum: header.last_commit_checksum(),
                        commits: header.commits(),
                        max_frames,
                    };
                    taken
                        .map(|header| (header.position(), published(header)))
                        .unzip()
                }
            };
            return Ok(Snapshot {
                transaction,
                wal_position,
                published,
                blocks_writers: matches!(self.journal, Journal::Rollback),
            });
        }
    }

    /// Returns the published wal-index header, if SQLite trusts it.
    fn published_header(&self) -> Result<Option<IndexHeader>, StoreError> {
        Ok(match &self.journal {
            Journal::Wal(index) => index.published_header()?,
            _ => None,
        })
    }

    /// Returns the database file itself, for reading at offsets past SQLite. It must not
    /// be cloned (see `inspect`).
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Opens the log file, which carries no locks. Returns `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be opened.
    pub fn open_log(&self) -> io::Result<Option<File>> {
        match File::open(&self.files.log) {
            Ok(log) => Ok(Some(log)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the current stamp of the file, or `None` if another file has taken its
    /// place.
    ///
    /// # Errors
    ///
    /// Returns an error if either file cannot be inspected.
    pub fn stamp(&self) -> io::Result<Option<DatabaseStamp>> {
        let stamp = DatabaseStamp::from_file(&self.file)?;
        let is_same_file = match std::fs::metadata(&self.files.main) {
            Ok(current) => (stamp.file.device, stamp.file.inode) == (current.dev(), current.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(is_same_file.then_some(stamp))
    }

    /// Runs `work` with its statements interrupted at `deadline`. An interrupted
    /// statement fails with an error for which [`StoreError::is_interrupted`] is true.
    pub(crate) fn run_until<T>(&self, deadline: Option<Instant>, work: impl FnOnce() -> T) -> T {
        self.interrupt.run_until(deadline, work)
    }

    /// Returns true if the database was opened as immutable.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        matches!(self.journal, Journal::Immutable(_))
    }

    /// Returns true if the log can be in another place, in which case its content is
    /// missing here: see `DatabaseFiles::log_can_be_elsewhere`.
    #[must_use]
    pub fn log_elsewhere(&self) -> bool {
        self.log_elsewhere
    }

    /// Closes the database. What was read is valid only if this succeeds.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError::Changed`] if the file was opened as immutable and has
    /// changed.
    pub fn close(self) -> Result<(), StoreError> {
        match &self.journal {
            Journal::Immutable(before)
                if ImmutableStamp::inspect(&self.files).as_ref() != Some(before) =>
            {
                Err(StoreError::Changed)
            }
            _ => Ok(()),
        }
    }
}

fn connect(
    path: &Path,
    extra_flags: OpenFlags,
    options: &OpenOptions,
    interrupt: &Arc<Interrupt>,
) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra_flags;
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that opens a connection"
    )]
    let mut conn = Connection::open_with_flags(path, flags)?;
    // Without this, closing tries to take the exclusive lock, which makes a starting
    // OpenCode fail.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // The schema is untrusted: its views and defaults may call no function with side
    // effects, and nothing may be written.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.busy_timeout(options.busy_timeout)?;
    conn.pragma_update(None, "query_only", true)?;
    // Access to mapped memory of a file that another program truncates raises SIGBUS.
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    if let Some(limit) = options.heap_limit {
        conn.pragma_update(
            None,
            "hard_heap_limit",
            i64::try_from(limit).unwrap_or(i64::MAX),
        )?;
    }
    // SQLite sorts little here, and no directory for temporary files may be available.
    conn.pragma_update(None, "temp_store", "memory")?;
    let interrupt = Arc::clone(interrupt);
    // Called every ten thousand instructions of a statement, which can be hundreds of
    // rows.
    conn.progress_handler(10_000, Some(move || interrupt.is_due()))?;
    Ok(conn)
}

/// Makes the first access to the file, which takes the snapshot. Opening alone does not.
fn access_file(conn: &Connection) -> rusqlite::Result<()> {
    // In pages. Setting it already accesses the file. Nearly every page is read once, so
    // a larger cache would be allocated and freed for nothing.
    conn.pragma_update(None, "cache_size", 64)?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// Returns true if the header in the file now says WAL mode.
fn is_in_wal_mode(file: &File) -> io::Result<bool> {
    let mut header = [0; 20];
    file.read_exact_at(&mut header, 0)?;
    Ok(is_wal_header(&header))
}

/// Returns true if SQLite could not create or open the wal-index, or could not recover
/// the log.
fn is_wal_index_error(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
    )
}

/// The state of a database file that no program can be writing to: this process may not
/// write to its directory, and it has no log or journal, or an empty one.
#[derive(Debug, PartialEq)]
struct ImmutableStamp {
    size_bytes: u64,
    modified: SystemTime,
}

impl ImmutableStamp {
    fn inspect(files: &DatabaseFiles) -> Option<Self> {
        let directory = files.main.parent()?;
        let is_writable = rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok();
        let size_bytes = |path: &Path| std::fs::metadata(path).map_or(0, |log| log.len());
        let log_bytes = size_bytes(&files.log) + size_bytes(&files.journal());
        let metadata = std::fs::metadata(&files.main).ok()?;
        (!is_writable && log_bytes == 0).then_some(Self {
            size_bytes: metadata.len(),
            modified: metadata.modified().ok()?,
        })
    }
}

/// Returns the URI that opens the file as immutable (<https://sqlite.org/uri.html>).
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
    fn immutable_uri_escapes_the_path() {
        assert_eq!(
            immutable_uri(Path::new("/a b/100%?#ö.db")),
            Path::new("file:///a%20b/100%25%3F%23%C3%B6.db?immutable=1")
        );
    }
}
