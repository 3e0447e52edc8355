//! What this room uses of the support that the rooms share.

#[path = "../support/command.rs"]
mod command;
#[path = "../support/complete.rs"]
mod complete;
#[path = "../support/error.rs"]
mod error;
#[path = "../support/files.rs"]
pub(crate) mod files;
#[path = "../support/fixtures.rs"]
mod fixtures;
#[path = "../support/ids.rs"]
mod ids;
#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/listing.rs"]
mod listing;
#[path = "../support/made.rs"]
mod made;
#[path = "../support/marks.rs"]
mod marks;
#[path = "../support/output.rs"]
mod output;
#[cfg(target_os = "linux")]
#[path = "../support/preload.rs"]
pub(crate) mod preload;
#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/read_only.rs"]
pub(crate) mod read_only;
#[path = "../support/real_database.rs"]
mod real_database;
#[path = "../support/sessions.rs"]
mod sessions;
#[path = "../support/settle.rs"]
mod settle;
#[path = "../support/skip.rs"]
mod skip;
#[path = "../support/statements.rs"]
mod statements;
#[path = "../support/when_free.rs"]
mod when_free;
#[path = "../support/within.rs"]
mod within;

pub(crate) use command::command;
pub(crate) use complete::complete;
pub(crate) use error::error;
pub(crate) use fixtures::fixtures;
pub(crate) use ids::ids;
pub(crate) use limit::limit;
pub(crate) use listing::listing;
pub(crate) use made::{Made, SCHEMA};
pub(crate) use marks::marks;
pub(crate) use output::{helper, lines};
pub(crate) use programs::lister;
pub(crate) use real_database::real_database;
pub(crate) use sessions::sessions;
pub(crate) use settle::settle;
pub(crate) use skip::skip;
pub(crate) use when_free::output_when_free;
pub(crate) use within::within;
