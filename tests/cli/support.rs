//! What this room uses of the support that the rooms share.

#[path = "../support/command.rs"]
mod command;
#[path = "../support/complete.rs"]
mod complete;
#[path = "../support/eventually.rs"]
mod eventually;
#[path = "../support/example.rs"]
mod example;
#[path = "../support/exit_of.rs"]
mod exit_of;
#[path = "../support/fixtures.rs"]
mod fixtures;
#[path = "../support/full.rs"]
mod full;
#[path = "../support/host.rs"]
mod host;
#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/made.rs"]
mod made;
#[path = "../support/misbehaving.rs"]
mod misbehaving;
#[path = "../support/model.rs"]
mod model;
#[path = "../support/output.rs"]
mod output;
#[cfg(target_os = "linux")]
#[path = "../support/preload.rs"]
pub(crate) mod preload;
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
#[path = "../support/skip.rs"]
mod skip;
#[path = "../support/sshd.rs"]
pub(crate) mod sshd;
#[path = "../support/statements.rs"]
mod statements;
#[path = "../support/wait.rs"]
mod wait;
#[path = "../support/within.rs"]
mod within;

pub(crate) use command::command;
pub(crate) use complete::complete;
pub(crate) use eventually::eventually;
pub(crate) use example::example;
pub(crate) use exit_of::exit_of;
pub(crate) use fixtures::fixtures;
pub(crate) use full::is_full;
pub(crate) use host::{Host, serve};
pub(crate) use limit::limit;
pub(crate) use made::Made;
pub(crate) use misbehaving::misbehaving;
pub(crate) use model::{Model, list, text};
pub(crate) use output::{helper, lines};
pub(crate) use programs::lister;
pub(crate) use real_database::real_database;
pub(crate) use script::script;
pub(crate) use sessions::sessions;
pub(crate) use settle::settle;
pub(crate) use skip::skip;
pub(crate) use wait::{PATIENCE, wait_for};
pub(crate) use within::within;
