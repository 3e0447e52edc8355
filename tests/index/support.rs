//! What this room uses of the support that the rooms share.

#[path = "../support/differences.rs"]
mod differences;
#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/snapshots.rs"]
mod snapshots;

pub(crate) use differences::{Database, listing_of, write_difference};
pub(crate) use limit::limit;
pub(crate) use snapshots::index_of;
