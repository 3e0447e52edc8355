//! Files that this crate keeps, and where: written atomically, so that a reader
//! finds the old one or the new one, also after a crash where that matters; and
//! set aside where they are of no use.

use std::fs::{self, DirBuilder, DirEntry, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::database_files::DatabaseFiles;

/// The bytes of the file at `path`; `None` where there is none. A file larger
/// than `limit` bytes is cut one byte after that.
///
/// # Errors
///
/// Where it cannot be read.
pub fn load(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Puts `bytes` in the place of the file at `path`, readable by its owner only:
/// written beside it, synced, renamed, and the directory synced.
///
/// # Errors
///
/// Where any of that fails; the old file is then still there.
pub fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = beside(path, bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory_of(path)?)?.sync_all()
}

/// The same without waiting for the disk, for what can be made anew and tells
/// itself whether it is whole: after a crash of the system the file can be damaged.
///
/// # Errors
///
/// Where any of that fails; the old file is then still there.
pub fn save_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = beside(path, bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn beside(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    // Made with mode 0600, and removed when it is dropped before the rename.
    let mut file = tempfile::Builder::new()
        .prefix(LEFTOVER)
        .tempfile_in(directory_of(path)?)?;
    file.write_all(bytes)?;
    Ok(file)
}

fn directory_of(path: &Path) -> io::Result<&Path> {
    path.parent()
        .ok_or_else(|| io::Error::other("the path has no directory"))
}

/// How the names of unfinished files begin.
const LEFTOVER: &str = ".unfinished-";

/// Removes the unfinished files that killed processes left in `directory`, if they
/// are so old that nobody can be writing them.
pub fn remove_leftovers(directory: &Path, older_than: Duration) {
    let is_old = |entry: &DirEntry| {
        let modified = entry.metadata().and_then(|about| about.modified());
        // Of the future: that is no age.
        modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age >= older_than))
    };
    for entry in fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        if entry.file_name().to_string_lossy().starts_with(LEFTOVER) && is_old(&entry) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Moves the file at `path` out of the way, to where a person can look at it. An
/// earlier one there is replaced.
///
/// # Errors
///
/// Where it cannot be moved.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(".set-aside");
    let aside = PathBuf::from(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Where this crate keeps what it cannot do without:
/// `$XDG_STATE_HOME/opencode-sessions`, by default
/// `~/.local/state/opencode-sessions`; `None` without a home.
#[must_use]
pub fn state_dir() -> Option<PathBuf> {
    own_directory("XDG_STATE_HOME", ".local/state")
}

/// Where it keeps what it can do without: `$XDG_CACHE_HOME/opencode-sessions`, by
/// default `~/.cache/opencode-sessions`; `None` without a home.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    own_directory("XDG_CACHE_HOME", ".cache")
}

/// Where a user writes down what it is to do: `$XDG_CONFIG_HOME/opencode-sessions`, by
/// default `~/.config/opencode-sessions`; `None` without a home.
#[must_use]
pub fn config_dir() -> Option<PathBuf> {
    own_directory("XDG_CONFIG_HOME", ".config")
}

fn own_directory(variable: &str, default: &str) -> Option<PathBuf> {
    let set = std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    let base = set.or_else(|| Some(home()?.join(default)))?;
    Some(base.join("opencode-sessions"))
}

/// The scan cache of this database in this directory.
#[must_use]
pub fn scan_cache_in(directory: &Path, files: &DatabaseFiles) -> PathBuf {
    // Two paths of one checksum only cost each other their caches.
    let name = crc32fast::hash(files.main.as_os_str().as_encoded_bytes());
    directory.join(format!("scan-{name:08x}"))
}

/// An older file is one that no helper is still writing.
const LEFT_OVER: Duration = Duration::from_secs(60 * 60);

/// The scan cache of the database at `db` in the user's cache directory, which is made
/// where it is not there, and rid of what killed helpers left; `None` where it cannot be
/// had. It asks the disk what the path leads to, and waits for it.
#[must_use]
pub fn own_scan_cache(db: &Path) -> Option<PathBuf> {
    let directory = cache_dir()?;
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory);
    made.ok()?;
    // Other listings may be writing theirs.
    remove_leftovers(&directory, LEFT_OVER);
    let files = DatabaseFiles::resolve(db);
    let files = files.unwrap_or_else(|_| DatabaseFiles::of_canonical(db.to_owned()));
    Some(scan_cache_in(&directory, &files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_file_replaces_the_old_one_and_leaves_nothing_beside_it() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        assert_eq!(load(&path, 100).unwrap(), None);
        save(&path, b"one").unwrap();
        save(&path, b"two").unwrap();
        assert_eq!(load(&path, 100).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(load(&path, 1).unwrap().as_deref(), Some(&b"tw"[..]));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(place.path().join(".unfinished-x"), "").unwrap();
        let count = || fs::read_dir(place.path()).unwrap().count();
        remove_leftovers(place.path(), Duration::from_secs(60));
        assert_eq!(count(), 2);
        remove_leftovers(place.path(), Duration::ZERO);
        let aside = set_aside(&path).unwrap();
        let left: Vec<_> = fs::read_dir(place.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        assert_eq!(left, [aside]);
    }
}
