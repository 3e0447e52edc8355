//! What this room uses of the support that the rooms share.

#[path = "../support/ask_at.rs"]
mod ask_at;
#[cfg(target_os = "linux")]
#[path = "../support/clock.rs"]
pub(crate) mod clock;
#[path = "../support/command.rs"]
mod command;
#[path = "../support/endless.rs"]
mod endless;
#[path = "../support/eventually.rs"]
mod eventually;
#[path = "../support/example.rs"]
mod example;
#[path = "../support/exchanged.rs"]
mod exchanged;
#[path = "../support/exit_of.rs"]
mod exit_of;
#[path = "../support/fixtures.rs"]
mod fixtures;
#[path = "../support/full.rs"]
mod full;
#[path = "../support/helpers_of.rs"]
mod helpers_of;
#[path = "../support/host.rs"]
mod host;
#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/listed.rs"]
mod listed;
#[path = "../support/made.rs"]
mod made;
#[path = "../support/misbehaving.rs"]
mod misbehaving;
#[path = "../support/model.rs"]
mod model;
#[cfg(target_os = "linux")]
#[path = "../support/preload.rs"]
pub(crate) mod preload;
#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/samples.rs"]
mod samples;
#[path = "../support/script.rs"]
mod script;
#[path = "../support/service_host.rs"]
mod service_host;
#[path = "../support/sessions.rs"]
mod sessions;
#[path = "../support/settle.rs"]
mod settle;
#[path = "../support/skip.rs"]
mod skip;
#[path = "../support/snapshots.rs"]
mod snapshots;
#[path = "../support/statements.rs"]
mod statements;
#[path = "../support/touch.rs"]
mod touch;
#[path = "../support/wait.rs"]
mod wait;
#[path = "../support/within.rs"]
mod within;

pub(crate) use ask_at::{ask_at, quick_status};
pub(crate) use command::command;
pub(crate) use endless::endless;
pub(crate) use eventually::eventually;
pub(crate) use example::example;
pub(crate) use exchanged::{Helper, REAL};
pub(crate) use exit_of::exit_of;
pub(crate) use fixtures::fixtures;
pub(crate) use full::is_full;
pub(crate) use helpers_of::helpers_of;
pub(crate) use host::{Host, serve};
pub(crate) use limit::limit;
pub(crate) use listed::{expected, listed};
pub(crate) use made::{Made, SCHEMA};
pub(crate) use misbehaving::misbehaving;
pub(crate) use model::{Model, key, list, text};
pub(crate) use programs::lister;
pub(crate) use samples::{samples, version};
pub(crate) use script::script;
pub(crate) use sessions::sessions;
pub(crate) use settle::settle;
pub(crate) use skip::skip;
pub(crate) use snapshots::index_of;
pub(crate) use touch::touch;
pub(crate) use wait::{PATIENCE, wait_for};
pub(crate) use within::within;
