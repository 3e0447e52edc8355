//! Differences: what the caller has, compared with what is read.
//!
//! A caller that has many sessions sends only the hash of their set. The lines of that set are
//! kept from the last answer ([`super::kept_lines`]), so that they need not cross the pipe again.
//! If they are not, the caller is asked for them.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use super::kept_lines::KeptLines;
use crate::line_hash::{LineHash, SetHash};
use crate::wire::{DifferenceCounts, Have, HaveLines, WriteError, Writer, decode_set};

/// The difference of a listing to what its caller has.
#[derive(Debug)]
pub struct Difference {
    have: Have,
    /// The lines that the caller has, without those of sessions that were read.
    left: HaveLines,
    same: u64,
    set: SetHash,
    /// Where the lines are kept for the next listing, if they are to be kept.
    to_keep: Option<KeptLines>,
    /// Whether what the caller has was kept there.
    was_kept: bool,
    /// The lines of this listing, as a set.
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
        let scan_cache = scan_cache.filter(|_| !have.follows);
        let to_keep = scan_cache.map(KeptLines::beside);
        let kept = to_keep.as_ref().and_then(|kept| kept.load(&have));
        let was_kept = kept.is_some();
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
            to_keep,
            was_kept,
            lines: Vec::new(),
        })
    }

    /// Takes the line of a session that was read. Returns true if the caller has it.
    #[must_use]
    pub fn has_line(&mut self, id: &str, line: &[u8]) -> bool {
        let id = self.have.key.hash(id.as_bytes());
        let line = self.have.key.hash(line);
        self.set = self.set.with(line);
        if self.to_keep.is_some() {
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
        match &self.to_keep {
            Some(kept) if !(self.was_kept && self.set == self.have.set) => {
                kept.save(self.have.key, self.set, &self.lines)
            }
            _ => Ok(()),
        }
    }
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
