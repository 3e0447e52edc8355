//! What a machine cannot prove.

use std::io::Write as _;
use std::thread;

/// Says that a test, or a part of one, proves nothing here: `SKIPPED: WHAT: WHY (TEST)`.
/// `.ci/run` knows which may be skipped, by what stands before the second colon.
pub(crate) fn skip(why: &str) {
    let thread = thread::current();
    let line = format!("SKIPPED: {why} ({})\n", thread.name().unwrap_or("a test"));
    // Not eprintln: the test runner would keep it to itself.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
