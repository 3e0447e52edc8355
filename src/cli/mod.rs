//! The arguments of both programs, and what their `main`s run.
//!
//! Standard output is for results, standard error for messages (`streams`). Exit statuses,
//! of both programs: 0 done, 1 failed, 2 wrong usage; of `opencode-sessions` also those
//! that its help names. A closed pipe is no error: whoever closed it has seen enough.

mod allocator;
mod doctor;
mod help;
mod helper;
mod host;
mod list;
mod log;
mod look_up;
mod relay;
mod reload;
mod serve;
mod sessions;
mod sources;
mod status;
mod stop;
mod streams;
mod usage;
mod waiting;
mod wanted;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::launch::ProcessLister;

use crate::lister::Failure;
use crate::marker_text::MarkerText;
use crate::session::SessionId;
use crate::text::{self, escaped, name_line};

pub use helper::run as opencode_lister;
pub use sessions::run as opencode_sessions;

/// The exit status of a failure.
const FAILED: u8 = 1;

/// The exit status of wrong usage.
const USAGE: u8 = 2;

/// Which marker to look for.
#[derive(Debug, Clone, clap::Args)]
struct MarkerArgs {
    /// Text that marks a session as another tool's subagent: 16 to 200 characters of printable ASCII
    #[arg(long, value_name = "TEXT", default_value = MarkerText::DEFAULT, hide_default_value = true)]
    marker: MarkerText,

    /// Do not look for the marker
    #[arg(long, conflicts_with = "marker")]
    no_marker: bool,
}

impl MarkerArgs {
    fn marker(&self) -> Option<MarkerText> {
        (!self.no_marker).then(|| self.marker.clone())
    }
}

/// How long a listing may take.
#[derive(Debug, Clone, clap::Args)]
struct DeadlineArgs {
    /// How long a listing may take, such as 500ms, 15s or 2m
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    deadline: Duration,
}

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn duration(text: &str) -> Result<Duration, String> {
    let duration = text::parse_duration(text).ok_or("not a duration such as 500ms, 15s or 2m")?;
    Some(duration)
        .filter(|duration| (SHORTEST..=LONGEST).contains(duration))
        .ok_or_else(|| "a deadline is between 10ms and 24h".to_owned())
}

/// Ids that somebody wrote, or what is wrong with one.
fn session_ids(ids: &[String]) -> Result<Vec<SessionId>, String> {
    let id = |id: &String| {
        SessionId::new(id.as_str()).map_err(|why| format!("'{}' is no id: {why}", escaped(id)))
    };
    ids.iter().map(id).collect()
}

/// The lister of the helper at `path`, or beside this program.
fn process_lister(path: Option<&Path>) -> Result<ProcessLister, Failure> {
    path.map_or_else(ProcessLister::beside_this_program, |path| {
        Ok(ProcessLister::at(path))
    })
}

/// Writing to somebody who has left is done.
fn ignore_broken_pipe(result: io::Result<u8>) -> io::Result<u8> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        result => result,
    }
}

/// The exit code, after saying what went wrong.
fn exit(program: &str, result: io::Result<u8>) -> ExitCode {
    match ignore_broken_pipe(result) {
        Ok(status) => status.into(),
        Err(error) => {
            report_error(program, &reason(&error));
            FAILED.into()
        }
    }
}

/// What to say of an error that ends a program.
fn reason(error: &io::Error) -> String {
    match error.get_ref() {
        // It says what it is about.
        Some(error) => error.to_string(),
        None => format!("cannot go on: {error}"),
    }
}

/// Adds to an error of the system what was to be done.
fn cannot(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

/// One sentence to standard error, in one line and one write. Without one, nobody listens.
fn report_error(program: &str, sentence: &str) {
    let line = format!("{program}: {}\n", name_line(sentence));
    let _ = streams::Stderr.write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io;

    use clap::CommandFactory;

    #[test]
    fn the_arguments_of_both_programs_are_well_formed() {
        super::helper::Args::command().debug_assert();
        super::sessions::Args::command().debug_assert();
    }
    #[test]
    fn only_errors_of_the_output_are_said_to_be_of_the_output() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let no_thread = io::Error::from(io::ErrorKind::WouldBlock);
        for (error, expected) in [
            (
                super::cannot("start a thread")(no_thread),
                "cannot start a thread: operation would block",
            ),
            (full, "cannot go on: no storage space"),
        ] {
            assert_eq!(super::reason(&error), expected);
        }
    }
}
