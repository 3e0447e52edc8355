//! `opencode-sessions`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{exit, list, serve, status};
use crate::lister::restore_sigchld;

pub(super) const NAME: &str = "opencode-sessions";

/// Lists the sessions of OpenCode without getting in its way.
///
/// Exit status: 0 done, 1 failed, 2 wrong usage; for serve also 71 (the system gives no thread)
/// and 75 (another service keeps the index).
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
    /// Keep the index of sessions, under a supervisor
    Serve(serve::ServeArgs),
    /// Show how a running service is doing
    Status(status::StatusArgs),
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn run() -> ExitCode {
    // First: a supervisor may have started us with SIGCHLD ignored.
    restore_sigchld();
    match Args::try_parse() {
        Ok(Args { command }) => exit(
            NAME,
            match command {
                Command::List(args) => list::run(&args),
                Command::Serve(args) => serve::run(&args),
                Command::Status(args) => status::run(&args),
            },
        ),
        // Prints help to standard output and errors to standard error; exits with 0 or 2.
        Err(error) => error.exit(),
    }
}
