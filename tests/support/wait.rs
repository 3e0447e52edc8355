//! Waiting for something that should come by itself.

use std::time::Duration;

use crate::support::within;

/// How long anything is waited for that should come by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// Waits until there is something.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}
