//! The program `opencode-sessions`.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use super::{PROGRAM, doctor, exit_code, help, list, look_up, serve, status, stop, usage};
use crate::launch::restore_sigchld;
use crate::wire::LookUp;

/// Lists the sessions of OpenCode without blocking OpenCode.
///
/// Exit status: 0 done, 1 failed, 2 wrong usage; for get and roots also 4 (no such session,
/// or it has no root); for serve also 70 (internal error), 71 (the system refused a thread),
/// 75 (another service keeps the index) and 78 (invalid configuration, or nothing to list).
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
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
    /// Print sessions by their ids, also archived and child sessions: one JSON object each
    Get(look_up::LookUpArgs),
    /// Print the root sessions of sessions: one JSON object each
    Roots(look_up::LookUpArgs),
    /// Keep an index of sessions for programs that show them
    Serve(serve::ServeArgs),
    /// Show the state of a running service
    Status(status::StatusArgs),
    /// Stop a running service, for all programs that use it
    Stop(stop::StopArgs),
    /// Check every source, and print what is wrong and what to do
    Doctor(doctor::DoctorArgs),
    /// Print this help, the help of a command, or a page of the guide
    Help {
        /// A command, or a topic of the guide
        #[arg(value_name = "COMMAND|TOPIC", value_parser = parse_help_subject)]
        subject: Option<help::Subject>,
    },
}

fn parse_help_subject(name: &str) -> Result<help::Subject, String> {
    help::Subject::parse(name, &Args::command())
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn run() -> ExitCode {
    // First of all: the parent may have ignored or blocked signals, and that is inherited.
    restore_sigchld();
    serve::unblock_signals();
    let result = match usage::parse() {
        Ok(Args { command }) => match command {
            Command::List(args) => list::run(&args),
            Command::Get(args) => look_up::run(LookUp::Get, &args),
            Command::Roots(args) => look_up::run(LookUp::Roots, &args),
            Command::Serve(args) => serve::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Stop(args) => stop::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Help { subject } => help::run::<Args>(subject.as_ref()),
        },
        Err(error) => usage::print(&error).map_err(Into::into),
    };
    exit_code(PROGRAM, result)
}
