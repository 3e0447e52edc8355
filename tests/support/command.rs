//! Starting programs without the developer's environment.

use std::path::Path;
use std::process::Command;

/// A home that cannot be made: without HOME a program would take that of the password file.
const NO_HOME: &str = "/dev/null/home";

/// A command that knows nothing of the developer: no home, no XDG directories, no OpenCode
/// variables, no colours.
#[must_use]
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", NO_HOME);
    // Coverage and sanitizers need theirs; PATH lets scripts find a shell.
    for kept in ["PATH", "LLVM_PROFILE_FILE", "TMPDIR"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}
