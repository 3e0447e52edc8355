//! The stamp of a database file, which shows whether the file has changed.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use bincode::{Decode, Encode};

use crate::stamp::{FileStamp, racy_for, since_1970};

/// Where the file change counter is in the header, in bytes.
const CHANGE_COUNTER_OFFSET: u64 = 24;

/// The stamp of a database file, with the time of its inode and SQLite's change counter.
///
/// Two equal stamps mean the same content if the first one was
/// [settled](Self::is_settled) when it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct DatabaseStamp {
    /// The identity, size and modification time.
    pub file: FileStamp,
    /// When the inode changed, in seconds and nanoseconds since 1970.
    pub changed: (i64, i64),
    /// SQLite's file change counter, which grows with each transaction in rollback
    /// mode (<https://sqlite.org/fileformat2.html>, section 1.3.7).
    pub change_counter: u32,
}

impl DatabaseStamp {
    /// Returns the stamp of an open database file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be inspected or its header cannot be read.
    pub(super) fn from_file(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let mut counter = [0; 4];
        let has_counter = match file.read_exact_at(&mut counter, CHANGE_COUNTER_OFFSET) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        Ok(Self {
            file: FileStamp::of(&metadata),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            change_counter: if has_counter {
                u32::from_be_bytes(counter)
            } else {
                0
            },
        })
    }

    /// Returns true if the next change of the file gives it another stamp. Returns false for
    /// times in the future: nothing is cached under a time that may come again.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let (now, last_secs) = (since_1970(), self.file.modified.0.max(self.changed.0));
        let last = Duration::from_secs(last_secs.max(0).unsigned_abs());
        last <= now && racy_for(last_secs, now).is_zero()
    }
}
