//! The identity, size and modification time of a file, and the rule for when they reveal a
//! change.
//!
//! A file system may keep times in whole seconds, or round them to the tick of its clock. So
//! a file that has just changed can change again and keep its time. Such a file is *racy*, as
//! in git (<https://git-scm.com/docs/racy-git>): its stamp identifies its content only after
//! [`RACY_WINDOW`] without another change.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bincode::{Decode, Encode};

/// How long a file must have been unchanged before its next change is certain to change its
/// time.
pub(crate) const RACY_WINDOW: Duration = Duration::from_secs(2);

/// The identity of a file, its size and the time of its last write.
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
}

impl FileStamp {
    /// Returns the stamp of a file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Returns how long a file that changed at `changed_secs` remains racy, or zero if it is not.
/// Both times are since 1970; the seconds are whole, as some file systems keep them. A time
/// in the future counts like one equally far in the past, so that a file is not racy forever
/// because a clock was set back.
pub(crate) fn racy_for(changed_secs: i64, now: Duration) -> Duration {
    let changed = Duration::from_secs(changed_secs.max(0).unsigned_abs());
    RACY_WINDOW.saturating_sub(now.abs_diff(changed))
}

/// Returns the wall clock's time since 1970; zero before that.
pub(crate) fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_racy_for_two_seconds_around_its_time() {
        for (changed_secs, now_ms, racy_ms) in [
            (100, 100_000, 2000),
            (100, 101_999, 1),
            (100, 102_000, 0),
            (100, 99_500, 1500),
            (100, 90_000, 0),
            (-5, 500, 1500),
        ] {
            let racy = racy_for(changed_secs, Duration::from_millis(now_ms));
            assert_eq!(racy, Duration::from_millis(racy_ms), "{changed_secs}");
        }
    }
}
