//! `opencode-sessions help`: the help of the program or of a command, or a page of the guide.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;

use clap::{Command, Parser};

use super::streams::results;
use super::{PROGRAM, usage};
use crate::guide::{TOPICS, Topic};

/// What to print the help of.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    Command(String),
    Topic(&'static Topic),
}

impl Subject {
    /// Parses the name of a command of `program`, or of a topic.
    pub(super) fn parse(name: &str, program: &Command) -> Result<Self, String> {
        if program.find_subcommand(name).is_some() {
            return Ok(Self::Command(name.to_owned()));
        }
        Topic::named(name).map(Self::Topic).ok_or_else(|| {
            let names: Vec<_> = TOPICS.iter().map(|topic| topic.name).collect();
            format!(
                "not a command or a topic; the topics are {}",
                names.join(", ")
            )
        })
    }
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

/// Prints the help of `subject`, by default that of the program with the arguments `A`.
pub(super) fn run<A: Parser>(subject: Option<&Subject>) -> anyhow::Result<u8> {
    let command = match subject {
        Some(Subject::Topic(topic)) => {
            let mut out = results();
            out.write_all(topic.text.as_bytes())?;
            out.flush()?;
            return Ok(0);
        }
        Some(Subject::Command(name)) => Some(name.as_str()),
        None => None,
    };
    let arguments = [Some(PROGRAM), command, Some("--help")];
    let arguments = arguments.into_iter().flatten().map(OsString::from);
    match usage::parse_from::<A>(arguments.collect()) {
        Err(help) => Ok(usage::print(&help)?),
        Ok(_) => Ok(0),
    }
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
