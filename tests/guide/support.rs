//! What this room uses of the support that the rooms share.

#[path = "../support/example.rs"]
mod example;
#[path = "../support/fixtures.rs"]
mod fixtures;
#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/sessions.rs"]
mod sessions;

pub(crate) use example::example;
pub(crate) use fixtures::fixtures;
pub(crate) use limit::limit;
pub(crate) use programs::command;
pub(crate) use sessions::sessions;
