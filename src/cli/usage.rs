//! Parses the arguments of a process, and prints help, versions and errors of usage.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use anstream::{AutoStream, ColorChoice};
use clap::{Error, Parser};

use super::streams::{Stderr, Stdout};
use crate::output::Terminal;
use crate::text::{escaped, escaped_bytes, is_unsafe_on_terminal};

/// Parses the arguments of this process.
///
/// # Errors
///
/// Returns what to print ([`print()`]) instead: help, a version, or an error of usage.
pub(super) fn parse<A: Parser>() -> Result<A, Error> {
    parse_from(std::env::args_os().collect())
}

/// Parses `arguments`, which begin with the name of the program; otherwise as [`parse`].
pub(super) fn parse_from<A: Parser>(arguments: Vec<OsString>) -> Result<A, Error> {
    let arguments = match A::command().is_disable_help_subcommand_set() {
        true => arguments,
        false => rewrite_help_of_help(arguments),
    };
    try_parse::<A>(&arguments).map_err(|error| terminal_safe::<A>(error, &arguments))
}

/// The maximum width of help: longer lines are hard to read.
const MAX_HELP_COLUMNS: u16 = 100;

fn try_parse<A: Parser>(arguments: &[OsString]) -> Result<A, Error> {
    let mut command = A::command();
    // clap ignores the width of a terminal whose height is unknown.
    if let Some(width) = Terminal::of_stdout().width {
        command = command.term_width(width.min(MAX_HELP_COLUMNS).into());
    }
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    A::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Rewrites `help --help` to `help help`: clap's own `help` command has no option `--help`.
fn rewrite_help_of_help(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_help = |argument: &OsString| argument == "--help" || argument == "-h";
    if arguments.get(1).is_some_and(|first| first == "help") && arguments[2..].iter().any(is_help) {
        arguments.truncate(2);
        arguments.push("help".into());
    }
    arguments
}

/// Returns the error without control sequences: its message repeats arguments, which can
/// contain them.
fn terminal_safe<A: Parser>(error: Error, arguments: &[OsString]) -> Error {
    let is_plain = |argument: &OsString| {
        let text = argument.to_str();
        text.is_some_and(|text| !text.chars().any(is_unsafe_on_terminal))
    };
    if error.exit_code() == 0 || arguments.iter().all(is_plain) {
        return error;
    }
    let escaped_arguments = arguments.iter().map(|argument| match is_plain(argument) {
        true => argument.clone(),
        false => escaped_argument(argument),
    });
    let escaped_arguments: Vec<_> = escaped_arguments.collect();
    // The same error, with escaped arguments in its message.
    match try_parse::<A>(&escaped_arguments) {
        Err(same) if same.kind() == error.kind() => same,
        _ => {
            let text = error.render().to_string();
            let lines: Vec<_> = text.lines().map(escaped).collect();
            let text = lines.join("\n");
            Error::raw(error.kind(), text.strip_prefix("error: ").unwrap_or(&text))
        }
    }
}

fn escaped_argument(argument: &OsStr) -> OsString {
    escaped_bytes(argument.as_bytes()).into_owned().into()
}

/// Prints help and versions to standard output, errors to standard error. Returns the exit
/// status.
///
/// # Errors
///
/// Returns an error if standard output fails.
pub(super) fn print(error: &Error) -> io::Result<u8> {
    let choice = match error.use_stderr() {
        true => AutoStream::choice(&io::stderr()),
        false => AutoStream::choice(&io::stdout()),
    };
    let text = error.render();
    let text = match choice {
        ColorChoice::Never => text.to_string(),
        _ => text.ansi().to_string(),
    };
    match error.use_stderr() {
        // If standard error fails, no other stream is left.
        true => drop(Stderr.write_all(text.as_bytes())),
        false => Stdout.write_all(text.as_bytes())?,
    }
    Ok(u8::try_from(error.exit_code()).unwrap_or(super::USAGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{opencode_lister, opencode_sessions};

    fn printed<A: Parser + std::fmt::Debug>(arguments: &[&[u8]]) -> (i32, String) {
        let arguments = arguments
            .iter()
            .map(|bytes| OsStr::from_bytes(bytes).to_owned());
        let error = parse_from::<A>(arguments.collect()).unwrap_err();
        (error.exit_code(), error.render().ansi().to_string())
    }

    #[test]
    fn message_repeats_no_control_sequence() {
        let hostile: [&[u8]; 5] = [
            b"\x1b]0;x\x07",
            b"\xc2\x9b31m",
            b"a\r\nb",
            b"\xff\x1b",
            "\u{202e}x".as_bytes(),
        ];
        for argument in hostile {
            let option = [b"--", argument].concat();
            for arguments in [
                &[b"p", &b"list"[..], b"--format", argument][..],
                &[b"p", b"list", b"--deadline", argument],
                &[b"p", b"list", b"--limit", argument],
                &[b"p", b"list", b"--marker", argument],
                &[b"p", b"list", argument],
                &[b"p", b"list", &option],
                &[b"p", argument],
                &[b"p", b"help", argument],
            ] {
                for (status, text) in [printed::<opencode_sessions::Args>(arguments), {
                    let mut arguments = arguments.to_vec();
                    if arguments[1] == b"list" {
                        arguments.remove(1);
                    }
                    printed::<opencode_lister::Args>(&arguments)
                }] {
                    assert_eq!(status, 2, "{text:?}");
                    // clap itself writes no control sequences but colours.
                    let plain = anstream::adapter::strip_str(&text).to_string();
                    let bad = |c: char| c != '\n' && is_unsafe_on_terminal(c);
                    assert!(!plain.contains(bad), "{text:?}");
                    assert!(!text.contains("\u{1b}]"), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn message_repeats_control_sequences_escaped() {
        for (argument, expected) in [
            (&b"\x1b]0;x\x07"[..], r"'\u{1b}]0;x\u{7}'"),
            (b"a\nb", r"'a\nb'"),
            (b"\xff\x1b", r"'\xff\u{1b}'"),
            (b"plain\\n", r"'plain\n'"),
        ] {
            let (_, text) =
                printed::<opencode_sessions::Args>(&[b"p", b"list", b"--format", argument]);
            let plain = anstream::adapter::strip_str(&text).to_string();
            assert!(plain.contains(expected), "{plain}");
        }
    }

    #[test]
    fn help_of_help_is_printed() {
        for arguments in [&["p", "help", "--help"][..], &["p", "help", "-h"]] {
            let arguments: Vec<&[u8]> = arguments.iter().map(|text| text.as_bytes()).collect();
            for (status, text) in [
                printed::<opencode_sessions::Args>(&arguments),
                printed::<opencode_lister::Args>(&arguments),
            ] {
                assert_eq!(status, 0, "{text}");
                assert!(text.contains("help"), "{text}");
            }
        }
    }

    fn assert_parses<A: Parser>(arguments: &str) {
        let all = std::iter::once("p").chain(arguments.split(' '));
        parse_from::<A>(all.map(OsString::from).collect()).unwrap();
    }

    #[test]
    fn repeated_option_is_accepted() {
        for arguments in [
            "list --limit 1 --limit 2 --format json --format ids --sort title --sort created",
            "list --archived --archived --children --children --all-marked --all-marked",
            "list --deadline 1s --deadline 2s --lister /a --lister /b --project a --project b",
            "list --no-service --no-service --config a --config b --no-marker --no-marker",
            "list --db a --db b --marker 0123456789abcdef --marker fedcba9876543210",
            "get --deadline 1s --deadline 2s --lister a --lister b --config a --config b x",
            "roots --deadline 1s --deadline 2s --lister a --lister b --db a --db b x",
            "serve --stdio --stdio --state-dir a --state-dir b --log-format json --log-format text",
            "serve --debug --debug --marker 0123456789abcdef --marker fedcba9876543210",
            "status --json --json --state-dir a --state-dir b",
            "doctor --lister a --lister b --deadline 1s --deadline 2s --config a --config b",
        ] {
            assert_parses::<opencode_sessions::Args>(arguments);
        }
        for arguments in [
            "--db a --db b --pretty --pretty --children --children --archived --archived",
            "--memory-limit 9 --memory-limit 10 --busy-timeout 1 --busy-timeout 2 --threads 1 --threads 2",
            "--scan-cache a --scan-cache b --scan-budget 1 --scan-budget 2",
            "explain --db a --db b --no-marker --no-marker",
            "get --db a --db b --first-prompt-limit 1 --first-prompt-limit 2 x",
        ] {
            assert_parses::<opencode_lister::Args>(arguments);
        }
    }
}
