//! The main program under test.

use std::path::Path;

/// The main program under test.
#[must_use]
pub(crate) fn sessions() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_opencode-sessions"))
}
