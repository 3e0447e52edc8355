//! What this room uses of the support that the rooms share.

#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/snapshots.rs"]
mod snapshots;

pub(crate) use limit::limit;
pub(crate) use snapshots::index_of;
