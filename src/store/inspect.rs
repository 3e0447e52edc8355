//! Inspection of the database file before SQLite may open it.
//!
//! Opening a database has side effects, even read-only:
//!
//! * OpenCode sets `journal_mode=WAL` before it sets a busy timeout. A lock held by
//!   another program at that moment makes its start fail. So a file that is being created
//!   is not opened until it has not changed for two seconds. That is a file that is not
//!   in WAL mode and has no complete first page or no tables, or one that has fewer pages
//!   than its header says and no log with the others. A database in rollback mode that a
//!   program writes to is not being created: its locks say when it can be read.
//! * SQLite treats an empty file as a new database and deletes the log beside it
//!   (`pagerOpenWalIfPresent`), even for a read-only connection. So an empty file is
//!   never opened.
//!
//! The descriptor stays open until the connection is closed: POSIX locks belong to the
//! process, and closing any descriptor of a file drops all of them
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, SystemTime};

use super::StoreError;
use crate::locate::{DatabaseFiles, is_missing, is_wal_header};

/// How long a file that looks incomplete must have been unchanged before it is opened.
const SETTLE_TIME: Duration = Duration::from_secs(2);

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The largest size of a file that counts as empty. SQLite treats a file of one byte as
/// empty, since it once had to write one byte to lock a file (`unixFileSize`).
const EMPTY_MAX_BYTES: u64 = 1;

/// The result of an inspection.
#[derive(Debug)]
pub(super) enum FileState {
    /// The file does not exist.
    Missing,
    /// The file is being created or restored.
    Young,
    /// The file has no content and has not changed recently.
    Empty,
    /// The file may be opened as long as this descriptor is open. The second value holds
    /// its first bytes.
    Open(File, Vec<u8>),
}

/// Inspects the main file of a database.
///
/// # Errors
///
/// Returns [`StoreError::NotADatabase`] if the path is not a regular file or does not
/// begin with an SQLite header, or an error if it cannot be read.
pub(super) fn inspect(files: &DatabaseFiles) -> Result<FileState, StoreError> {
    // Without NONBLOCK, opening a FIFO would block.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(nonblock)
        .open(&files.main)
    {
        Ok(file) => file,
        Err(error) if is_missing(&error) => return Ok(FileState::Missing),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(StoreError::NotADatabase("path is a directory"));
    }
    if !metadata.is_file() {
        return Err(StoreError::NotADatabase("path is not a regular file"));
    }
    let mut header = vec![0; HEADER_BYTES];
    let read_bytes = read_up_to(&file, &mut header)?;
    header.truncate(read_bytes);
    if !header.starts_with(&MAGIC[..read_bytes.min(MAGIC.len())]) {
        return Err(StoreError::NotADatabase("file is not an SQLite database"));
    }
    let is_created = if is_in_wal_mode(&header, metadata.len()) {
        let log_bytes = std::fs::metadata(&files.log).map_or(0, |log| log.len());
        log_bytes > 0 || has_all_pages(&header, metadata.len())
    } else {
        is_created(&header, metadata.len())
    };
    if !is_created && is_young(metadata.modified()?, SystemTime::now()) {
        return Ok(FileState::Young);
    }
    Ok(if metadata.len() <= EMPTY_MAX_BYTES {
        FileState::Empty
    } else {
        FileState::Open(file, header)
    })
}

/// The size of the database header and the b-tree header of the first page.
const HEADER_BYTES: usize = 108;

fn page_size_bytes(header: &[u8]) -> u64 {
    match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        size => u64::from(size),
    }
}

/// Returns true if the first page is complete and says WAL mode
/// (<https://sqlite.org/fileformat2.html>, sections 1.3.2 and 1.3.3).
fn is_in_wal_mode(header: &[u8], size_bytes: u64) -> bool {
    header.len() == HEADER_BYTES && is_wal_header(header) && size_bytes >= page_size_bytes(header)
}

/// Returns true if the database is complete and its schema is not empty (section 1.6).
fn is_created(header: &[u8], size_bytes: u64) -> bool {
    header.len() == HEADER_BYTES
        && size_bytes >= page_size_bytes(header)
        && has_all_pages(header, size_bytes)
        // A leaf without cells is an empty schema.
        && !(header[100] == 0x0d && header[103..105] == [0, 0])
}

/// Returns true if the file has as many pages as its header says (section 1.3.8).
fn has_all_pages(header: &[u8], size_bytes: u64) -> bool {
    let word = |at: usize| header.get(at..at + 4);
    let pages = word(28).map_or(0, |bytes| {
        u64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    });
    // The page count is valid only if the version that wrote it also made the last
    // change.
    let is_count_valid = word(24) == word(92);
    !is_count_valid || size_bytes >= pages * page_size_bytes(header)
}

/// Returns true if the time is less than two seconds away from now. A time further in the
/// future counts as old, since clocks are set back.
fn is_young(modified: SystemTime, now: SystemTime) -> bool {
    now.duration_since(modified)
        .unwrap_or_else(|error| error.duration())
        < SETTLE_TIME
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read_bytes = 0;
    while read_bytes < buffer.len() {
        match file.read_at(&mut buffer[read_bytes..], read_bytes as u64) {
            Ok(0) => break,
            Ok(count) => read_bytes += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wal_mode_needs_both_versions_two_and_a_complete_page() {
        let mut header = [0; HEADER_BYTES];
        header[16..20].copy_from_slice(&[0x10, 0, 2, 2]);
        assert!(is_in_wal_mode(&header, 4096));
        assert!(!is_in_wal_mode(&header, 4095));
        assert!(!is_in_wal_mode(&header[..HEADER_BYTES - 1], 4096));
        header[16..18].copy_from_slice(&[0, 1]);
        assert!(is_in_wal_mode(&header, 65536));
        assert!(!is_in_wal_mode(&header, 65535));
        for modes in [[1, 1], [1, 2], [2, 1]] {
            header[18..20].copy_from_slice(&modes);
            assert!(!is_in_wal_mode(&header, 1 << 20), "{modes:?}");
        }
    }

    #[test]
    fn database_is_created_when_it_has_its_pages_and_a_table() {
        let mut header = [0; HEADER_BYTES];
        header[16..18].copy_from_slice(&[0x10, 0]);
        header[27] = 7;
        header[95] = 7;
        header[31] = 2;
        header[100] = 0x0d;
        header[104] = 1;
        assert!(is_created(&header, 8192));
        assert!(!is_created(&header, 8191));
        assert!(!is_created(&header[..HEADER_BYTES - 1], 8192));
        // Another version wrote last and did not update the page count.
        header[95] = 6;
        assert!(is_created(&header, 4096));
        assert!(!is_created(&header, 4095));
        // First no tables, then so many that the schema has an interior page.
        header[104] = 0;
        assert!(!is_created(&header, 8192));
        header[100] = 0x05;
        assert!(is_created(&header, 8192));
    }

    #[test]
    fn file_is_young_within_two_seconds_of_now() {
        let now = SystemTime::now();
        let second = Duration::from_secs(1);
        assert!(is_young(now, now));
        assert!(is_young(now - second, now));
        assert!(is_young(now + second, now));
        assert!(!is_young(now - 2 * second, now));
        assert!(!is_young(now + 60 * second, now));
    }
}
