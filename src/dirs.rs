//! The directories of this crate's files, by the XDG base directory specification, and the
//! names of the files in them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::{create_private_directory, remove_old_temporary_files};
use crate::locate::DatabaseFiles;

/// Returns the directory of the state: `$XDG_STATE_HOME/opencode-sessions`, by default
/// `~/.local/state/opencode-sessions`; `None` without a home directory.
#[must_use]
pub(crate) fn state_dir() -> Option<PathBuf> {
    own_directory("XDG_STATE_HOME", ".local/state")
}

/// Returns the directory of the caches: `$XDG_CACHE_HOME/opencode-sessions`, by default
/// `~/.cache/opencode-sessions`; `None` without a home directory.
#[must_use]
pub(crate) fn cache_dir() -> Option<PathBuf> {
    own_directory("XDG_CACHE_HOME", ".cache")
}

/// Returns the directory of the configuration: `$XDG_CONFIG_HOME/opencode-sessions`, by
/// default `~/.config/opencode-sessions`; `None` without a home directory.
#[must_use]
pub(crate) fn config_dir() -> Option<PathBuf> {
    own_directory("XDG_CONFIG_HOME", ".config")
}

fn own_directory(variable: &str, default: &str) -> Option<PathBuf> {
    let base = std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    let base = base.or_else(|| Some(home()?.join(default)))?;
    Some(base.join("opencode-sessions"))
}

/// Returns the path of this database's scan cache in `directory`.
#[must_use]
pub(crate) fn scan_cache_in(directory: &Path, files: &DatabaseFiles) -> PathBuf {
    // Two databases with the same checksum only overwrite each other's cache.
    let name = crc32fast::hash(files.main.as_os_str().as_encoded_bytes());
    directory.join(format!("scan-{name:08x}"))
}

/// The age from which no helper can still be writing a temporary file.
const ABANDONED_AGE: Duration = Duration::from_secs(60 * 60);

/// Returns the path of the scan cache of the database at `db` in the user's cache directory.
///
/// Creates the directory if it does not exist, and removes the temporary files that killed
/// helpers left there. Blocks while the disk resolves `db`. `None` if the directory is
/// unknown or cannot be created.
#[must_use]
pub(crate) fn user_scan_cache(db: &Path) -> Option<PathBuf> {
    let directory = cache_dir()?;
    create_private_directory(&directory).ok()?;
    // Other listings may be writing their temporary files now.
    remove_old_temporary_files(&directory, ABANDONED_AGE);
    let files = DatabaseFiles::resolve(db);
    let files = files.unwrap_or_else(|_| DatabaseFiles::of_canonical(db.to_owned()));
    Some(scan_cache_in(&directory, &files))
}
