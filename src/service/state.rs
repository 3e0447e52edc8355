//! The state directory, which a service locks. It contains one index.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files;
use crate::text::DisplayPath;

/// The number of state directories at one path.
const MAX_SLOTS: u32 = 8;

/// Returns the state directories at a path, in the order in which a service tries them. The
/// first is the directory itself. Those below it are for services with other sources, and for
/// a service that starts beside one that does not respond.
pub fn slots(path: &Path) -> impl Iterator<Item = PathBuf> {
    let others = (2..=MAX_SLOTS).map(|number| path.join(format!("index-{number}")));
    std::iter::once(path.to_owned()).chain(others)
}

/// A locked state directory. The lock is released when this and every [`StateLock`] of it are
/// dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    lock: Arc<File>,
}

/// Keeps a state directory locked until it is dropped.
#[derive(Debug)]
pub struct StateLock(#[expect(dead_code, reason = "it holds the lock")] Arc<File>);

/// Why a state directory cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another service has locked it.
    #[error("{} already keeps an index in {directory}", holder_of(*.pid))]
    Held {
        /// The process id of that service, if it could be read.
        pid: Option<u32>,
        /// The directory, as it is shown.
        directory: String,
    },
    /// It cannot be created or locked, or another user can write to it.
    #[error("the state directory {directory} cannot be used: {error}")]
    Unusable {
        /// The directory, as it is shown.
        directory: String,
        /// The error of the system.
        error: io::Error,
    },
}

fn holder_of(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

impl StateDir {
    /// Creates the directory if it does not exist, and locks it.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::Held`] if another service has locked the directory, and
    /// [`StateError::Unusable`] if it cannot be created or locked, or if another user can write
    /// to it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let unusable = |error| StateError::Unusable {
            directory: DisplayPath(path).to_string(),
            error,
        };
        files::create_private_directory(path).map_err(unusable)?;
        files::check_is_private(path).map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // A symbolic link must not redirect the write to another file.
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
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // The process id is only shown to people, so this write may fail.
        let _ = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        // While the lock is held, no other service writes here.
        files::remove_old_temporary_files(path, std::time::Duration::ZERO);
        Ok(Self {
            path: path.to_owned(),
            lock: Arc::new(lock),
        })
    }

    /// Returns a guard that keeps the directory locked after this is dropped.
    #[must_use]
    pub fn lock(&self) -> StateLock {
        StateLock(Arc::clone(&self.lock))
    }

    /// Returns the path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the snapshot.
    #[must_use]
    pub fn snapshot_path(&self) -> PathBuf {
        self.path.join("index")
    }
}
