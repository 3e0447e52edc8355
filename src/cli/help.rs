//! `opencode-sessions help`: the help of the program or of a command, or a page of the guide.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;

use clap::CommandFactory;

use super::opencode_sessions::Args;
use super::streams::results;
use super::{PROGRAM, usage};
use crate::guide::{TOPICS, Topic};

#[derive(Debug, clap::Args)]
pub(super) struct HelpArgs {
    /// A command, or a topic of the guide
    #[arg(value_name = "COMMAND|TOPIC", value_parser = parse_subject)]
    subject: Option<Subject>,
}

#[derive(Debug, Clone)]
enum Subject {
    Command(String),
    Topic(&'static Topic),
}

fn parse_subject(name: &str) -> Result<Subject, String> {
    if Args::command().find_subcommand(name).is_some() {
        return Ok(Subject::Command(name.to_owned()));
    }
    Topic::named(name).map(Subject::Topic).ok_or_else(|| {
        let names: Vec<_> = TOPICS.iter().map(|topic| topic.name).collect();
        format!(
            "not a command or a topic; the topics are {}",
            names.join(", ")
        )
    })
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

pub(super) fn run(args: &HelpArgs) -> anyhow::Result<u8> {
    let command = match &args.subject {
        Some(Subject::Topic(topic)) => {
            let mut out = results();
            out.write_all(topic.text.as_bytes())?;
            out.flush()?;
            return Ok(0);
        }
        Some(Subject::Command(name)) => Some(name.as_str()),
        None => None,
    };
    let arguments = [Some(PROGRAM), command, Some("--help")]
        .into_iter()
        .flatten();
    match usage::parse_from::<Args>(arguments.map(OsString::from).collect()) {
        Err(help) => Ok(usage::print(&help)?),
        Ok(_) => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
