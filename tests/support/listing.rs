//! Listings that must be complete.

use std::path::Path;

use serde_json::Value;

use crate::support::{complete, helper};

/// The sessions and the `end` of a listing that must be complete.
#[must_use]
pub(crate) fn listing(db: &Path, args: &[&str]) -> (Vec<Value>, Value) {
    complete(&helper(db, args))
}
