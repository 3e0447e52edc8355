//! The files of one database: the one way to name them.
//!
//! SQLite follows links before it looks for the write-ahead log: the log of a
//! database is beside the file that the path leads to, not beside the link. So the
//! three names are made from the canonical path, and are resolved anew each time a
//! database is opened: a link can be turned, and a file can be replaced by a link.

use std::io;
use std::path::{Path, PathBuf};

/// A database, its write-ahead log and its wal-index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseFiles {
    /// The database, by its canonical path.
    pub main: PathBuf,
    /// Its write-ahead log, `-wal`.
    pub log: PathBuf,
    /// Its wal-index, `-shm`.
    pub shm: PathBuf,
}

impl DatabaseFiles {
    /// The files of the database that `path` leads to. Where no file is there, or
    /// only a link to none, the part of the path that is there is resolved.
    ///
    /// It asks the disk, and waits for it.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses to resolve the path for another reason
    /// than that the file is missing: a loop of links, or a directory that may not be
    /// searched.
    pub fn resolve(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        Ok(Self::of_canonical(resolved(&path)?))
    }

    /// The files of the database at `main`, which is a canonical path.
    #[must_use]
    pub fn of_canonical(main: PathBuf) -> Self {
        let with = |suffix: &str| {
            let mut name = main.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self {
            log: with("-wal"),
            shm: with("-shm"),
            main,
        }
    }

    /// The rollback journal, `-journal`.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        let mut name = self.main.as_os_str().to_owned();
        name.push("-journal");
        name.into()
    }
}

/// As many links as the kernel follows.
const MOST_LINKS: u32 = 40;

fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match path.canonicalize() {
            Err(error) if is_missing(&error) => {}
            other => return other,
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(path);
        };
        let directory = match directory.canonicalize() {
            Ok(directory) => directory,
            Err(error) if is_missing(&error) => return Ok(path),
            Err(error) => return Err(error),
        };
        path = directory.join(name);
        match path.read_link() {
            // A link to a file that is not there yet: SQLite would make that one.
            Ok(target) => path = directory.join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::from_raw_os_error(
        rustix::io::Errno::LOOP.raw_os_error(),
    ))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_link_leads_to_the_files_beside_the_target() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        fs::write(root.join("real/a.db"), "").unwrap();
        symlink("real", root.join("directory")).unwrap();
        symlink("real/a.db", root.join("file.db")).unwrap();
        symlink("file.db", root.join("link to a link.db")).unwrap();
        symlink(root.join("real/none.db"), root.join("dangling.db")).unwrap();
        symlink("loop.db", root.join("loop.db")).unwrap();
        for (path, expected) in [
            ("real/a.db", "real/a.db"),
            ("directory/a.db", "real/a.db"),
            ("file.db", "real/a.db"),
            ("link to a link.db", "real/a.db"),
            ("real/deep/../a.db", "real/a.db"),
            ("real//./a.db", "real/a.db"),
            ("directory/not yet.db", "real/not yet.db"),
            ("dangling.db", "real/none.db"),
            ("nowhere/a.db", "nowhere/a.db"),
        ] {
            let files = DatabaseFiles::resolve(&root.join(path)).unwrap();
            assert_eq!(files.main, root.join(expected), "{path}");
            assert_eq!(files.log, root.join(format!("{expected}-wal")));
            assert_eq!(files.shm, root.join(format!("{expected}-shm")));
        }
        DatabaseFiles::resolve(&root.join("loop.db")).unwrap_err();
    }
}
