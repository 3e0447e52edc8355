//! Where the write-ahead log ends, for people who look.
//!
//! The published end stands in the wal-index header, the first 48 bytes of the
//! `-shm` file, twice (<https://sqlite.org/walformat.html>, section 2.1). The
//! log file itself does not tell: it can hold frames that are not committed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::connect::with_suffix;

/// The end of the log, and its size.
///
/// Holds a descriptor of the `-shm` file: drop it only after every connection
/// of the process to this database is closed, or their locks are lost.
#[derive(Debug)]
pub struct LogPosition {
    /// Bytes of the `-wal` file.
    pub bytes: u64,
    /// Frames that are committed, where the wal-index could be read.
    pub frames: Option<u32>,
    /// The salts of this generation of the log.
    pub salts: Option<[u32; 2]>,
    _shm: Option<File>,
}

impl LogPosition {
    /// Looks at the log of the database at `path`, to which the caller has a
    /// connection. `None` where there is no log.
    #[must_use]
    pub fn look(path: &Path) -> Option<Self> {
        let bytes = std::fs::metadata(with_suffix(path, "-wal")).ok()?.len();
        let shm = File::open(with_suffix(path, "-shm")).ok();
        let header = shm.as_ref().and_then(read_header);
        Some(Self {
            bytes,
            frames: header.map(|header| header.frames),
            salts: header.map(|header| header.salts),
            _shm: shm,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Header {
    frames: u32,
    salts: [u32; 2],
}

fn read_header(shm: &File) -> Option<Header> {
    let mut copies = [0; 96];
    shm.read_exact_at(&mut copies, 0).ok()?;
    parse(&copies)
}

/// Two equal copies, version 3007000, initialised. The fields are in the byte
/// order of the machine, but for the salts, which are copied from the log.
fn parse(copies: &[u8; 96]) -> Option<Header> {
    let (first, second) = copies.split_at(48);
    let word =
        |at: usize| u32::from_ne_bytes([first[at], first[at + 1], first[at + 2], first[at + 3]]);
    let salt =
        |at: usize| u32::from_be_bytes([first[at], first[at + 1], first[at + 2], first[at + 3]]);
    (first == second && word(0) == 3_007_000 && first[12] == 1).then(|| Header {
        frames: word(16),
        salts: [salt(32), salt(36)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_counts_only_when_both_copies_agree_and_it_is_initialised() {
        let mut copies = [0; 96];
        for at in [0, 48] {
            copies[at..at + 4].copy_from_slice(&3_007_000_u32.to_ne_bytes());
            copies[at + 12] = 1;
            copies[at + 16..at + 20].copy_from_slice(&7_u32.to_ne_bytes());
            copies[at + 32..at + 40].copy_from_slice(&[0, 0, 0, 5, 0, 0, 0, 6]);
        }
        assert_eq!(
            parse(&copies),
            Some(Header {
                frames: 7,
                salts: [5, 6]
            })
        );
        for at in [0, 12, 16, 48, 95] {
            let mut broken = copies;
            broken[at] ^= 1;
            assert_eq!(parse(&broken), None, "byte {at}");
        }
    }
}
