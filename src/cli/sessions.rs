//! `opencode-sessions`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{doctor, exit, help, host, list, look_up, serve, status, stop, usage};
use crate::launch::restore_sigchld;
use crate::wire::LookUp;

pub(super) const NAME: &str = "opencode-sessions";

/// Lists the sessions of OpenCode without getting in its way.
///
/// Exit status: 0 done, 1 failed, 2 wrong usage; for get and roots also 4 (there is no such
/// session, or it has no root); for serve also 70 (it has a fault), 71 (the system gives no
/// thread), 75 (another service keeps the index) and 78 (the configuration is wrong).
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    version,
    args_override_self = true,
    disable_help_subcommand = true,
    after_help = help::topics()
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List sessions, last updated first
    List(list::ListArgs),
    /// Look up sessions by their ids, any of them: one JSON object each
    Get(look_up::LookUpArgs),
    /// Find the root sessions of sessions: one JSON object each
    Roots(look_up::LookUpArgs),
    /// Keep the index of sessions, under a supervisor
    Serve(serve::ServeArgs),
    /// Show how a running service is doing
    Status(status::StatusArgs),
    /// End a running service, for all programs that use it
    Stop(stop::StopArgs),
    /// Look at every source, and say what is wrong
    Doctor(doctor::DoctorArgs),
    /// Print this help, that of a command, or a page of the guide
    Help(help::HelpArgs),
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn run() -> ExitCode {
    // First: a supervisor may have started us with signals ignored or blocked.
    restore_sigchld();
    host::unblock_signals();
    match usage::parse() {
        Ok(Args { command }) => exit(
            NAME,
            match command {
                Command::List(args) => list::run(&args),
                Command::Get(args) => look_up::run(LookUp::Get, &args),
                Command::Roots(args) => look_up::run(LookUp::Roots, &args),
                Command::Serve(args) => serve::run(&args),
                Command::Status(args) => status::run(&args),
                Command::Stop(args) => stop::run(&args),
                Command::Doctor(args) => doctor::run(&args),
                Command::Help(args) => help::run(&args),
            },
        ),
        Err(error) => exit(NAME, usage::say(&error)),
    }
}
