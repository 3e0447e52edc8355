//! Reads and replaces this crate's files.
//!
//! A file is replaced atomically: a reader finds the old content or the new content. With
//! [`save`] that holds even after a crash of the system. An unusable file is set aside.

use std::fs::{self, DirBuilder, DirEntry, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

/// Reads the file at `path`; `None` if it does not exist. Reads at most `limit_bytes` + 1
/// bytes, so that the caller can detect a larger file. Never blocks on a FIFO or a device.
///
/// # Errors
///
/// Returns an error if the path is not a regular file or cannot be read.
pub(crate) fn load(path: &Path, limit_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let opened = OpenOptions::new()
        .read(true)
        // Otherwise opening a FIFO would block until another process opens it for writing.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(not_a_regular_file());
    }
    let mut bytes = Vec::new();
    file.take(limit_bytes as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn not_a_regular_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Replaces the file at `path` with what `write` writes, readable by its owner only. Writes a
/// temporary file in the same directory, syncs it, renames it, and syncs the directory.
///
/// # Errors
///
/// Returns the error of `write`, and an error if one of these steps fails, or if the path is neither a regular file
/// nor a symbolic link, but a device, for example. If the last step fails, the new file is
/// in place; after any other error the old one still is.
pub(crate) fn save(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let file = write_temporary(path, write)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    match File::open(directory_of(path)?)?.sync_all() {
        // Some file systems cannot sync a directory; the file is in place nevertheless.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Replaces the file as [`save`] does, but without syncing. After a crash of the system the
/// file can be damaged, so its content must have a checksum and be reproducible.
///
/// # Errors
///
/// Returns the errors of [`save`].
pub(crate) fn save_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = write_temporary(path, |file| file.write_all(bytes))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Writes a temporary file into the directory of `path`.
fn write_temporary(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    let is_replaceable = |metadata: fs::Metadata| metadata.is_file() || metadata.is_symlink();
    if fs::symlink_metadata(path).is_ok_and(|metadata| !is_replaceable(metadata)) {
        return Err(not_a_regular_file());
    }
    // The file has mode 0600. Dropping it before the rename removes it.
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .tempfile_in(directory_of(path)?)?;
    write(file.as_file_mut())?;
    Ok(file)
}

fn directory_of(path: &Path) -> io::Result<&Path> {
    path.parent()
        .ok_or_else(|| io::Error::other("the path has no directory"))
}

/// The prefix of the names of temporary files.
const TEMPORARY_PREFIX: &str = ".unfinished-";

/// Removes the temporary files that killed processes left in `directory`, if they are at
/// least `min_age` old, so that no process can still be writing them. Ignores errors.
pub(crate) fn remove_old_temporary_files(directory: &Path, min_age: Duration) {
    let is_old = |entry: &DirEntry| {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        // A time in the future has no age: the file stays.
        modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age >= min_age))
    };
    for entry in fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(TEMPORARY_PREFIX) && is_old(&entry) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Creates this directory and its missing parents, with mode 0700.
///
/// # Errors
///
/// Returns an error if one of them cannot be created.
pub(crate) fn create_private_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Checks that only this user can add files to this directory or remove them, so that its
/// files cannot be another user's.
///
/// # Errors
///
/// Returns an error that names the problem and the way out if another user can do so, or the
/// system's error if the directory cannot be inspected.
pub(crate) fn check_is_private(directory: &Path) -> io::Result<()> {
    let metadata = fs::metadata(directory)?;
    let message = if !metadata.is_dir() {
        "not a directory"
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        "owned by another user; name a directory of your own"
    } else if metadata.mode() & 0o022 != 0 {
        "writable by other users; run `chmod go-w` on it, or name another directory"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Renames the file at `path` to `<path>.set-aside`, so that a person can inspect it.
/// Replaces an earlier file of that name. Returns the new path.
///
/// # Errors
///
/// Returns an error if the file cannot be renamed.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(".set-aside");
    let aside = PathBuf::from(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_file_replaces_the_old_one_without_leftovers() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        assert_eq!(load(&path, 100).unwrap(), None);
        save(&path, |file| file.write_all(b"one")).unwrap();
        save(&path, |file| file.write_all(b"two")).unwrap();
        assert_eq!(load(&path, 100).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(load(&path, 1).unwrap().as_deref(), Some(&b"tw"[..]));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(place.path().join(".unfinished-x"), "").unwrap();
        let count = || fs::read_dir(place.path()).unwrap().count();
        remove_old_temporary_files(place.path(), Duration::from_secs(60));
        assert_eq!(count(), 2);
        remove_old_temporary_files(place.path(), Duration::ZERO);
        let aside = set_aside(&path).unwrap();
        let left: Vec<_> = fs::read_dir(place.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        assert_eq!(left, [aside]);
    }

    #[test]
    fn directory_writable_by_others_is_not_private() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        for (mode, is_private) in [
            (0o700, true),
            (0o755, true),
            (0o775, false),
            (0o777, false),
            (0o1777, false),
            (0o702, false),
        ] {
            fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).unwrap();
            let checked = check_is_private(place.path());
            assert_eq!(checked.is_ok(), is_private, "{mode:o}: {checked:?}");
        }
        fs::write(place.path().join("file"), "").unwrap();
        assert!(check_is_private(&place.path().join("file")).is_err());
        assert!(check_is_private(&place.path().join("nothing")).is_err());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(place.path(), Some(1), None).unwrap();
            fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
            assert!(check_is_private(place.path()).is_err());
        }
    }

    /// Runs `work` on another thread and fails the test if it takes more than 20 seconds.
    fn with_timeout<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(work()));
        receiver
            .recv_timeout(Duration::from_secs(20))
            .unwrap_or_else(|_| panic!("{what} blocks"))
    }

    #[test]
    fn only_a_regular_file_is_read_and_replaced() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        use std::os::unix::net::UnixListener;
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::write(at("full"), "some bytes").unwrap();
        fs::write(at("empty"), "").unwrap();
        symlink(at("full"), at("link")).unwrap();
        symlink(at("nothing"), at("dangling")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        symlink("/dev/tty", at("tty")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        #[expect(clippy::disallowed_methods, reason = "std makes no FIFO")]
        let made = std::process::Command::new("mkfifo")
            .arg(at("fifo"))
            .status();
        assert!(made.unwrap().success());
        let some = |text: &str| Ok(Some(text.as_bytes().to_owned()));
        let refused = || Err("not a regular file");
        // The name, the result of a load, and whether a save replaces it.
        for (name, read, is_replaced) in [
            ("link", some("some b"), true),
            // The target of the replaced link is unchanged.
            ("full", some("some b"), true),
            ("empty", some(""), true),
            ("missing", Ok(None), true),
            ("dangling", Ok(None), true),
            ("zero", refused(), true),
            ("directory", refused(), false),
            ("socket", Err("os error"), false),
            ("fifo", refused(), false),
            // Without a controlling terminal it cannot be opened at all.
            ("tty", Err(""), true),
        ] {
            let path = at(name);
            let loaded = with_timeout(name, {
                let path = path.clone();
                move || load(&path, 5)
            });
            match (loaded, read) {
                (Ok(bytes), read) => assert_eq!(Ok(bytes), read, "{name}"),
                (Err(error), Err(why)) => {
                    assert!(error.to_string().contains(why), "{name}: {error}");
                }
                (Err(error), Ok(_)) => panic!("{name}: {error}"),
            }
            if !is_replaced {
                assert!(
                    save(&path, |file| file.write_all(b"new")).is_err(),
                    "{name}"
                );
                assert!(save_unsynced(&path, b"new").is_err(), "{name}");
                assert!(!fs::symlink_metadata(&path).unwrap().is_file(), "{name}");
                continue;
            }
            save_unsynced(&path, b"newer").unwrap();
            save(&path, |file| file.write_all(b"new")).unwrap();
            assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{name}");
            assert_eq!(load(&path, 5).unwrap().as_deref(), Some(&b"new"[..]));
        }
        let zero = fs::metadata("/dev/zero").unwrap();
        assert!(zero.file_type().is_char_device());
        let left = fs::read_dir(place.path()).unwrap().count();
        assert_eq!(left, 10, "no temporary file is left");
    }
}
