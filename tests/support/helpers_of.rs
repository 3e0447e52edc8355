//! The helpers that read a database.

use std::fs;
use std::path::Path;

/// The processes that run the real helper on this database.
pub(crate) fn helpers_of(db: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    processes
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let mut arguments = line.split(|byte| *byte == 0);
            let is_helper = arguments.next()?.ends_with(b"opencode-lister");
            let lists_it = arguments.any(|each| each == db.as_os_str().as_encoded_bytes());
            (is_helper && lists_it).then_some(pid)
        })
        .collect()
}
