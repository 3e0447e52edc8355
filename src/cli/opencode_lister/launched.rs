//! The arguments with which a program launches the helper for a listing.
//!
//! clap builds the description of all commands and options before it reads the first
//! argument. A launched helper uses few of them, always spelt in the same way, and its
//! caller waits. So these are parsed here, and everything else, each error above all, is
//! left to clap. The result is the same.

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;

use super::{
    Args, DatabaseArgs, LauncherArgs, ListingArgs, MarkerArgs, PromptArgs, parse_prompt_limit,
    parse_threads,
};
use crate::lister::{BUSY_TIMEOUTS_MS, CPU_LIMITS_SECONDS, SCAN_BUDGETS_MS, ScanCache};
use crate::marker_text::MarkerText;
use crate::wire::limits;

impl Args {
    /// Returns the arguments of a listing without options.
    fn listing() -> Self {
        Self {
            command: None,
            listing: ListingArgs {
                database: DatabaseArgs {
                    db: None,
                    memory_limit_mib: super::MEMORY_LIMIT_MIB,
                },
                marker: MarkerArgs {
                    marker: MarkerText::default(),
                    no_marker: false,
                },
                children: false,
                archived: false,
                busy_timeout_ms: super::BUSY_TIMEOUT_MS,
                scan_cache: None,
                scan_budget_ms: None,
                prompts: PromptArgs {
                    limit: limits::FIRST_PROMPT,
                },
                threads: None,
            },
            pretty: false,
            launcher: LauncherArgs {
                request_stdin: false,
                parent_pipe: false,
                parent: None,
                background: false,
                cpu_limit_seconds: None,
            },
        }
    }
}

/// Parses the arguments after the name of the program. Returns `None` if clap must parse
/// them.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<Args> {
    let mut arguments = arguments.into_iter();
    let mut seen = Vec::new();
    let mut args = Args::listing();
    let (listing, launcher) = (&mut args.listing, &mut args.launcher);
    while let Some(argument) = arguments.next() {
        let name = argument.to_str()?.to_owned();
        if seen.contains(&name) {
            return None;
        }
        let flag = match name.as_str() {
            "--children" => Some(&mut listing.children),
            "--archived" => Some(&mut listing.archived),
            "--no-marker" => Some(&mut listing.marker.no_marker),
            "--request-stdin" => Some(&mut launcher.request_stdin),
            "--parent-pipe" => Some(&mut launcher.parent_pipe),
            "--background" => Some(&mut launcher.background),
            _ => None,
        };
        if let Some(flag) = flag {
            *flag = true;
            seen.push(name);
            continue;
        }
        let value = arguments.next().filter(is_value)?;
        match name.as_str() {
            "--db" => listing.database.db = Some(value.into()),
            "--scan-cache" => listing.scan_cache = Some(ScanCache::from(value)),
            "--busy-timeout" => listing.busy_timeout_ms = number(&value, &BUSY_TIMEOUTS_MS)?,
            "--scan-budget" => listing.scan_budget_ms = Some(number(&value, &SCAN_BUDGETS_MS)?),
            "--threads" => listing.threads = Some(parse_threads(digits(&value)?).ok()?),
            "--first-prompt-limit" => {
                listing.prompts.limit = parse_prompt_limit(digits(&value)?).ok()?;
            }
            "--parent" => launcher.parent = Some(digits(&value)?.parse().ok()?),
            "--cpu-limit" => {
                launcher.cpu_limit_seconds = Some(number(&value, &CPU_LIMITS_SECONDS)?);
            }
            _ => return None,
        }
        seen.push(name);
    }
    Some(args)
}

/// Returns true if clap takes this argument for the value of the option before it.
fn is_value(argument: &OsString) -> bool {
    let bytes = argument.as_encoded_bytes();
    !bytes.is_empty() && bytes[0] != b'-'
}

fn digits(value: &OsStr) -> Option<&str> {
    let text = value.to_str()?;
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(text)
}

fn number(value: &OsStr, range: &RangeInclusive<u64>) -> Option<u64> {
    let number = digits(value)?.parse().ok()?;
    range.contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    /// What clap says of these arguments, if they are valid.
    fn by_clap(arguments: &[OsString]) -> Option<String> {
        let all = std::iter::once("opencode-lister".into()).chain(arguments.iter().cloned());
        Args::try_parse_from(all)
            .ok()
            .map(|args| format!("{args:?}"))
    }

    fn by_hand(arguments: &[OsString]) -> Option<String> {
        parse(arguments.iter().cloned()).map(|args| format!("{args:?}"))
    }

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(Into::into).collect()
    }

    /// What `launch/arguments.rs` says to a helper on this machine.
    #[test]
    fn launched_listing_needs_no_clap() {
        for arguments in [
            words(&[]),
            words(&[
                "--db",
                "/home/x y/opencode.db",
                "--busy-timeout",
                "5000",
                "--threads",
                "2",
                "--scan-cache",
                "/home/x/.cache/scan",
                "--scan-budget",
                "2000",
                "--parent",
                "4711",
                "--parent-pipe",
                "--background",
                "--cpu-limit",
                "32",
            ]),
            words(&[
                "--busy-timeout",
                "0",
                "--children",
                "--archived",
                "--no-marker",
                "--request-stdin",
                "--scan-cache",
                "auto",
                "--first-prompt-limit",
                "4000",
            ]),
        ] {
            let by_hand = by_hand(&arguments);
            assert!(by_hand.is_some(), "{arguments:?}");
            assert_eq!(by_hand, by_clap(&arguments), "{arguments:?}");
        }
    }

    /// What the helper knows by other names, or not at all.
    #[test]
    fn everything_else_is_left_to_clap() {
        for arguments in [
            words(&["get"]),
            words(&["explain", "--db", "/x"]),
            words(&["--help"]),
            words(&["--version"]),
            words(&["--pretty"]),
            words(&["--db=/x"]),
            words(&["--db"]),
            words(&["--db", ""]),
            words(&["--db", "-x"]),
            words(&["--db", "/x", "--db", "/y"]),
            words(&["--marker", "a marker for a test"]),
            words(&["--memory-limit", "64"]),
            words(&["--busy-timeout", "600001"]),
            words(&["--busy-timeout", "+5"]),
            words(&["--busy-timeout", "-5"]),
            words(&["--scan-budget", "0"]),
            words(&["--threads", "65"]),
            words(&["--threads", "0"]),
            words(&["--parent", "4294967296"]),
            words(&["--cpu-limit", "99999999999999999999"]),
            words(&["--first-prompt-limit", "4001"]),
            words(&["--child"]),
            words(&["--", "--db", "/x"]),
            words(&["x"]),
        ] {
            assert_eq!(by_hand(&arguments), None, "{arguments:?}");
        }
    }

    const WORDS: [&str; 34] = [
        "--db",
        "--scan-cache",
        "--busy-timeout",
        "--scan-budget",
        "--threads",
        "--first-prompt-limit",
        "--parent",
        "--cpu-limit",
        "--children",
        "--archived",
        "--no-marker",
        "--request-stdin",
        "--parent-pipe",
        "--background",
        "--pretty",
        "--marker",
        "--",
        "-",
        "",
        "0",
        "1",
        "2",
        "64",
        "65",
        "007",
        "+1",
        "600000",
        "4294967295",
        "4294967296",
        "auto",
        "/x y",
        "get",
        "--db=/x",
        "a marker for a test",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn result_is_that_of_clap(chosen in prop::collection::vec(0..WORDS.len(), 0..7)) {
            let arguments: Vec<_> = chosen.iter().map(|at| OsString::from(WORDS[*at])).collect();
            if let Some(by_hand) = by_hand(&arguments) {
                prop_assert_eq!(Some(by_hand), by_clap(&arguments), "{:?}", arguments);
            }
        }
    }
}
