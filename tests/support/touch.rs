//! Files that changed just now.

use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

/// The file at `path` was written to just now, and is as it was.
pub(crate) fn touch(path: &Path) {
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now()).unwrap();
}
