//! For systems without inotify: every directory is polled. A kqueue event of a directory
//! reports added and removed entries, not writes to a file in it, and a commit is only such a
//! write.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::tasks::Waker;

/// Has no values, since no instance can be created.
#[derive(Debug)]
pub(super) enum Inotify {}

/// Has no values, since no watch can be added.
#[derive(Debug)]
pub(super) enum DirectoryWatch {}

impl Inotify {
    pub(super) fn start() -> io::Result<Self> {
        Err(io::Error::other(
            "this system does not report writes to the files of a directory",
        ))
    }

    pub(super) fn is_live(&self) -> bool {
        match *self {}
    }

    pub(super) fn watch(&self, _: &Path, _: [OsString; 2], _: Waker) -> io::Result<DirectoryWatch> {
        match *self {}
    }
}

impl DirectoryWatch {
    pub(super) fn is_live(&self) -> bool {
        match *self {}
    }
}
