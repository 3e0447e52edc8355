//! Differences: what the caller has, compared with what is read.
//!
//! A caller that has many sessions sends only the hash of their set. The lines of that set are
//! kept in a file beside the scan cache, as this helper last sent them, so that they need not
//! cross the pipe again. The file is a shortcut only: if it is missing, damaged, or of another
//! set, the caller is asked for the lines. Two callers of one database replace each other's file.

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use crate::codec::{self, FileFormat};
use crate::files;
use crate::line_hash::{HASH_BYTES, LineHash, SetHash};
use crate::wire::{
    DifferenceCounts, HAVE_BYTES, Have, HaveLines, WriteError, Writer, decode_set, limits,
};

const FORMAT: FileFormat = FileFormat {
    magic: *b"OCSLINES",
    version: 1,
};

/// The lines of the last answer: the key of the hashes, the hash of the set, the set.
type KeptLines<'a> = ([u8; HASH_BYTES], [u8; HASH_BYTES], &'a [u8]);

/// The difference of a listing to what its caller has.
#[derive(Debug)]
pub struct Difference {
    have: Have,
    /// The lines that the caller has, without those of sessions that were read.
    left: HaveLines,
    same: u64,
    set: SetHash,
    /// The file of the kept lines, if they are to be kept.
    kept_at: Option<PathBuf>,
    /// The lines of this listing, for that file.
    lines: Vec<u8>,
}

/// Why a difference cannot be listed.
#[derive(Debug)]
pub enum HaveError {
    /// The request is invalid. Holds the message for people.
    Invalid(String),
    /// The output failed.
    Write(WriteError),
}

impl Difference {
    /// Returns the difference to what `have` announces, after the `hello` was written to `out`.
    /// Reads the lines from `stdin`, or from the file of kept lines beside `scan_cache`.
    ///
    /// # Errors
    ///
    /// Returns an error if the lines are invalid, if standard input ends before them, or if `out`
    /// fails.
    pub fn to<W: Write>(
        have: Have,
        scan_cache: Option<&Path>,
        stdin: &mut impl BufRead,
        out: &mut Writer<W>,
    ) -> Result<Self, HaveError> {
        let kept_at = scan_cache.filter(|_| !have.follows).map(kept_lines_path);
        let kept = kept_at.as_deref().and_then(|path| load(path, &have));
        let left = match kept {
            Some(lines) => lines,
            None => {
                let size_bytes = have.size_bytes().map_err(HaveError::Invalid)?;
                if !have.follows {
                    out.want().map_err(HaveError::Write)?;
                }
                let lines = read_set(size_bytes, stdin).and_then(|set| decode_set(&have, &set));
                lines.map_err(HaveError::Invalid)?
            }
        };
        Ok(Self {
            have,
            left,
            same: 0,
            set: SetHash::default(),
            kept_at,
            lines: Vec::new(),
        })
    }

    /// Takes the line of a session that was read. Returns true if the caller has it.
    #[must_use]
    pub fn has_line(&mut self, id: &str, line: &[u8]) -> bool {
        let id = self.have.key.hash(id.as_bytes());
        let line = self.have.key.hash(line);
        self.set = self.set.with(line);
        if self.kept_at.is_some() {
            self.lines.extend(id.to_bytes());
            self.lines.extend(line.to_bytes());
        }
        let is_same = self.left.remove(&id) == Some(line);
        self.same += u64::from(is_same);
        is_same
    }

    /// Returns the hashes of the ids of the sessions that the caller has and that were not read.
    pub fn gone(&self) -> impl Iterator<Item = LineHash> {
        self.left.keys().copied()
    }

    /// Returns the counts of the `end`, given the number of lines sent.
    #[must_use]
    pub fn counts(&self, sent: u64) -> DifferenceCounts {
        DifferenceCounts {
            same: self.same,
            sent,
            gone: self.left.len() as u64,
            set: self.set,
        }
    }

    /// Keeps the lines for the next listing, unless they are those that the caller has.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written. The caller is then asked for its lines.
    pub fn save(&self) -> io::Result<()> {
        let Some(path) = self.kept_at.as_deref() else {
            return Ok(());
        };
        if self.set == self.have.set && load(path, &self.have).is_some() {
            return Ok(());
        }
        let lines = self.lines.as_slice();
        let kept: KeptLines<'_> = (self.have.key.to_bytes(), self.set.to_bytes(), lines);
        files::save_unsynced(path, &codec::encode(FORMAT, &kept)?)
    }
}

/// Returns the path of the kept lines of the database with this scan cache.
fn kept_lines_path(scan_cache: &Path) -> PathBuf {
    let mut path = scan_cache.as_os_str().to_owned();
    path.push(".lines");
    path.into()
}

/// Loads the kept lines, if they are those that `have` announces.
fn load(path: &Path, have: &Have) -> Option<HaveLines> {
    let limit_bytes = codec::HEADER_BYTES + 64 + limits::SESSIONS * HAVE_BYTES;
    let bytes = files::load(path, limit_bytes).ok()??;
    let (key, set, lines): KeptLines<'_> = codec::decode(FORMAT, &bytes).ok()?;
    let is_it = key == have.key.to_bytes() && set == have.set.to_bytes();
    is_it.then(|| decode_set(have, lines).ok())?
}

/// Reads a set of this size from standard input.
fn read_set(size_bytes: usize, stdin: &mut impl BufRead) -> Result<Vec<u8>, String> {
    let mut set = Vec::with_capacity(size_bytes);
    let read = stdin.take(size_bytes as u64).read_to_end(&mut set);
    read.map_err(|error| format!("cannot read standard input: {error}"))?;
    match set.len() == size_bytes {
        true => Ok(set),
        false => Err("incomplete request: its set is missing or cut off".to_owned()),
    }
}
