//! Who holds a lock that this program waited for in vain.
//!
//! The kernel knows: `F_GETLK` tells the process that holds a conflicting lock. It
//! sees no process of another container (their ids mean nothing here) and none of
//! another machine.

use std::fmt;
use std::fs::File;

use rusqlite::ErrorCode;
use rustix::process::{Flock, FlockOffsetType, FlockType, Pid, fcntl_getlk};

use super::StoreError;
use crate::locate::DatabaseFiles;

/// Where SQLite locks a database (`PENDING_BYTE` and what follows;
/// <https://sqlite.org/src/file/src/os.h>): bytes that a reader locks, too.
const DATABASE_LOCKS: [(u64, u64); 2] = [(0x4000_0000, 1), (0x4000_0002, 510)];

/// Where SQLite locks a wal-index (<https://sqlite.org/walformat.html>, section 2.3.1):
/// the lock for recovery, and those for readers.
const INDEX_LOCKS: [(u64, u64); 1] = [(122, 6)];

/// The byte of a wal-index that every connection to it has locked (`UNIX_SHM_DMS`).
const INDEX_IN_USE: (u64, u64) = (128, 1);

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// Its id.
    pub pid: i32,
    /// Its name, where the system tells it.
    pub name: Option<String>,
}

impl LockHolder {
    fn of(pid: Pid) -> Self {
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

/// An error of SQLite, and whose lock it is if it is one.
pub(super) fn explain(error: rusqlite::Error, main: &File, files: &DatabaseFiles) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::FileLockingProtocolFailed) => {
            StoreError::Locked(holder(main, files))
        }
        _ => error.into(),
    }
}

fn holder(main: &File, files: &DatabaseFiles) -> Option<LockHolder> {
    let of_main = DATABASE_LOCKS
        .into_iter()
        .find_map(|at| against(main, at, FlockType::ReadLock));
    let pid = of_main.flatten().or_else(|| {
        // SQLite has this file open, so opening and closing it here would drop its locks,
        // were this connection not done for.
        let index = File::open(&files.shm).ok()?;
        INDEX_LOCKS
            .into_iter()
            .find_map(|at| against(&index, at, FlockType::ReadLock))?
    });
    pid.map(LockHolder::of)
}

/// True if another process has the wal-index open.
pub(super) fn is_in_use(index: &File) -> bool {
    against(index, INDEX_IN_USE, FlockType::WriteLock).is_some()
}

/// Another process's lock on these bytes that conflicts with this one, and its process
/// if the system tells.
fn against(file: &File, (start, length): (u64, u64), typ: FlockType) -> Option<Option<Pid>> {
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
