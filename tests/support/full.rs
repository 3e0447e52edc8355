//! Whether a pipe is full.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Returns true if nothing can be written to the pipe. How many bytes it holds then depends on
/// the lengths of the writes, each of which may begin a new page.
pub(crate) fn is_full(writer: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&writer, PollFlags::OUT)];
    poll(&mut polled, Some(&Timespec::default())).unwrap() == 0
}
