//! Waiting until something is so.

use std::time::Duration;

use crate::support::within;

/// Waits until it is so; fails when it is not at the limit.
#[track_caller]
pub(crate) fn eventually(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    within(limit, what, || is_so().then_some(()));
}
