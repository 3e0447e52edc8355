//! What this room uses of the support that the rooms share.

#[path = "../support/command.rs"]
mod command;
#[path = "../support/complete.rs"]
mod complete;
#[path = "../support/fixtures.rs"]
mod fixtures;
#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/listing.rs"]
mod listing;
#[path = "../support/output.rs"]
mod output;
#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/real_database.rs"]
mod real_database;
#[path = "../support/samples.rs"]
mod samples;

pub(crate) use command::command;
pub(crate) use complete::complete;
pub(crate) use fixtures::fixtures;
pub(crate) use limit::limit;
pub(crate) use listing::listing;
pub(crate) use output::{helper, lines};
pub(crate) use programs::lister;
pub(crate) use real_database::real_database;
pub(crate) use samples::{WRITE, directory, sample, samples, version};
