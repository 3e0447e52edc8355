//! What the helper prints.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::{command, lister};

/// What the helper prints of this database.
#[must_use]
pub(crate) fn helper(db: &Path, args: &[&str]) -> Output {
    command(lister())
        .arg("--db")
        .arg(db)
        .args(args)
        .output()
        .unwrap()
}

/// The lines of an output, each as JSON.
#[must_use]
pub(crate) fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
