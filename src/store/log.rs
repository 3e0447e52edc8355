//! The exact end of the write-ahead log.
//!
//! The wal-index header publishes it. The header is stored twice, in the first 96 bytes
//! of the `-shm` file, 48 bytes each (<https://sqlite.org/walformat.html>, section 2.1).
//! The log file itself does not show its end: it can hold frames of transactions that are
//! not committed, that were rolled back, or whose commit is not published yet.
//!
//! The header is used only if SQLite trusts it. If this process may not write to the
//! `-shm` file and no other process has it open, SQLite builds a private wal-index from
//! the log instead (`walBeginShmUnreliable` in `wal.c`). The file can then be of any
//! earlier time, and this module returns no position.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bincode::{Decode, Encode};

use super::lock;

/// A position in the log: a number of frames of one generation, and the checksum there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct WalPosition {
    /// The salts of the generation. Each restart of the log adds one to the first.
    pub salts: [u32; 2],
    /// The number of frames before the position.
    pub frames: u32,
    /// The running checksum of the last frame, or zeros at the start.
    pub checksum: [u32; 2],
    /// Whether checksums read words as big-endian.
    pub big_endian: bool,
}

impl WalPosition {
    /// The position if there is no log: the file alone is the database.
    pub const NO_LOG: Self = Self {
        salts: [0; 2],
        frames: 0,
        checksum: [0; 2],
        big_endian: false,
    };

    /// Returns the start of this generation.
    #[must_use]
    pub fn start(self) -> Self {
        Self {
            frames: 0,
            checksum: [0; 2],
            ..self
        }
    }

    /// Returns false for [`NO_LOG`](Self::NO_LOG). The salts of a log are chosen when it
    /// is first written.
    #[must_use]
    pub fn has_log(self) -> bool {
        self.frames != 0 || self.salts != [0; 2]
    }
}

/// The wal-index of an open database.
#[derive(Debug)]
pub(super) struct WalIndex {
    file: File,
    is_writable: bool,
}

impl WalIndex {
    /// Opens the wal-index at `path`. Returns `None` if it cannot be opened. A connection
    /// of this process to the database must stay open as long as this value exists.
    pub(super) fn open(path: &Path) -> Option<Self> {
        // SQLite opens the file for writing too. Trying the same shows whether SQLite may
        // write to it. Nothing is written here.
        if let Ok(file) = File::options().read(true).write(true).open(path) {
            return Some(Self {
                file,
                is_writable: true,
            });
        }
        Some(Self {
            file: File::open(path).ok()?,
            is_writable: false,
        })
    }

    /// Returns how many frames the wal-index has room for. SQLite makes the file larger
    /// before it writes more, and smaller only when it builds the wal-index anew.
    pub(super) fn max_frames(&self) -> io::Result<u64> {
        // (<https://sqlite.org/walformat.html>, section 2.2).
        const BLOCK_BYTES: u64 = 32_768;
        const FRAMES_PER_BLOCK: u64 = 4096;
        const FRAMES_REPLACED_BY_HEADER: u64 = 34;
        let blocks = self.file.metadata()?.len().div_ceil(BLOCK_BYTES);
        Ok((blocks * FRAMES_PER_BLOCK).saturating_sub(FRAMES_REPLACED_BY_HEADER))
    }

    /// Returns the header, or `None` if SQLite does not trust it or it is being written.
    pub(super) fn published_header(&self) -> io::Result<Option<IndexHeader>> {
        if !self.is_writable && !lock::is_in_use(&self.file) {
            return Ok(None);
        }
        IndexHeader::read(&self.file)
    }
}

/// The wal-index header at one moment. It changes with each commit, recovery and restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexHeader([u8; 48]);

impl IndexHeader {
    /// Reads the header. Returns `None` if it is being written or not initialised.
    pub(super) fn read(shm: &File) -> io::Result<Option<Self>> {
        let mut first = [0; 48];
        let mut second = [0; 48];
        // A writer writes the second copy first.
        let read_bytes = shm.read_at(&mut first, 0)? + shm.read_at(&mut second, 48)?;
        let version = u32::from_ne_bytes([first[0], first[1], first[2], first[3]]);
        let is_valid = read_bytes == 96
            && first == second
            && version == 3_007_000
            && first[12] == 1
            && first[40..] == header_checksum(&first[..40]);
        Ok(is_valid.then_some(Self(first)))
    }

    /// Returns the position that the header publishes. Its fields are in native byte
    /// order, except the salts, which are copied from the log.
    pub(super) fn position(&self) -> WalPosition {
        let bytes = |at: usize| [self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]];
        let frames = u32::from_ne_bytes(bytes(16));
        let position = WalPosition {
            salts: [32, 36].map(|at| u32::from_be_bytes(bytes(at))),
            frames,
            checksum: self.last_commit_checksum(),
            big_endian: self.0[13] != 0,
        };
        if frames == 0 {
            position.start()
        } else {
            position
        }
    }

    /// Returns how many commits were made since the wal-index was built: `iChange` in
    /// `wal.c`. Each commit adds one, a restart of the log leaves it, and recovery sets it
    /// to zero.
    pub(super) fn commits(&self) -> u32 {
        u32::from_ne_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    /// Returns the checksum of the frame that ended the last commit. A restart of the log
    /// leaves it (`walRestartHdr` in `wal.c`), a commit or recovery replaces it.
    pub(super) fn last_commit_checksum(&self) -> [u32; 2] {
        [24, 28].map(|at| {
            u32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
        })
    }
}

/// Continues a checksum over `bytes`, whose length is a multiple of eight
/// (<https://sqlite.org/fileformat2.html>, section 4.2).
pub(crate) fn checksum(big_endian: bool, seed: [u32; 2], bytes: &[u8]) -> [u32; 2] {
    let [mut first, mut second] = seed;
    let (pairs, _) = bytes.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in pairs {
        let (one, two) = if big_endian {
            (
                u32::from_be_bytes([a, b, c, d]),
                u32::from_be_bytes([e, f, g, h]),
            )
        } else {
            (
                u32::from_le_bytes([a, b, c, d]),
                u32::from_le_bytes([e, f, g, h]),
            )
        };
        first = first.wrapping_add(one).wrapping_add(second);
        second = second.wrapping_add(two).wrapping_add(first);
    }
    [first, second]
}

/// Returns the checksum that ends a wal-index header, in native byte order.
fn header_checksum(header: &[u8]) -> [u8; 8] {
    let sums = checksum(cfg!(target_endian = "big"), [0; 2], header);
    let [[a, b, c, d], [e, f, g, h]] = sums.map(u32::to_ne_bytes);
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn header_with_unequal_copies_or_bad_checksum_is_rejected() {
        let mut copies = [0; 96];
        for at in [0, 48] {
            copies[at..at + 4].copy_from_slice(&3_007_000_u32.to_ne_bytes());
            copies[at + 12] = 1;
            copies[at + 16..at + 20].copy_from_slice(&7_u32.to_ne_bytes());
            copies[at + 24..at + 28].copy_from_slice(&8_u32.to_ne_bytes());
            copies[at + 32..at + 40].copy_from_slice(&[0, 0, 0, 5, 0, 0, 0, 6]);
            let sum = header_checksum(&copies[at..at + 40]);
            copies[at + 40..at + 48].copy_from_slice(&sum);
        }
        let mut file = tempfile::tempfile().unwrap();
        let mut read = |copies: &[u8]| {
            file.set_len(0).unwrap();
            file.rewind().unwrap();
            file.write_all(copies).unwrap();
            IndexHeader::read(&file)
                .unwrap()
                .map(|header| header.position())
        };
        let position = WalPosition {
            salts: [5, 6],
            frames: 7,
            checksum: [8, 0],
            big_endian: false,
        };
        assert_eq!(read(&copies), Some(position));
        for at in [0, 12, 16, 48, 95] {
            let mut broken = copies;
            broken[at] ^= 1;
            assert_eq!(read(&broken), None, "byte {at}");
        }
        // Both copies are equal, but do not match their checksum.
        let mut forged = copies;
        forged[16] ^= 1;
        forged[64] ^= 1;
        assert_eq!(read(&forged), None);
        assert_eq!(read(&copies[..95]), None);
        assert_eq!(read(&[]), None);
    }
}
