//! Waiting for something that should come by itself.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything is waited for that should come by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// Waits until there is something.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
