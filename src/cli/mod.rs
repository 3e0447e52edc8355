//! The command lines of both programs: their arguments, and one file for each command.
//!
//! Results go to standard output, messages to standard error (`streams`). Both programs exit
//! with 0 (done), 1 (failed) or 2 (wrong usage); `opencode-sessions` also with the statuses
//! that its help lists. A program whose reader closes standard output early exits with 0.

mod allocator;
mod doctor;
mod help;
mod list;
mod look_up;
mod opencode_lister;
mod opencode_sessions;
mod project_filter;
mod serve;
mod sources;
mod status;
mod stop;
mod streams;
mod usage;
mod wait_notice;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::dirs;
use crate::launch::ProcessLister;
use crate::lister::Failure;
use crate::marker_text::MarkerText;
use crate::service::socket;
use crate::session::SessionId;
use crate::text::{self, escaped, name_line};

pub use opencode_lister::run as opencode_lister;
pub use opencode_sessions::run as opencode_sessions;

/// The name of the main program.
const PROGRAM: &str = "opencode-sessions";

/// The exit status of a failure.
const FAILED: u8 = 1;

/// The exit status of wrong usage.
const USAGE: u8 = 2;

/// The marker to search for.
#[derive(Debug, Clone, clap::Args)]
struct MarkerArgs {
    /// Treat sessions that contain TEXT as subagents: 16 to 200 characters of printable ASCII [default: the text that marks Freshell subagents]
    #[arg(long, value_name = "TEXT", default_value = MarkerText::DEFAULT, hide_default_value = true)]
    marker: MarkerText,

    /// Do not search for subagents
    #[arg(long, conflicts_with = "marker")]
    no_marker: bool,
}

impl MarkerArgs {
    fn marker(&self) -> Option<MarkerText> {
        (!self.no_marker).then(|| self.marker.clone())
    }
}

const MIN_DEADLINE: Duration = Duration::from_millis(10);
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Parses the value of a `--deadline` option.
fn parse_deadline(text: &str) -> Result<Duration, String> {
    let deadline =
        text::parse_duration(text).ok_or("expected a duration such as 500ms, 15s or 2m")?;
    Some(deadline)
        .filter(|deadline| (MIN_DEADLINE..=MAX_DEADLINE).contains(deadline))
        .ok_or_else(|| "expected a duration from 10ms to 24h".to_owned())
}

/// Parses the ids of a command line.
///
/// # Errors
///
/// Returns a message about the first id that is not valid.
fn parse_session_ids(ids: &[String]) -> Result<Vec<SessionId>, String> {
    let parse = |id: &String| {
        SessionId::new(id.as_str())
            .map_err(|error| format!("invalid session id '{}': {error}", escaped(id)))
    };
    ids.iter().map(parse).collect()
}

/// Returns a lister that launches the helper at `path`, by default the one beside this
/// program.
fn process_lister(path: Option<&Path>) -> Result<ProcessLister, Failure> {
    path.map_or_else(ProcessLister::beside_this_program, |path| {
        Ok(ProcessLister::at(path))
    })
}

/// Returns the paths at which a running service can have its socket: in the state directory
/// if one is named, otherwise at the default paths.
fn service_sockets(state_dir: Option<&Path>) -> Vec<PathBuf> {
    match state_dir {
        Some(named) => vec![named.join("socket")],
        None => socket::paths(dirs::state_dir().as_deref()),
    }
}

/// Returns the exit code of a program, and reports its error. A closed output is not an error:
/// its reader needs no more.
fn exit_code(program: &str, result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(status) => status.into(),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report_error(program, &format!("{error:#}"));
            FAILED.into()
        }
    }
}

/// Returns true if the output of the program was closed. An error with a context is not about
/// the output: a socket, for example, can be a broken pipe too.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let outermost = error.chain().next();
    let error = outermost.and_then(|error| error.downcast_ref::<io::Error>());
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes a message to standard error, as one line in one write.
fn report_error(program: &str, message: &str) {
    let line = format!("{program}: {}\n", name_line(message));
    // If standard error fails, no other stream is left to report that on.
    let _ = streams::Stderr.write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_of_both_programs_are_consistent() {
        super::opencode_lister::Args::command().debug_assert();
        super::opencode_sessions::Args::command().debug_assert();
    }

    #[test]
    fn deadline_out_of_range_is_refused() {
        for (text, expected) in [
            ("10ms", Ok(MIN_DEADLINE)),
            ("24h", Ok(MAX_DEADLINE)),
            ("9ms", Err("expected a duration from 10ms to 24h")),
            ("25h", Err("expected a duration from 10ms to 24h")),
            ("soon", Err("expected a duration such as 500ms, 15s or 2m")),
        ] {
            assert_eq!(parse_deadline(text), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn broken_pipe_counts_without_a_context_only() {
        for (kind, expected) in [
            (io::ErrorKind::BrokenPipe, true),
            (io::ErrorKind::StorageFull, false),
        ] {
            let error = anyhow::Error::from(io::Error::from(kind));
            assert_eq!(is_broken_pipe(&error), expected);
            assert!(!is_broken_pipe(&error.context("cannot do it")));
        }
    }
}
