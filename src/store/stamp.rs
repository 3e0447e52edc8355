//! The identity and times of a file, as the file system reports them.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bincode::{Decode, Encode};

/// How long a file must have been unchanged before its next change is certain to change
/// its times.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// The identity of a database file, its size, its times and SQLite's change counter.
///
/// Two equal stamps mean the same content if the first one was
/// [settled](Self::is_settled) when it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FileStamp {
    /// The device of the file.
    pub device: u64,
    /// The inode of the file on that device.
    pub inode: u64,
    /// The size in bytes.
    pub size: u64,
    /// When the content changed, in seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// When the inode changed, in the same units.
    pub changed: (i64, i64),
    /// SQLite's file change counter, which grows with each transaction in rollback
    /// mode (<https://sqlite.org/fileformat2.html>, section 1.3.7).
    pub change_counter: u32,
}

impl FileStamp {
    /// Returns the stamp of an open database file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be inspected or its header cannot be read.
    pub(super) fn from_file(file: &File) -> io::Result<Self> {
        let metadata: Metadata = file.metadata()?;
        let mut counter = [0; 4];
        let has_counter = match file.read_exact_at(&mut counter, 24) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            change_counter: if has_counter {
                u32::from_be_bytes(counter)
            } else {
                0
            },
        })
    }

    /// Returns true if the file has not changed for two seconds, so that its next change
    /// gives it other times. Returns false for times in the future.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let last = u64::try_from(self.modified.0.max(self.changed.0)).unwrap_or(0);
        let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(last));
        age.is_ok_and(|age| age > SETTLE_TIME)
    }
}
