//! A look at the file before SQLite may touch it.
//!
//! Opening a database is not harmless, even read-only:
//!
//! * OpenCode sets `journal_mode=WAL` before it sets a busy timeout. Whoever
//!   holds a lock in that moment makes its start fail. So a file that is not in
//!   WAL mode yet is left alone until it has not changed for two seconds.
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
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::StoreError;

/// How long a file that is not in WAL mode must not have changed.
const SETTLED: Duration = Duration::from_secs(2);

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A file of so many bytes is empty: SQLite takes one byte for none, since it
/// once had to write one to lock a file (`unixFileSize`).
const EMPTY: u64 = 1;

/// What the look found.
#[derive(Debug)]
pub(super) enum Look {
    /// No file.
    Missing,
    /// Being made or restored.
    Young,
    /// No bytes, and not just made.
    Empty,
    /// Good to open while this descriptor lives.
    Open(File),
}

/// Looks at the file at `path`.
pub(super) fn look(path: &Path) -> Result<Look, StoreError> {
    // A FIFO in the file's place would block without NONBLOCK.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(nonblock)
        .open(path)
    {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Look::Missing);
        }
        Err(error) => return Err(error.into()),
    };
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(StoreError::NotADatabase("is a directory"));
    }
    if !about.is_file() {
        return Err(StoreError::NotADatabase("is no ordinary file"));
    }
    let mut header = [0; 100];
    let got = read_up_to(&file, &mut header)?;
    let header = &header[..got];
    if !header.starts_with(&MAGIC[..got.min(MAGIC.len())]) {
        return Err(StoreError::NotADatabase(
            "does not begin like an SQLite database",
        ));
    }
    if in_wal_mode(header, about.len()) {
        return Ok(Look::Open(file));
    }
    if is_young(about.modified()?, SystemTime::now()) {
        return Ok(Look::Young);
    }
    Ok(if about.len() <= EMPTY {
        Look::Empty
    } else {
        Look::Open(file)
    })
}

/// A whole first page that says WAL
/// (<https://sqlite.org/fileformat2.html>, sections 1.3.2 and 1.3.3).
fn in_wal_mode(header: &[u8], len: u64) -> bool {
    header.len() == 100 && {
        let page_size = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65536,
            size => u64::from(size),
        };
        header[18] == 2 && header[19] == 2 && len >= page_size
    }
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
        let mut header = [0; 100];
        header[16..20].copy_from_slice(&[0x10, 0, 2, 2]);
        assert!(in_wal_mode(&header, 4096));
        assert!(!in_wal_mode(&header, 4095));
        assert!(!in_wal_mode(&header[..99], 4096));
        header[16..18].copy_from_slice(&[0, 1]);
        assert!(in_wal_mode(&header, 65536));
        assert!(!in_wal_mode(&header, 65535));
        for modes in [[1, 1], [1, 2], [2, 1]] {
            header[18..20].copy_from_slice(&modes);
            assert!(!in_wal_mode(&header, 1 << 20), "{modes:?}");
        }
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
