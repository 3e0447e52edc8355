//! Programs that were copied.

use std::io::{self, ErrorKind};
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::within;

/// The output of a program that is a copy. A child that another test is just starting
/// may hold it open for writing, so that it cannot run yet.
pub(crate) fn output_when_free(mut command: impl FnMut() -> Command) -> io::Result<Output> {
    within(
        Duration::from_secs(20),
        "a program to be free",
        || match command().output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
            output => Some(output),
        },
    )
}
