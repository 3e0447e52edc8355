//! Programs of the tests' own.

use std::path::PathBuf;

/// A program of the tests' own.
#[must_use]
pub(crate) fn example(name: &str) -> PathBuf {
    let program = target().join("examples").join(name);
    assert!(
        program.exists(),
        "{} is not built: run `cargo build --examples`, or `cargo test` without a selection",
        program.display()
    );
    program
}

/// The folder this build's programs are in.
fn target() -> PathBuf {
    let mut directory = std::env::current_exe().unwrap();
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    directory
}
