//! The programs under test.

use std::path::Path;
use std::process::Command;

/// The helper under test.
#[must_use]
pub(crate) fn lister() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_opencode-lister"))
}

/// A command that knows nothing of the developer: no HOME, no XDG directories,
/// no OpenCode variables, no colours.
#[must_use]
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    // Coverage and sanitizers need theirs; PATH lets scripts find a shell.
    for kept in ["PATH", "LLVM_PROFILE_FILE", "TMPDIR"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}
