//! Files that this crate keeps, and where: written atomically, so that a reader
//! finds the old one or the new one, also after a crash where that matters; and
//! set aside where they are of no use.

use std::fs::{self, DirBuilder, DirEntry, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

/// The bytes of the file at `path`; `None` where there is none. A file larger
/// than `limit` bytes is cut one byte after that. Never waits for a FIFO or a device.
///
/// # Errors
///
/// Returns an error if it is not a regular file or cannot be read.
pub fn load(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let opened = OpenOptions::new()
        .read(true)
        // Opening a FIFO would wait for somebody who writes to it.
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
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn not_a_regular_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Puts `bytes` in the place of the file at `path`, readable by its owner only:
/// written beside it, synced, renamed, and the directory synced.
///
/// # Errors
///
/// Returns an error if any of that fails, or if something other than a regular file or
/// a link is there, such as a device; what was there is then still there.
pub fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    save_written(path, |file| file.write_all(bytes))
}

/// As [`save`], for content that `write` writes piece by piece.
///
/// # Errors
///
/// Those of [`save`] and of `write`.
pub fn save_written(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let file = beside(path, write)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    match File::open(directory_of(path)?)?.sync_all() {
        // Some file systems sync no directory: the file is in its place all the same.
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

/// The same without waiting for the disk, for what can be made anew and tells
/// itself whether it is whole: after a crash of the system the file can be damaged.
///
/// # Errors
///
/// Those of [`save`].
pub fn save_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = beside(path, |file| file.write_all(bytes))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn beside(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    let is_replaceable = |about: fs::Metadata| about.is_file() || about.is_symlink();
    if fs::symlink_metadata(path).is_ok_and(|about| !is_replaceable(about)) {
        return Err(not_a_regular_file());
    }
    // Made with mode 0600, and removed when it is dropped before the rename.
    let mut file = tempfile::Builder::new()
        .prefix(LEFTOVER)
        .tempfile_in(directory_of(path)?)?;
    write(file.as_file_mut())?;
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

/// Makes this directory, and those it is in, where they are not there: for their owner
/// only.
///
/// # Errors
///
/// Where one cannot be made.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// An error where somebody else could put files into this directory, or take them away:
/// what is in it can then be theirs.
///
/// # Errors
///
/// Why, and what to do; or that of the system.
pub fn check_is_private(directory: &Path) -> io::Result<()> {
    let about = fs::metadata(directory)?;
    let why = if !about.is_dir() {
        "it is not a directory"
    } else if about.uid() != rustix::process::geteuid().as_raw() {
        "it is another user's; name one of your own"
    } else if about.mode() & 0o022 != 0 {
        "other users can write to it; take that away with `chmod go-w`, or name another one"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
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

    #[test]
    fn a_directory_that_others_can_write_to_is_not_private() {
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

    /// Ends the test where `work` does not end by itself.
    fn soon<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (to, from) = std::sync::mpsc::channel();
        std::thread::spawn(move || to.send(work()));
        from.recv_timeout(Duration::from_secs(20))
            .unwrap_or_else(|_| panic!("{what} is waited for"))
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
        // The last column: it is a file of ours after a save.
        for (name, read, is_replaced) in [
            ("link", some("some b"), true),
            // What the link led to is as it was.
            ("full", some("some b"), true),
            ("empty", some(""), true),
            ("missing", Ok(None), true),
            ("dangling", Ok(None), true),
            ("zero", refused(), true),
            ("directory", refused(), false),
            ("socket", Err("os error"), false),
            ("fifo", refused(), false),
            // Without a terminal it cannot even be opened.
            ("tty", Err(""), true),
        ] {
            let path = at(name);
            let loaded = soon(name, {
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
                assert!(save(&path, b"new").is_err(), "{name}");
                assert!(save_unsynced(&path, b"new").is_err(), "{name}");
                assert!(!fs::symlink_metadata(&path).unwrap().is_file(), "{name}");
                continue;
            }
            save_unsynced(&path, b"newer").unwrap();
            save(&path, b"new").unwrap();
            assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{name}");
            assert_eq!(load(&path, 5).unwrap().as_deref(), Some(&b"new"[..]));
        }
        let zero = fs::metadata("/dev/zero").unwrap();
        assert!(zero.file_type().is_char_device());
        let left = fs::read_dir(place.path()).unwrap().count();
        assert_eq!(left, 10, "nothing unfinished is left");
    }
}
