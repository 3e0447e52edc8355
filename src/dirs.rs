//! Where this crate keeps its files: the directories of the XDG base directory
//! specification, and the names within them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::{make_directory, remove_leftovers};
use crate::locate::DatabaseFiles;

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
    make_directory(&directory).ok()?;
    // Other listings may be writing theirs.
    remove_leftovers(&directory, LEFT_OVER);
    let files = DatabaseFiles::resolve(db);
    let files = files.unwrap_or_else(|_| DatabaseFiles::of_canonical(db.to_owned()));
    Some(scan_cache_in(&directory, &files))
}
