//! `opencode-sessions help`: the help of the program or of a command, or a page of the guide.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;

use clap::error::ErrorKind;
use clap::{Command, Error};

use super::streams::results;
use super::{PROGRAM, usage};
use crate::guide::{TOPICS, Topic};
use crate::text::escaped;

#[derive(Debug, clap::Args)]
pub(super) struct HelpArgs {
    /// A command, or a topic of the guide
    #[arg(value_name = "COMMAND|TOPIC")]
    subject: Option<String>,
}

/// Returns the list of topics in the help of the program.
pub(super) fn topics() -> String {
    let longest = TOPICS.iter().map(|topic| topic.name.len()).max();
    let longest = longest.unwrap_or_default();
    let mut text = format!("Topics, for `{PROGRAM} help TOPIC`:");
    for Topic { name, summary, .. } in TOPICS {
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {name:<longest$}  {summary}");
    }
    text
}

/// Prints the help of the program `command`, of one of its commands, or a page of the guide.
/// `parse` parses arguments as the program does.
pub(super) fn run(
    args: &HelpArgs,
    mut command: Command,
    parse: impl Fn(Vec<OsString>) -> Result<(), Error>,
) -> anyhow::Result<u8> {
    let name = args.subject.as_deref();
    let is_command = name.is_none_or(|name| command.find_subcommand(name).is_some());
    if is_command {
        let arguments = [Some(PROGRAM), name, Some("--help")].into_iter().flatten();
        return match parse(arguments.map(OsString::from).collect()) {
            Err(help) => Ok(usage::print(&help)?),
            Ok(()) => Ok(0),
        };
    }
    if let Some(topic) = name.and_then(Topic::named) {
        let mut out = results();
        out.write_all(topic.text.as_bytes())?;
        out.flush()?;
        return Ok(0);
    }
    let names: Vec<_> = TOPICS.iter().map(|topic| topic.name).collect();
    let message = format!(
        "'{}' is not a command or a topic; the topics are {}",
        escaped(name.unwrap_or_default()),
        names.join(", ")
    );
    Ok(usage::print(
        &command.error(ErrorKind::InvalidValue, message),
    )?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::opencode_sessions::Args;

    /// `help NAME` prefers the command, so the topic could not be printed.
    #[test]
    fn no_topic_has_the_name_of_a_command() {
        let command = Args::command();
        for topic in TOPICS {
            assert!(
                command.find_subcommand(topic.name).is_none(),
                "{}",
                topic.name
            );
        }
    }
}
