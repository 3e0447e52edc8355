//! What this room uses of the support that the rooms share.

#[path = "../support/command.rs"]
mod command;
#[path = "../support/differences.rs"]
mod differences;
#[path = "../support/fixtures.rs"]
mod fixtures;
#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/made.rs"]
mod made;
#[path = "../support/output.rs"]
mod output;
#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/real_database.rs"]
mod real_database;
#[path = "../support/statements.rs"]
mod statements;

pub(crate) use command::command;
pub(crate) use differences::{Database, listing_of, write_difference};
pub(crate) use fixtures::fixtures;
pub(crate) use limit::limit;
pub(crate) use made::Made;
pub(crate) use output::{helper, lines};
pub(crate) use programs::lister;
pub(crate) use real_database::real_database;
