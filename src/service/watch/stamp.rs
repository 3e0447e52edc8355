//! The stamp of a source's files, and when it changes although the files do not.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::locate::{DatabaseFiles, is_missing};
use crate::stamp::{FileStamp, RACY_WINDOW, racy_for, since_1970};

/// The ages at which a log counts as changed once more, since what was written to it may have
/// been published in the meantime; see [the watcher](super).
const PUBLISH_CHECKS: [Duration; 3] = [
    Duration::from_secs(4),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

// A racy file is inspected again when it is not racy any more.
const _: () = assert!(PUBLISH_CHECKS[0].as_millis() > RACY_WINDOW.as_millis());

/// An inspection that is due at a certain age of a file runs this much later, so that it is
/// not too early.
const TIMER_MARGIN: Duration = Duration::from_millis(10);

/// The stamps of a source's database and log.
///
/// The time of the inode (ctime) is not compared: SQLite run by root sets the owner of the
/// log whenever it opens it, also to read, and then every listing would cause the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) struct SourceStamp {
    db: Option<FileStamp>,
    /// `None` also for an empty log, which a connection creates to read.
    log: Option<FileStamp>,
    /// One of the files changed so recently that it may change again and keep its stamp.
    is_racy: bool,
    /// How many of the [`PUBLISH_CHECKS`] the log has reached.
    publish_checks: usize,
    /// The files could not be inspected.
    has_failed: bool,
}

impl SourceStamp {
    /// Inspects the files. Also returns after which time the stamp changes without a change
    /// of the files, if it does.
    pub(super) fn inspect(files: &DatabaseFiles) -> (Self, Option<Duration>) {
        let (db, log) = (inspect_file(&files.main), inspect_file(&files.log));
        let has_failed = db.is_err() || log.is_err();
        let (db, log) = (
            db.ok().flatten(),
            log.ok().flatten().filter(|log| log.size > 0),
        );
        let now = since_1970();
        let files = [db, log].into_iter().flatten();
        let racy_for = files.map(|file| racy_for(file.modified.0, now)).max();
        let racy_for = racy_for.filter(|left| !left.is_zero());
        let age = log.map_or(Duration::MAX, |log| age_of(&log, now));
        let reached = |step: &&Duration| **step <= age;
        let publish_checks = PUBLISH_CHECKS.iter().take_while(reached).count();
        let until_check = PUBLISH_CHECKS.get(publish_checks).map(|step| *step - age);
        let stamp = Self {
            db,
            log,
            is_racy: racy_for.is_some(),
            publish_checks,
            has_failed,
        };
        let next = [racy_for, until_check];
        let next = next.into_iter().flatten().min();
        (stamp, next.map(|next| next + TIMER_MARGIN))
    }

    /// Returns true if the files are the same in `now`, apart from their age.
    pub(in crate::service) fn has_only_aged(&self, now: &Self) -> bool {
        !self.has_failed && !now.has_failed && (self.db, self.log) == (now.db, now.log)
    }

    /// Returns true if the files cannot have changed between this inspection and `now`.
    pub(in crate::service) fn is_unchanged(&self, now: &Self) -> bool {
        !self.is_racy && !self.has_failed && self == now
    }
}

/// Returns how long ago the file was written to. The clock may have been set: a time in the
/// future counts like one equally far in the past.
fn age_of(file: &FileStamp, now: Duration) -> Duration {
    let seconds = file.modified.0.max(0).unsigned_abs();
    let nanos = u32::try_from(file.modified.1).unwrap_or(0);
    now.abs_diff(Duration::new(seconds, nanos.min(999_999_999)))
}

fn inspect_file(path: &Path) -> io::Result<Option<FileStamp>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(FileStamp::of(&metadata))),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
