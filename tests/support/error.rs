//! Listings that must fail.

use std::path::Path;

use crate::support::{helper, lines};

/// The kind of the `error` line of a listing that must fail.
#[must_use]
pub(crate) fn error(db: &Path, args: &[&str]) -> (String, String) {
    let output = helper(db, args);
    let lines = lines(&output);
    assert_eq!(lines[0]["type"], "hello");
    let last = lines.last().unwrap();
    assert_eq!(last["type"], "error", "{lines:?}");
    let kind = last["kind"].as_str().unwrap().to_owned();
    assert_eq!(
        output.status.code(),
        Some(if kind == "usage" { 2 } else { 1 })
    );
    (kind, last["message"].as_str().unwrap().to_owned())
}
