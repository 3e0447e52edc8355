//! The folder of the fixtures.

use std::path::{Path, PathBuf};

/// The folder of the fixtures.
#[must_use]
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}
