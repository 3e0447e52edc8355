//! What a helper is told: its arguments, and the one line on its standard input.
//!
//! The arguments of a helper elsewhere may pass through another machine's shell, so
//! they hold only [plain characters](crate::source::is_plain_argument); everything
//! that is text goes on standard input.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::json::line;
use crate::lister::{ListRequest, LookUpRequest, MOST_THREADS, ScanCache, default_threads};
use crate::marker_text::MarkerText;
use crate::source::is_plain_argument;
use crate::wire::{LookUp, Request, limits};

/// The largest `--cpu-limit` the helper takes: a day.
const MOST_CPU_SECONDS: u64 = 86_400;

/// Where the helper runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Location {
    /// As a child of this process.
    Local,
    /// Elsewhere, for a child of this process that passes on what it says.
    Remote,
}

/// What a helper is told.
#[derive(Debug)]
pub(super) struct HelperArgs {
    pub(super) arguments: Vec<OsString>,
    /// One line, or nothing.
    pub(super) on_stdin: Vec<u8>,
}

impl HelperArgs {
    /// To list.
    pub(super) fn to_list(request: &ListRequest, location: Location) -> Self {
        let on_stdin = match &request.marker {
            Some(marker) if *marker != MarkerText::default() => line(&Request::List {
                marker: Some(marker.clone()),
            }),
            _ => Vec::new(),
        };
        let mut args = Self {
            arguments: Vec::new(),
            on_stdin,
        };
        args.place(request.db.as_deref(), request.busy_timeout(), location);
        for (is_asked, flag) in [
            (request.children, "--children"),
            (request.archived, "--archived"),
            (request.marker.is_none(), "--no-marker"),
            (!args.on_stdin.is_empty(), "--request-stdin"),
        ] {
            args.arguments.extend(is_asked.then(|| flag.into()));
        }
        if location == Location::Local {
            args.number("--threads", default_threads() as u64);
        }
        match (&request.scan_cache, location) {
            (None, _) => {}
            (Some(ScanCache::At(cache)), Location::Local) => {
                args.arguments
                    .extend(["--scan-cache".into(), absolute(cache)]);
            }
            // A path of this machine is none of another.
            (Some(ScanCache::At(_) | ScanCache::Auto), _) => {
                args.arguments
                    .extend(["--scan-cache", "auto"].map(Into::into));
            }
        }
        if request.marker.is_some() {
            let budget = request.bounded_scan_budget(request.deadline);
            args.milliseconds("--scan-budget", budget);
        }
        args.first_prompt_limit(request.bounded_first_prompt_limit());
        args.launched(request.deadline, location);
        args
    }

    /// To look something up.
    pub(super) fn to_look_up(request: &LookUpRequest, location: Location) -> Self {
        let ids = request.ids.clone();
        let (command, on_stdin) = match request.what {
            LookUp::Get => ("get", Request::Get { ids }),
            LookUp::Roots => ("roots", Request::Roots { ids }),
        };
        let mut args = Self {
            arguments: vec![command.into()],
            on_stdin: line(&on_stdin),
        };
        args.place(request.db.as_deref(), request.busy_timeout(), location);
        args.arguments.push("--request-stdin".into());
        if request.what == LookUp::Get {
            args.first_prompt_limit(request.bounded_first_prompt_limit());
        }
        args.launched(request.deadline, location);
        args
    }

    /// The first argument that another machine's shell could take for something else.
    pub(super) fn not_plain(&self) -> Option<&OsString> {
        let is_plain = |argument: &OsString| argument.to_str().is_some_and(is_plain_argument);
        self.arguments.iter().find(|argument| !is_plain(argument))
    }

    fn place(&mut self, db: Option<&Path>, busy_timeout: Duration, location: Location) {
        if let Some(db) = db {
            let db = match location {
                Location::Local => absolute(db),
                Location::Remote => db.into(),
            };
            self.arguments.extend(["--db".into(), db]);
        }
        self.milliseconds("--busy-timeout", busy_timeout);
    }

    /// It dies with whoever launched it, and keeps to limits.
    fn launched(&mut self, deadline: Duration, location: Location) {
        let threads = match location {
            // Its parent elsewhere is not this process.
            Location::Remote => MOST_THREADS as u64,
            Location::Local => {
                self.number("--parent", std::process::id().into());
                default_threads() as u64
            }
        };
        // One thread cannot use more CPU time than the deadline has.
        let cpu_seconds = (deadline.as_secs().saturating_add(1)).saturating_mul(threads);
        self.arguments
            .extend(["--parent-pipe", "--background"].map(Into::into));
        self.number("--cpu-limit", cpu_seconds.min(MOST_CPU_SECONDS));
    }

    /// Not where it is the default: an older helper does not know the option.
    fn first_prompt_limit(&mut self, limit: usize) {
        if limit != limits::FIRST_PROMPT {
            self.number("--first-prompt-limit", limit as u64);
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.arguments
            .extend([name.into(), value.to_string().into()]);
    }

    fn milliseconds(&mut self, name: &str, value: Duration) {
        let value = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        self.number(name, value);
    }
}

/// The helper may not take a name that begins with `-` for an option.
fn absolute(path: &Path) -> OsString {
    std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionId;

    #[test]
    fn what_a_helper_elsewhere_is_told_needs_no_quotes() {
        let marker = MarkerText::new("'; rm -rf $(HOME) #").unwrap();
        let list = ListRequest {
            marker: Some(marker),
            children: true,
            archived: true,
            scan_cache: Some(ScanCache::At("/here/it's".into())),
            scan_budget: Some(Duration::from_secs(2)),
            ..ListRequest::of("/srv/opencode-dev.db")
        };
        let ids = vec![SessionId::new("$(reboot)").unwrap()];
        let look_up = LookUpRequest {
            db: None,
            ..LookUpRequest::of("", LookUp::Get, ids)
        };
        for args in [
            HelperArgs::to_list(&list, Location::Remote),
            HelperArgs::to_look_up(&look_up, Location::Remote),
        ] {
            assert_eq!(args.not_plain(), None);
            assert!(!args.on_stdin.is_empty());
        }
        let hostile = ListRequest::of("/srv/$(reboot)");
        let args = HelperArgs::to_list(&hostile, Location::Remote);
        assert_eq!(args.not_plain(), Some(&"/srv/$(reboot)".into()));
    }

    /// What follows this option; `None` where it is not among the arguments.
    fn value<'a>(args: &'a HelperArgs, option: &str) -> Option<&'a str> {
        let at = args.arguments.iter().position(|word| word == option)?;
        args.arguments.get(at + 1)?.to_str()
    }

    #[test]
    fn scan_budget_is_passed_in_whole_milliseconds() {
        for (deadline, scan_budget, expected) in [
            (15_000, Some(2_000), "2000"),
            (15_000, None, "7500"),
            (3_999, Some(2_000), "1999"),
            (150, Some(2_000), "75"),
            (1, Some(2_000), "1"),
            (86_400_000, None, "600000"),
        ] {
            let request = ListRequest {
                deadline: Duration::from_millis(deadline),
                scan_budget: scan_budget.map(Duration::from_millis),
                ..ListRequest::of("/x")
            };
            for location in [Location::Local, Location::Remote] {
                let args = HelperArgs::to_list(&request, location);
                assert_eq!(value(&args, "--scan-budget"), Some(expected), "{deadline}");
            }
        }
        let unmarked = ListRequest {
            marker: None,
            ..ListRequest::of("/x")
        };
        let args = HelperArgs::to_list(&unmarked, Location::Local);
        assert_eq!(value(&args, "--scan-budget"), None);
    }

    #[test]
    fn first_prompt_limit_is_passed_unless_it_is_the_default() {
        for (first_prompt_limit, expected) in [
            (limits::FIRST_PROMPT, None),
            (0, Some("1")),
            (1, Some("1")),
            (199, Some("199")),
            (201, Some("201")),
            (limits::FIRST_PROMPT_MOST, Some("4000")),
            (usize::MAX, Some("4000")),
        ] {
            let list = ListRequest {
                first_prompt_limit,
                ..ListRequest::of("/x")
            };
            let look_up = |what| LookUpRequest {
                first_prompt_limit,
                ..LookUpRequest::of("/x", what, Vec::new())
            };
            for location in [Location::Local, Location::Remote] {
                for (args, expected) in [
                    (HelperArgs::to_list(&list, location), expected),
                    (
                        HelperArgs::to_look_up(&look_up(LookUp::Get), location),
                        expected,
                    ),
                    // The answer has no prompt.
                    (
                        HelperArgs::to_look_up(&look_up(LookUp::Roots), location),
                        None,
                    ),
                ] {
                    let passed = value(&args, "--first-prompt-limit");
                    assert_eq!(passed, expected, "{first_prompt_limit}: {args:?}");
                    assert_eq!(args.not_plain(), None);
                }
            }
        }
    }
}
