//! What this room uses of the support that the rooms share.

#[path = "../support/command.rs"]
mod command;
#[path = "../support/complete.rs"]
mod complete;
#[path = "../support/endless.rs"]
mod endless;
#[path = "../support/error.rs"]
mod error;
#[path = "../support/eventually.rs"]
mod eventually;
#[path = "../support/example.rs"]
mod example;
#[path = "../support/fixtures.rs"]
mod fixtures;
#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/listing.rs"]
mod listing;
#[path = "../support/made.rs"]
mod made;
#[path = "../support/misbehaving.rs"]
mod misbehaving;
#[path = "../support/output.rs"]
mod output;
#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/real_database.rs"]
mod real_database;
#[path = "../support/script.rs"]
mod script;
#[path = "../support/sessions.rs"]
mod sessions;
#[path = "../support/settle.rs"]
mod settle;
#[path = "../support/statements.rs"]
mod statements;
#[path = "../support/within.rs"]
mod within;

pub(crate) use command::command;
pub(crate) use complete::complete;
pub(crate) use endless::{endless, with_projects};
pub(crate) use error::error;
pub(crate) use eventually::eventually;
pub(crate) use example::example;
pub(crate) use fixtures::fixtures;
pub(crate) use limit::limit;
pub(crate) use listing::listing;
pub(crate) use made::{Made, SCHEMA};
pub(crate) use misbehaving::misbehaving;
pub(crate) use output::{helper, lines};
pub(crate) use programs::lister;
pub(crate) use real_database::real_database;
pub(crate) use script::script;
pub(crate) use sessions::sessions;
pub(crate) use settle::settle;
pub(crate) use within::within;
