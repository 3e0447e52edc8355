//! The paths of one database's files. No other module derives them.
//!
//! SQLite resolves symbolic links before it opens the write-ahead log, so the log is next to
//! the target of a link, not next to the link. The three paths are therefore derived from the
//! canonical path. They are resolved again each time a database is opened, because a link can
//! get another target and a file can be replaced by a link.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// The paths of a database, its write-ahead log and its wal-index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatabaseFiles {
    /// The canonical path of the database.
    pub main: PathBuf,
    /// The path of the write-ahead log, `-wal`.
    pub log: PathBuf,
    /// The path of the wal-index, `-shm`.
    pub shm: PathBuf,
}

impl DatabaseFiles {
    /// Returns the files of the database that `path` leads to. If the file does not exist, or
    /// `path` is a dangling link, resolves the part of the path that exists.
    ///
    /// Blocks while the disk does not respond.
    ///
    /// # Errors
    ///
    /// Returns an error if the path cannot be resolved for another reason than a missing
    /// file: a loop of links, or a directory that may not be searched.
    pub(crate) fn resolve(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        Ok(Self::of_canonical(resolve_existing(&path)?))
    }

    /// Returns the files of the database at the canonical path `main`.
    #[must_use]
    pub(crate) fn of_canonical(main: PathBuf) -> Self {
        Self {
            log: with_suffix(&main, "-wal"),
            shm: with_suffix(&main, "-shm"),
            main,
        }
    }

    /// Returns the path of the rollback journal, `-journal`.
    #[must_use]
    pub(crate) fn journal(&self) -> PathBuf {
        with_suffix(&self.main, "-journal")
    }

    /// Returns true if the log may be next to another name of the file: the database is in
    /// WAL mode, `self.log` is missing, and the file has another hard link or is itself a
    /// mount point. SQLite opens the log next to the name that it was given, so frames in the
    /// log of another name are not read.
    ///
    /// `header` must be the first bytes of the file, at least 20, and `metadata` that of the
    /// same file. The function does not open the file: closing it would drop the locks of
    /// this process's connections. An empty log counts as missing, because a reader creates
    /// one.
    #[must_use]
    pub(crate) fn log_can_be_elsewhere(&self, header: &[u8], metadata: &Metadata) -> bool {
        is_wal_header(header)
            && !self.has_log()
            && (metadata.nlink() > 1 || is_mount_point(&self.main))
    }

    /// Returns true if the log exists and is not empty.
    ///
    /// Blocks while the disk does not respond.
    #[must_use]
    pub(crate) fn has_log(&self) -> bool {
        fs::metadata(&self.log).is_ok_and(|metadata| metadata.len() > 0)
    }
}

/// Returns true if the header of a database says that it is in WAL mode. Its file format
/// write and read versions are then both 2 (<https://sqlite.org/fileformat2.html>, section
/// 1.3.3).
pub(crate) fn is_wal_header(header: &[u8]) -> bool {
    header.get(18..20) == Some(&[2, 2])
}

/// Returns true if the file is a mount point, as a single file in a container often is.
/// Always false on systems other than Linux.
#[cfg(target_os = "linux")]
fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mount_point(_: &Path) -> bool {
    false
}

fn with_suffix(main: &Path, suffix: &str) -> PathBuf {
    let mut name = main.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The maximum number of symbolic links, that of the kernel.
const MAX_LINKS: u32 = 40;

/// Resolves the part of an absolute path that exists, and dangling links.
fn resolve_existing(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let (real, missing) = existing_part(&path)?;
        let mut missing = missing.components();
        let Some(first) = missing.next() else {
            return Ok(real);
        };
        match real.join(first).read_link() {
            // A dangling link: SQLite would create the file at its target.
            Ok(target) => path = real.join(target).join(missing.as_path()),
            Err(_) => return Ok(normalize(&real.join(first).join(missing.as_path()))),
        }
    }
    Err(io::Error::from_raw_os_error(
        rustix::io::Errno::LOOP.raw_os_error(),
    ))
}

/// Splits an absolute path into its longest existing prefix, resolved, and the rest.
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

/// Removes `.` and `..` from a path, without accessing the disk.
#[must_use]
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut normalized = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normalized.pop();
            }
            component => normalized.push(component),
        }
    }
    normalized
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn files_are_beside_the_target_of_every_link() {
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
    fn log_can_be_elsewhere_only_with_another_name() {
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
            let metadata = fs::metadata(&db).unwrap();
            let found = files.log_can_be_elsewhere(header, &metadata);
            assert_eq!(found, expected, "{header:?} {has_other_name} {log:?}");
        }
    }
}
