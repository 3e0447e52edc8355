//! `opencode-sessions`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{exit, list};
use crate::lister::restore_sigchld;

pub(super) const NAME: &str = "opencode-sessions";

/// Lists the sessions of OpenCode without getting in its way.
///
/// Exit status: 0 done, 1 failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List sessions, newest activity first
    List(list::ListArgs),
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn run() -> ExitCode {
    // First: a supervisor may have started us with SIGCHLD ignored.
    restore_sigchld();
    match Args::try_parse() {
        Ok(Args {
            command: Command::List(args),
        }) => exit(NAME, list::run(&args)),
        // Prints help to standard output and errors to standard error; exits with 0 or 2.
        Err(error) => error.exit(),
    }
}
