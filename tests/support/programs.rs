//! The programs under test.

use std::path::Path;

/// The helper under test.
#[must_use]
pub(crate) fn lister() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_opencode-lister"))
}
