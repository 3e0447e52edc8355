//! Open descriptors.

use std::fs;

/// The descriptors this process has open.
#[must_use]
pub(crate) fn descriptors() -> usize {
    fs::read_dir(if cfg!(target_os = "linux") {
        "/proc/self/fd"
    } else {
        "/dev/fd"
    })
    .unwrap()
    .count()
}
