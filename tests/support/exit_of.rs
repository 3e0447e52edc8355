//! Children that are about to exit.

use std::process::{Child, ExitStatus};

use crate::support::wait_for;

/// Waits for a child that is about to exit.
#[track_caller]
pub(crate) fn exit_of(child: &mut Child) -> ExitStatus {
    wait_for("an exit", || child.try_wait().unwrap())
}
