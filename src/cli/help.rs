//! `opencode-sessions help`: of the program, of a command, or a page of the guide.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::CommandFactory;

use super::sessions::{Args, NAME};
use super::streams::results;
use super::usage;
use crate::guide::{TOPICS, Topic};

#[derive(Debug, clap::Args)]
pub(super) struct HelpArgs {
    /// A command, or a topic of the guide
    #[arg(value_name = "COMMAND|TOPIC", value_parser = about)]
    about: Option<About>,
}

#[derive(Debug, Clone)]
enum About {
    Command(String),
    Topic(&'static Topic),
}

fn about(name: &str) -> Result<About, String> {
    if Args::command().find_subcommand(name).is_some() {
        return Ok(About::Command(name.to_owned()));
    }
    Topic::named(name).map(About::Topic).ok_or_else(|| {
        let names: Vec<_> = TOPICS.iter().map(|topic| topic.name).collect();
        format!(
            "not a command or a topic; the topics are {}",
            names.join(", ")
        )
    })
}

/// The topics, as the help of the program lists them.
pub(super) fn topics() -> String {
    let widest = TOPICS.iter().map(|topic| topic.name.len()).max();
    let widest = widest.unwrap_or_default();
    let mut text = format!("Topics, for `{NAME} help TOPIC`:");
    for Topic { name, summary, .. } in TOPICS {
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {name:<widest$}  {summary}");
    }
    text
}

pub(super) fn run(args: &HelpArgs) -> io::Result<u8> {
    let command = match &args.about {
        Some(About::Topic(topic)) => {
            let mut out = results();
            out.write_all(topic.text.as_bytes())?;
            out.flush()?;
            return Ok(0);
        }
        Some(About::Command(name)) => Some(name.as_str()),
        None => None,
    };
    let arguments = [Some(NAME), command, Some("--help")].into_iter().flatten();
    match usage::parse_from::<Args>(arguments.map(OsString::from).collect()) {
        Err(help) => usage::say(&help),
        Ok(_) => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the page could not be shown.
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
