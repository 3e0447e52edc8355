//! What this room uses of the support that the rooms share.

#[path = "../support/command.rs"]
mod command;
#[path = "../support/eventually.rs"]
mod eventually;
#[path = "../support/example.rs"]
mod example;
#[path = "../support/fixtures.rs"]
mod fixtures;
#[path = "../support/limit.rs"]
mod limit;

#[path = "../support/sessions.rs"]
mod sessions;
#[path = "../support/within.rs"]
mod within;

pub(crate) use command::command;
pub(crate) use eventually::eventually;
pub(crate) use example::example;
pub(crate) use fixtures::fixtures;
pub(crate) use limit::limit;
pub(crate) use sessions::sessions;
pub(crate) use within::within;
