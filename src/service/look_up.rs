//! The limits of looking up: each look-up launches a helper for every source.

use crate::session::SessionId;
use crate::wire::limits;

/// So many at once.
pub(super) const MOST: usize = 8;

/// What is wrong with a request for these.
pub(super) fn check(ids: &[SessionId]) -> Result<(), String> {
    match ids.len() {
        1..=limits::IDS => Ok(()),
        count => Err(format!("1 to {} ids at once, not {count}", limits::IDS)),
    }
}
