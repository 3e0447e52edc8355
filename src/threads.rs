//! How many threads read a database by default.

use std::thread;

/// The maximum of [`default_threads`].
pub(crate) const MAX_THREADS: usize = 4;

/// Returns how many threads a helper reads with by default: the available parallelism, up
/// to 4. The system reads the limits of its control groups for this.
#[must_use]
pub fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, |threads| threads.get().min(MAX_THREADS))
}
