//! The files of one database: the one way to name them.
//!
//! SQLite follows links before it looks for the write-ahead log: the log of a
//! database is beside the file that the path leads to, not beside the link. So the
//! three names are made from the canonical path, and are resolved anew each time a
//! database is opened: a link can be turned, and a file can be replaced by a link.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::project::normal;

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
        Self {
            log: with_suffix(&main, "-wal"),
            shm: with_suffix(&main, "-shm"),
            main,
        }
    }

    /// The rollback journal, `-journal`.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        with_suffix(&self.main, "-journal")
    }

    /// Whether the log can be where this path does not lead: the file says that it has
    /// one, none is here, and the file has another hard link or is mounted by itself.
    /// SQLite looks for a log beside the name that it was given, so what is only in a
    /// log beside the other name is missing here.
    ///
    /// `header` is how the file begins, at least 20 bytes, and `about` is of the same
    /// file. The file is not opened: closing it would drop the locks of a connection
    /// that this process has. An empty log counts as none, since a reader makes one.
    #[must_use]
    pub fn log_can_be_elsewhere(&self, header: &[u8], about: &Metadata) -> bool {
        says_wal(header)
            && !self.has_log()
            && (about.nlink() > 1 || is_mounted_by_itself(&self.main))
    }

    /// Whether there is a log that is not empty.
    ///
    /// It asks the disk, and waits for it.
    #[must_use]
    pub fn has_log(&self) -> bool {
        fs::metadata(&self.log).is_ok_and(|about| about.len() > 0)
    }
}

/// Whether a database's header says that it is in WAL mode: by the versions that one must
/// have to write and to read it (<https://sqlite.org/fileformat2.html>, section 1.3.3).
pub(crate) fn says_wal(header: &[u8]) -> bool {
    header.get(18..20) == Some(&[2, 2])
}

/// Whether the file is the root of a mount, as a single file in a container often is.
#[cfg(target_os = "linux")]
fn is_mounted_by_itself(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let about = statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    about.is_ok_and(|about| about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mounted_by_itself(_: &Path) -> bool {
    false
}

fn with_suffix(main: &Path, suffix: &str) -> PathBuf {
    let mut name = main.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// As many links as the kernel follows.
const MOST_LINKS: u32 = 40;

fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let (real, missing) = existing_part(&path)?;
        let mut missing = missing.components();
        let Some(first) = missing.next() else {
            return Ok(real);
        };
        match real.join(first).read_link() {
            // A link to what is not there yet: SQLite would make the file there.
            Ok(target) => path = real.join(target).join(missing.as_path()),
            Err(_) => return Ok(normal(&real.join(first).join(missing.as_path()))),
        }
    }
    Err(io::Error::from_raw_os_error(
        rustix::io::Errno::LOOP.raw_os_error(),
    ))
}

/// The longest start of an absolute path that is there, resolved, and the rest.
fn existing_part(path: &Path) -> io::Result<(PathBuf, &Path)> {
    for ancestor in path.ancestors() {
        let real = match ancestor.canonicalize() {
            Ok(real) => real,
            Err(error) if is_missing(&error) => continue,
            Err(error) => return Err(error),
        };
        let rest = path.strip_prefix(ancestor).map_err(io::Error::other)?;
        return Ok((real, rest));
    }
    Err(io::ErrorKind::NotFound.into())
}

pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;
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
        symlink("directory/later", root.join("dangling directory")).unwrap();
        symlink("loop.db", root.join("loop.db")).unwrap();
        for (path, expected) in [
            ("real/a.db", "real/a.db"),
            ("directory/a.db", "real/a.db"),
            ("file.db", "real/a.db"),
            ("link to a link.db", "real/a.db"),
            ("real/deep/../a.db", "real/a.db"),
            ("real//./a.db", "real/a.db"),
            ("real/a.db/", "real/a.db"),
            ("directory/not yet.db", "real/not yet.db"),
            ("dangling.db", "real/none.db"),
            ("dangling directory/deep/a.db", "real/later/deep/a.db"),
            ("directory/later/a.db", "real/later/a.db"),
            ("nowhere/a.db", "nowhere/a.db"),
            ("nowhere/.././/nowhere/a.db", "nowhere/a.db"),
        ] {
            let files = DatabaseFiles::resolve(&root.join(path)).unwrap();
            assert_eq!(files.main, root.join(expected), "{path}");
            assert_eq!(files.log, root.join(format!("{expected}-wal")));
            assert_eq!(files.shm, root.join(format!("{expected}-shm")));
        }
        DatabaseFiles::resolve(&root.join("loop.db")).unwrap_err();
    }

    #[test]
    fn log_is_elsewhere_only_where_another_name_can_have_it() {
        let header = |versions: &[u8]| [b"SQLite format 3\0\x10\0", versions].concat();
        let (wal, rollback) = (header(&[2, 2]), header(&[1, 1]));
        for (header, has_other_name, log, expected) in [
            (&wal, true, None, true),
            (&wal, true, Some(""), true),
            (&wal, true, Some("frames"), false),
            (&wal, false, None, false),
            (&rollback, true, None, false),
            (&header(&[2, 1]), true, None, false),
            (&header(&[]), true, None, false),
        ] {
            let place = tempfile::tempdir().unwrap();
            let db = place.path().join("a.db");
            fs::write(&db, header).unwrap();
            if has_other_name {
                fs::hard_link(&db, place.path().join("b.db")).unwrap();
            }
            let files = DatabaseFiles::resolve(&db).unwrap();
            if let Some(log) = log {
                fs::write(&files.log, log).unwrap();
            }
            fs::write(&files.shm, "").unwrap();
            let about = fs::metadata(&db).unwrap();
            let found = files.log_can_be_elsewhere(header, &about);
            assert_eq!(found, expected, "{header:?} {has_other_name} {log:?}");
        }
    }
}
