//! The lines of the last answer, as hashes in a file beside the scan cache.
//!
//! They are a shortcut only: if the file is missing, damaged, of another set or of another
//! caller, it counts as missing, and the caller is asked for the set. Two callers of one database
//! replace each other's file.

use std::io;
use std::path::{Path, PathBuf};

use crate::codec::{self, FileFormat};
use crate::files;
use crate::line_hash::{HASH_BYTES, HashKey, SetHash};
use crate::wire::{HAVE_BYTES, Have, HaveLines, decode_set, limits};

const FORMAT: FileFormat = FileFormat {
    magic: *b"OCSLINES",
    version: 1,
};

/// The key of the hashes, the hash of the set, the set.
type Content<'a> = ([u8; HASH_BYTES], [u8; HASH_BYTES], &'a [u8]);

/// The most bytes that a content takes beside its set.
const CONTENT_BYTES: usize = 64;

/// The file of one database.
#[derive(Debug)]
pub(super) struct KeptLines(PathBuf);

impl KeptLines {
    /// Returns the file of the database with this scan cache.
    pub(super) fn beside(scan_cache: &Path) -> Self {
        let mut path = scan_cache.as_os_str().to_owned();
        path.push(".lines");
        Self(path.into())
    }

    /// Returns the lines, if they are those that `have` announces.
    pub(super) fn load(&self, have: &Have) -> Option<HaveLines> {
        let limit_bytes = codec::HEADER_BYTES + CONTENT_BYTES + limits::SESSIONS * HAVE_BYTES;
        let bytes = files::load(&self.0, limit_bytes).ok()??;
        let (key, set, lines): Content<'_> = codec::decode(FORMAT, &bytes).ok()?;
        let is_it = key == have.key.to_bytes() && set == have.set.to_bytes();
        is_it.then(|| decode_set(have, lines).ok())?
    }

    /// Replaces the file by these lines, given as a set.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written.
    pub(super) fn save(&self, key: HashKey, set: SetHash, lines: &[u8]) -> io::Result<()> {
        let content: Content<'_> = (key.to_bytes(), set.to_bytes(), lines);
        files::save_unsynced(&self.0, &codec::encode(FORMAT, &content)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs of two versions can share a cache directory.
    #[test]
    fn format_of_kept_lines_is_pinned() {
        let directory = tempfile::tempdir().unwrap();
        let kept = KeptLines::beside(&directory.path().join("scan"));
        let bytes = |first: u8| std::array::from_fn(|at| first + u8::try_from(at).unwrap());
        let (key, set) = (HashKey::of(bytes(0)), SetHash::of(bytes(0x20)));
        kept.save(key, set, &[0x40, 0x41]).unwrap();
        let expected = [
            b"OCSLINES\x01\0\0\0".as_slice(),
            &[35, 0, 0, 0, 0, 0, 0, 0],
            // The CRC-32 of the body, by zlib.
            &0x6eea_bd72_u32.to_le_bytes(),
            &bytes(0),
            &bytes(0x20),
            &[2, 0x40, 0x41],
        ];
        let file = std::fs::read(directory.path().join("scan.lines")).unwrap();
        assert_eq!(file, expected.concat());
    }
}
