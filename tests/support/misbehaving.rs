//! The helper that does everything wrong.

use std::path::{Path, PathBuf};

use crate::support::example;

/// The helper that does everything wrong, under the name of what it is to do,
/// in `directory`.
#[must_use]
pub(crate) fn misbehaving(directory: &Path, name: &str) -> PathBuf {
    let program = example("misbehaving-lister");
    let link = directory.join(name);
    std::os::unix::fs::symlink(program, &link).unwrap();
    link
}
