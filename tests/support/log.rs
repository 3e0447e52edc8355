//! The write-ahead log of a database, and the index of it, as bytes: to see what a
//! writer left, and to leave what writers of other versions leave
//! (<https://sqlite.org/fileformat2.html>, section 4;
//! <https://sqlite.org/walformat.html>, section 2.1).

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::support::files::beside;

/// Bytes of the log's header.
pub(crate) const HEADER: usize = 32;

/// Bytes of the header of a frame.
const FRAME: usize = 24;

/// Bytes of the header of the wal-index, which is there twice.
const INDEX_HEADER: usize = 48;

/// What a log holds.
pub(crate) struct Log {
    pub(crate) bytes: Vec<u8>,
    page_size: usize,
}

impl Log {
    /// The log beside this database.
    pub(crate) fn of(db: &Path) -> Self {
        Self::from(fs::read(beside(db, "-wal")).unwrap())
    }

    pub(crate) fn from(bytes: Vec<u8>) -> Self {
        let page_size = usize::try_from(word(&bytes, 8)).unwrap();
        Self { bytes, page_size }
    }

    /// Where the frame with this number begins, from 0.
    pub(crate) fn offset(&self, frame: usize) -> usize {
        HEADER + frame * (FRAME + self.page_size)
    }

    /// How many frames of the newest generation there are, counted by their salts;
    /// frames without salts count too.
    pub(crate) fn frames(&self) -> usize {
        let is_of_it = |frame: &usize| {
            let at = self.offset(*frame);
            let salts = self.bytes.get(at + 8..at + 16);
            salts == self.bytes.get(16..24) || salts == Some(&[0; 8])
        };
        (0..).take_while(is_of_it).count()
    }

    /// The number of the page in this frame.
    pub(crate) fn page(&self, frame: usize) -> u32 {
        word(&self.bytes, self.offset(frame))
    }

    /// The page in this frame.
    pub(crate) fn image(&self, frame: usize) -> &[u8] {
        &self.bytes[self.offset(frame) + FRAME..self.offset(frame + 1)]
    }

    /// The checksum that stands in the frame with this number.
    pub(crate) fn stored_checksum(&self, frame: usize) -> [u32; 2] {
        let at = self.offset(frame);
        [word(&self.bytes, at + 16), word(&self.bytes, at + 20)]
    }

    /// Gives the frames from `first` up to `end` salts and the checksums that follow
    /// from the one before.
    pub(crate) fn seal(&mut self, first: usize, end: usize) {
        for frame in first..end {
            let before = match frame.checked_sub(1) {
                Some(before) => self.stored_checksum(before),
                None => [word(&self.bytes, 24), word(&self.bytes, 28)],
            };
            let at = self.offset(frame);
            self.bytes.copy_within(16..24, at + 8);
            let sum = self.checksum(before, &self.bytes[at..at + 8]);
            let sum = self.checksum(sum, self.image(frame));
            for (place, word) in [(16, sum[0]), (20, sum[1])] {
                self.bytes[at + place..][..4].copy_from_slice(&word.to_be_bytes());
            }
        }
    }

    /// Takes salts and checksums from the frames from `first` up to `end`.
    pub(crate) fn unseal(&mut self, first: usize, end: usize) {
        for frame in first..end {
            let at = self.offset(frame);
            self.bytes[at + 8..at + FRAME].fill(0);
        }
    }

    fn checksum(&self, from: [u32; 2], bytes: &[u8]) -> [u32; 2] {
        checksum(self.bytes[3] & 1 == 1, from, bytes)
    }
}

fn checksum(big_endian: bool, [mut first, mut second]: [u32; 2], bytes: &[u8]) -> [u32; 2] {
    let word = |bytes: &[u8]| {
        let bytes = bytes.try_into().unwrap();
        if big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    for pair in bytes.chunks_exact(8) {
        first = first.wrapping_add(word(&pair[..4])).wrapping_add(second);
        second = second.wrapping_add(word(&pair[4..])).wrapping_add(first);
    }
    [first, second]
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Writes a log back into the file that it was read from, and publishes this as the
/// checksum of its last frame. For a database that somebody has open; the file that
/// is returned must be kept until then (see [`copy`]).
#[must_use]
pub(crate) fn publish(db: &Path, log: &Log, checksum_at_the_end: [u32; 2]) -> File {
    let file = File::options()
        .write(true)
        .open(beside(db, "-wal"))
        .unwrap();
    file.write_all_at(&log.bytes, 0).unwrap();
    let options = File::options().read(true).write(true).clone();
    let index = options.open(beside(db, "-shm")).unwrap();
    let mut header = [0; INDEX_HEADER];
    index.read_exact_at(&mut header, 0).unwrap();
    for (at, word) in [(24, checksum_at_the_end[0]), (28, checksum_at_the_end[1])] {
        header[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    let own = checksum(cfg!(target_endian = "big"), [0; 2], &header[..40]);
    for (at, word) in [(40, own[0]), (44, own[1])] {
        header[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    for at in [0, INDEX_HEADER as u64] {
        index.write_all_at(&header, at).unwrap();
    }
    index
}
