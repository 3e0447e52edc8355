//! The state directory: one index in it, held by a lock.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::file;
use crate::text::Shown;

/// A state directory that is this process's alone for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// A state directory is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another service has it.
    #[error("{holder} already keeps an index in {directory}")]
    Held {
        /// Who, as far as it is known.
        holder: String,
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

impl StateDir {
    /// Makes the directory where it is not there, and locks it.
    ///
    /// # Errors
    ///
    /// Where another service has it, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let unusable = |why| StateError::Unusable {
            directory: Shown(path).to_string(),
            why,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = lock.take(32).read_to_string(&mut pid);
                let holder = match pid.trim().parse::<u32>() {
                    Ok(pid) => format!("process {pid}"),
                    Err(_) => "another process".to_owned(),
                };
                return Err(StateError::Held {
                    holder,
                    directory: Shown(path).to_string(),
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
        file::remove_leftovers(path, std::time::Duration::ZERO);
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
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
