//! Finds the process that holds a lock on a database.
//!
//! `F_GETLK` returns the process that holds a conflicting lock. It reports no process of
//! another container, whose process ids mean nothing here, and none of another machine.

use std::fmt;
use std::fs::File;

use rusqlite::ErrorCode;
use rustix::process::{Flock, FlockOffsetType, FlockType, Pid, fcntl_getlk};

use super::StoreError;
use crate::locate::DatabaseFiles;

/// The byte ranges (offset, length) of SQLite's locks on a database file, from
/// `PENDING_BYTE` on (<https://sqlite.org/src/file/src/os.h>). A reader locks these bytes
/// too.
const DATABASE_LOCK_RANGES: [(u64, u64); 2] = [(0x4000_0000, 1), (0x4000_0002, 510)];

/// The byte ranges of the wal-index (<https://sqlite.org/walformat.html>, section 2.3.1)
/// that hold the recovery lock and the locks of readers.
const INDEX_LOCK_RANGES: [(u64, u64); 1] = [(122, 6)];

/// The byte of the wal-index that every connection has locked (`UNIX_SHM_DMS`).
const INDEX_CONNECTED_RANGE: (u64, u64) = (128, 1);

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// The process id.
    pub pid: i32,
    /// The process name, if the system provides it.
    pub name: Option<String>,
}

impl LockHolder {
    fn from_pid(pid: Pid) -> Self {
        let pid = pid.as_raw_nonzero().get();
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        Self {
            pid,
            name: name.map(|name| crate::text::one_line(name.trim_end()).into_owned()),
        }
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "process {} ({name})", self.pid),
            None => write!(f, "process {}", self.pid),
        }
    }
}

/// Converts an SQLite error. For an error about a lock it finds the process that holds
/// the lock.
pub(super) fn to_store_error(
    error: rusqlite::Error,
    main: &File,
    files: &DatabaseFiles,
) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::FileLockingProtocolFailed) => {
            StoreError::Locked(find_holder(main, files))
        }
        _ => error.into(),
    }
}

fn find_holder(main: &File, files: &DatabaseFiles) -> Option<LockHolder> {
    let on_main = DATABASE_LOCK_RANGES
        .into_iter()
        .find_map(|range| find_conflict(main, range, FlockType::ReadLock));
    let pid = on_main.flatten().or_else(|| {
        // SQLite has this file open too. Closing this descriptor drops the locks of the
        // connection, which has failed and is not used again.
        let index = File::open(&files.shm).ok()?;
        INDEX_LOCK_RANGES
            .into_iter()
            .find_map(|range| find_conflict(&index, range, FlockType::ReadLock))?
    });
    pid.map(LockHolder::from_pid)
}

/// Returns true if another process has the wal-index open.
pub(super) fn is_in_use(index: &File) -> bool {
    find_conflict(index, INDEX_CONNECTED_RANGE, FlockType::WriteLock).is_some()
}

/// Finds another process's lock that conflicts with a lock of type `typ` on these bytes.
/// The inner value is the process, if the system reports it.
fn find_conflict(file: &File, (start, length): (u64, u64), typ: FlockType) -> Option<Option<Pid>> {
    let wanted = Flock {
        start,
        length,
        pid: None,
        typ,
        offset_type: FlockOffsetType::Set,
    };
    let found = fcntl_getlk(file, &wanted).ok()??;
    (found.typ != FlockType::Unlocked).then_some(found.pid)
}
