//! The state directory: one index in it, held by a lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files;
use crate::text::DisplayPath;

/// How many indexes one place has room for.
const SLOTS: u32 = 8;

/// Where the indexes of a place are: the first in the directory itself, those of other
/// configurations, or beside a service that does not answer, below it.
pub fn slots(path: &Path) -> impl Iterator<Item = PathBuf> {
    let others = (2..=SLOTS).map(|number| path.join(format!("index-{number}")));
    std::iter::once(path.to_owned()).chain(others)
}

/// A state directory that is this process's alone for as long as this lives, or what
/// [`StateDir::hold`] gives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    lock: Arc<File>,
}

/// Keeps the lock of a state directory.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "it is held")] Arc<File>);

/// A state directory is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another service has it.
    #[error("{} already keeps an index in {directory}", holder_of(*.pid))]
    Held {
        /// Its process id, as far as it is known.
        pid: Option<u32>,
        /// Where.
        directory: String,
    },
    /// It cannot be made or locked.
    #[error("the state directory {directory} cannot be used: {why}")]
    Unusable {
        /// Where.
        directory: String,
        /// Why.
        why: io::Error,
    },
}

fn holder_of(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

impl StateDir {
    /// Makes the directory where it is not there, and locks it.
    ///
    /// # Errors
    ///
    /// Where another service has it, the system refuses, or somebody else can write to it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let unusable = |why| StateError::Unusable {
            directory: DisplayPath(path).to_string(),
            why,
        };
        files::create_private_directory(path).map_err(unusable)?;
        files::check_is_private(path).map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // What is written to it must not go to another file.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path.join("lock"))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = lock.take(32).read_to_string(&mut pid);
                return Err(StateError::Held {
                    pid: pid.trim().parse().ok(),
                    directory: DisplayPath(path).to_string(),
                });
            }
            Err(TryLockError::Error(why)) => return Err(unusable(why)),
        }
        // Only for people; it may fail.
        let _ = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        // Nobody else writes here while the lock is held.
        files::remove_old_temporary_files(path, std::time::Duration::ZERO);
        Ok(Self {
            path: path.to_owned(),
            lock: Arc::new(lock),
        })
    }

    /// Keeps the lock, also when this is gone.
    #[must_use]
    pub fn hold(&self) -> Hold {
        Hold(Arc::clone(&self.lock))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The snapshot's file.
    #[must_use]
    pub fn snapshot(&self) -> PathBuf {
        self.path.join("index")
    }

    /// True where files can be made in it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        fs::metadata(&self.path).is_ok()
            && rustix::fs::access(&self.path, rustix::fs::Access::WRITE_OK).is_ok()
    }
}
