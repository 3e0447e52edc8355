//! The one loop that waits for something by looking for it.

use std::thread;
use std::time::{Duration, Instant};

/// Looks until there is something; fails when there is nothing at the limit.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + limit;
    loop {
        let is_over = Instant::now() >= until;
        if let Some(found) = look() {
            return found;
        }
        assert!(!is_over, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
