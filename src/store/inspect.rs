//! A look at the file before SQLite may touch it.
//!
//! Opening a database is not harmless, even read-only:
//!
//! * OpenCode sets `journal_mode=WAL` before it sets a busy timeout. Whoever
//!   holds a lock in that moment makes its start fail. So a file that is being made
//!   is left alone until it has not changed for two seconds: one that is not in WAL
//!   mode and has no whole page or no tables, or has fewer pages than it says and no
//!   log with the others. A database in rollback mode that somebody writes to is not
//!   being made: its locks say when it can be read.
//! * SQLite takes an empty file for a new database and deletes the log
//!   beside it (`pagerOpenWalIfPresent`), also for a read-only connection. So
//!   such a file is never opened.
//!
//! The descriptor stays open until the connection is closed: POSIX locks belong
//! to the process, and closing any descriptor of a file drops them all
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, SystemTime};

use super::StoreError;
use crate::locate::{DatabaseFiles, says_wal};

/// How long a file that looks as if it were being made must not have changed.
const SETTLED: Duration = Duration::from_secs(2);

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A file of so many bytes is empty: SQLite takes one byte for none, since it
/// once had to write one to lock a file (`unixFileSize`).
const EMPTY: u64 = 1;

/// What the look found.
#[derive(Debug)]
pub(super) enum FileState {
    /// No file.
    Missing,
    /// Being made or restored.
    Young,
    /// No bytes, and not just made.
    Empty,
    /// Good to open while this descriptor lives; with the first bytes of the file.
    Open(File, Vec<u8>),
}

/// Looks at the main file of these.
pub(super) fn inspect(files: &DatabaseFiles) -> Result<FileState, StoreError> {
    // A FIFO in the file's place would block without NONBLOCK.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(nonblock)
        .open(&files.main)
    {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(FileState::Missing);
        }
        Err(error) => return Err(error.into()),
    };
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(StoreError::NotADatabase("is a directory"));
    }
    if !about.is_file() {
        return Err(StoreError::NotADatabase("is not a regular file"));
    }
    let mut start = vec![0; START];
    let got = read_up_to(&file, &mut start)?;
    start.truncate(got);
    let header = &start[..];
    if !header.starts_with(&MAGIC[..got.min(MAGIC.len())]) {
        return Err(StoreError::NotADatabase(
            "does not begin like an SQLite database",
        ));
    }
    let is_made = if in_wal_mode(header, about.len()) {
        let log = std::fs::metadata(&files.log).map_or(0, |log| log.len());
        log > 0 || has_its_pages(header, about.len())
    } else {
        is_made(header, about.len())
    };
    if !is_made && is_young(about.modified()?, SystemTime::now()) {
        return Ok(FileState::Young);
    }
    Ok(if about.len() <= EMPTY {
        FileState::Empty
    } else {
        FileState::Open(file, start)
    })
}

/// The database's header, and that of the first page of the schema.
const START: usize = 108;

fn page_size(header: &[u8]) -> u64 {
    match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        size => u64::from(size),
    }
}

/// A whole first page that says WAL
/// (<https://sqlite.org/fileformat2.html>, sections 1.3.2 and 1.3.3).
fn in_wal_mode(header: &[u8], len: u64) -> bool {
    header.len() == START && says_wal(header) && len >= page_size(header)
}

/// A whole database that has tables: something is in its schema (section 1.6).
fn is_made(header: &[u8], len: u64) -> bool {
    header.len() == START
        && len >= page_size(header)
        && has_its_pages(header, len)
        // A leaf without cells is an empty schema.
        && !(header[100] == 0x0d && header[103..105] == [0, 0])
}

/// As many pages as it says (section 1.3.8).
fn has_its_pages(header: &[u8], len: u64) -> bool {
    let word = |at: usize| header.get(at..at + 4);
    let pages = word(28).map_or(0, |bytes| {
        u64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    });
    // The number of pages counts if the same version wrote it as changed the file last.
    let is_counted = word(24) == word(92);
    !is_counted || len >= pages * page_size(header)
}

/// A change in the future is no change just now either: clocks are set back.
fn is_young(changed: SystemTime, now: SystemTime) -> bool {
    now.duration_since(changed)
        .unwrap_or_else(|error| error.duration())
        < SETTLED
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], got as u64) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wal_mode_is_two_twos_and_a_whole_page() {
        let mut header = [0; START];
        header[16..20].copy_from_slice(&[0x10, 0, 2, 2]);
        assert!(in_wal_mode(&header, 4096));
        assert!(!in_wal_mode(&header, 4095));
        assert!(!in_wal_mode(&header[..START - 1], 4096));
        header[16..18].copy_from_slice(&[0, 1]);
        assert!(in_wal_mode(&header, 65536));
        assert!(!in_wal_mode(&header, 65535));
        for modes in [[1, 1], [1, 2], [2, 1]] {
            header[18..20].copy_from_slice(&modes);
            assert!(!in_wal_mode(&header, 1 << 20), "{modes:?}");
        }
    }

    #[test]
    fn a_database_is_made_with_its_pages_and_a_table() {
        let mut header = [0; START];
        header[16..18].copy_from_slice(&[0x10, 0]);
        header[27] = 7;
        header[95] = 7;
        header[31] = 2;
        header[100] = 0x0d;
        header[104] = 1;
        assert!(is_made(&header, 8192));
        assert!(!is_made(&header, 8191));
        assert!(!is_made(&header[..START - 1], 8192));
        // Another version wrote last, and did not count.
        header[95] = 6;
        assert!(is_made(&header, 4096));
        assert!(!is_made(&header, 4095));
        // No tables; and so many that they have a tree.
        header[104] = 0;
        assert!(!is_made(&header, 8192));
        header[100] = 0x05;
        assert!(is_made(&header, 8192));
    }

    #[test]
    fn a_file_is_young_for_two_seconds_on_either_side_of_now() {
        let now = SystemTime::now();
        let second = Duration::from_secs(1);
        assert!(is_young(now, now));
        assert!(is_young(now - second, now));
        assert!(is_young(now + second, now));
        assert!(!is_young(now - 2 * second, now));
        assert!(!is_young(now + 60 * second, now));
    }
}
