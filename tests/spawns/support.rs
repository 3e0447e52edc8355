//! What this room uses of the support that the rooms share.

#[path = "../support/command.rs"]
mod command;
#[path = "../support/descriptors.rs"]
mod descriptors;
#[path = "../support/example.rs"]
mod example;
#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/made.rs"]
mod made;
#[path = "../support/misbehaving.rs"]
mod misbehaving;
#[path = "../support/programs.rs"]
mod programs;

pub(crate) use command::command;
pub(crate) use descriptors::descriptors;
pub(crate) use example::example;
pub(crate) use limit::limit;
pub(crate) use made::Made;
pub(crate) use misbehaving::misbehaving;
pub(crate) use programs::lister;
