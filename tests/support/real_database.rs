//! Databases that real OpenCode programs wrote.

use std::fs::File;
use std::path::PathBuf;

use crate::support::fixtures;

/// A database that a real OpenCode wrote, unpacked; with the directory it is in.
#[must_use]
pub(crate) fn real_database(version: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let archive = File::open(fixtures().join(format!("opencode-{version}.tar.gz"))).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(archive))
        .unpack(directory.path())
        .unwrap();
    let db = directory.path().join("opencode.db");
    (directory, db)
}
