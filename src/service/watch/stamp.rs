//! What the files of a source look like, and for how long that can be told from what they
//! will look like after another change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::locate::{DatabaseFiles, is_missing};

/// A change so recent that another one could leave the same time.
const RACY: Duration = Duration::from_secs(2);

/// When a log that was written to counts as changed once more: what was written can have
/// been published since. It begins where [`RACY`] ends.
const SETTLING: [Duration; 3] = [
    Duration::from_secs(4),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// A look that is due at a file's age comes so much later, so that it is not too early.
const MARGIN: Duration = Duration::from_millis(10);

/// What the files of a source look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) struct SourceStamp {
    db: Option<FileStamp>,
    /// An empty log is none: a reader makes one.
    log: Option<FileStamp>,
    /// One of them changed so recently that it may change again and look the same.
    racy: bool,
    /// How many of the ages in [`SETTLING`] the log has reached.
    settled: usize,
    /// The files could not be looked at.
    failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Not the time of the last change to the inode: run by root, SQLite sets the
    /// log's owner whenever it opens it, also for reading, and that would wake us
    /// for ever.
    modified: (i64, i64),
}

impl FileStamp {
    /// How long ago it was written to, by a clock that can be set, and so also how far in
    /// the future.
    fn age(&self, now: Duration) -> Duration {
        let seconds = self.modified.0.max(0).unsigned_abs();
        let nanos = u32::try_from(self.modified.1).unwrap_or(0);
        now.abs_diff(Duration::new(seconds, nanos.min(999_999_999)))
    }

    /// As [`age`](Self::age), where a file system may keep whole seconds only.
    fn age_in_whole_seconds(&self, now: Duration) -> Duration {
        now.abs_diff(Duration::from_secs(self.modified.0.max(0).unsigned_abs()))
    }
}

impl SourceStamp {
    /// Also returns when the files look different without any change, since they are
    /// older.
    pub(super) fn at(files: &DatabaseFiles) -> (Self, Option<Duration>) {
        let (db, log) = (file(&files.main), file(&files.log));
        let failed = db.is_err() || log.is_err();
        let (db, log) = (
            db.ok().flatten(),
            log.ok().flatten().filter(|log| log.size > 0),
        );
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let youngest = [db, log]
            .into_iter()
            .flatten()
            .map(|file| file.age_in_whole_seconds(now))
            .min();
        let until_not_racy = youngest.and_then(|age| RACY.checked_sub(age));
        let racy = youngest.is_some_and(|age| age < RACY);
        let age = log.map_or(Duration::MAX, |log| log.age(now));
        let settled = SETTLING.iter().take_while(|step| **step <= age).count();
        let until_settled = SETTLING.get(settled).map(|step| *step - age);
        let stamp = Self {
            db,
            log,
            racy,
            settled,
            failed,
        };
        let next = [until_not_racy.filter(|_| racy), until_settled];
        let next = next.into_iter().flatten().min();
        (stamp, next.map(|next| next + MARGIN))
    }

    /// True where `now` the files are the same, and have only grown older.
    pub(in crate::service) fn has_only_aged(&self, now: &Self) -> bool {
        !self.failed && !now.failed && (self.db, self.log) == (now.db, now.log)
    }

    /// True where nothing can have changed between these looks and `now`.
    pub(in crate::service) fn is_unchanged(&self, now: &Self) -> bool {
        !self.racy && !self.failed && self == now
    }
}

fn file(path: &Path) -> io::Result<Option<FileStamp>> {
    match fs::metadata(path) {
        Ok(about) => Ok(Some(FileStamp {
            device: about.dev(),
            inode: about.ino(),
            size: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
        })),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
