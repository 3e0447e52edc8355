//! Outputs that must be whole listings.

use std::process::Output;

use serde_json::Value;

use crate::support::lines;

/// The sessions and the `end` of what a helper printed, which must be complete.
#[must_use]
pub(crate) fn complete(output: &Output) -> (Vec<Value>, Value) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut lines = lines(output);
    assert_eq!(output.status.code(), Some(0), "{lines:?} {stderr}");
    assert_eq!(lines.remove(0)["type"], "hello");
    let end = lines.pop().unwrap();
    assert_eq!(end["type"], "end");
    assert_eq!(end["sessions"], lines.len());
    assert!(lines.iter().all(|line| line["type"] == "session"));
    (lines, end)
}
