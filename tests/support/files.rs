//! Files that lie beside a database.

use std::path::{Path, PathBuf};

/// The file whose name has `suffix` more.
pub(crate) fn beside(db: &Path, suffix: &str) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Copies a database with what lies beside it, by another program: when a process
/// closes a file, it loses the locks that its own connections have on it.
pub(crate) fn copy(from: &Path, to: &Path, suffixes: &[&str]) {
    for suffix in suffixes {
        let status = crate::support::command(Path::new("cp"))
            .args([beside(from, suffix), beside(to, suffix)])
            .status()
            .unwrap();
        assert!(status.success());
    }
}
