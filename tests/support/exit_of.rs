//! Children that are about to exit.

use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// Waits for a child that is about to exit.
#[track_caller]
pub(crate) fn exit_of(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < until, "it does not exit");
        thread::sleep(Duration::from_millis(2));
    }
}
