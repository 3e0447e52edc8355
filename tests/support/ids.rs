//! The ids of a listing.

use std::path::Path;

use crate::support::listing;

/// The ids of a listing, in its order.
#[must_use]
pub(crate) fn ids(db: &Path, args: &[&str]) -> Vec<String> {
    let (sessions, _) = listing(db, args);
    sessions
        .iter()
        .map(|session| session["id"].as_str().unwrap().to_owned())
        .collect()
}
