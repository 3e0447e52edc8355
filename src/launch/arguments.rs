//! The helper's arguments, and the request for its standard input.
//!
//! The arguments of a remote helper may pass through another machine's shell, so they
//! hold only [plain characters](crate::source::is_plain_argument). Text such as ids and
//! markers goes to standard input.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::json::line;
use crate::lister::{CPU_LIMITS_SECONDS, ListRequest, LookUpRequest, ScanCache};
use crate::marker_text::MarkerText;
use crate::source::is_plain_argument;
use crate::threads::{MAX_THREADS, default_threads};
use crate::wire::{Known, LookUp, Request, limits};

/// Where the helper runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Location {
    /// As a child of this process.
    Local,
    /// Elsewhere: a child of this process, such as `ssh`, runs it and forwards its output.
    Remote,
}

impl Location {
    /// Returns how many threads a helper there uses at most by default.
    fn max_threads(self) -> u64 {
        match self {
            Self::Local => default_threads() as u64,
            Self::Remote => MAX_THREADS as u64,
        }
    }
}

/// The arguments and the standard input of one helper.
#[derive(Debug)]
pub(super) struct HelperArgs {
    pub(super) arguments: Vec<OsString>,
    /// One request line with its line feed, and the set of what the caller has if it follows;
    /// empty if the arguments say everything.
    pub(super) request: Vec<u8>,
}

impl HelperArgs {
    /// Returns the arguments of a listing.
    pub(super) fn for_listing(request: &ListRequest, location: Location) -> Self {
        let marker = request.marker.clone();
        let marker = marker.filter(|marker| *marker != MarkerText::default());
        let base = request.base();
        let have = base.and_then(Known::have);
        let mut args = Self {
            arguments: Vec::new(),
            request: match (&marker, &have) {
                (None, None) => Vec::new(),
                _ => line(&Request::List { marker, have }),
            },
        };
        if let Some(base) = base.filter(|_| have.is_some_and(|have| have.follows)) {
            args.request.extend(base.set_bytes());
        }
        args.push_database(request.db.as_deref(), request.busy_timeout(), location);
        for (is_set, flag) in [
            (request.children, "--children"),
            (request.archived, "--archived"),
            (request.marker.is_none(), "--no-marker"),
            (!args.request.is_empty(), "--request-stdin"),
        ] {
            args.arguments.extend(is_set.then(|| flag.into()));
        }
        let threads = location.max_threads();
        if location == Location::Local {
            args.push_number("--threads", threads);
        }
        match (&request.scan_cache, location) {
            (None, _) => {}
            (Some(ScanCache::At(cache)), Location::Local) => {
                args.arguments
                    .extend(["--scan-cache".into(), absolute(cache)]);
            }
            // A path on this machine means nothing on another.
            (Some(ScanCache::At(_) | ScanCache::Auto), _) => {
                args.arguments
                    .extend(["--scan-cache", "auto"].map(Into::into));
            }
        }
        if request.marker.is_some() {
            let budget = request.bounded_scan_budget(request.deadline);
            args.push_milliseconds("--scan-budget", budget);
        }
        args.push_first_prompt_limit(request.bounded_first_prompt_limit());
        args.push_process_limits(request.deadline, location, threads);
        args
    }

    /// Returns the arguments of a look-up.
    pub(super) fn for_look_up(request: &LookUpRequest, location: Location) -> Self {
        let ids = request.ids.clone();
        let (command, message) = match request.what {
            LookUp::Get => ("get", Request::Get { ids }),
            LookUp::Roots => ("roots", Request::Roots { ids }),
        };
        let mut args = Self {
            arguments: vec![command.into()],
            request: line(&message),
        };
        args.push_database(request.db.as_deref(), request.busy_timeout(), location);
        args.arguments.push("--request-stdin".into());
        if request.what == LookUp::Get {
            args.push_first_prompt_limit(request.bounded_first_prompt_limit());
        }
        args.push_process_limits(request.deadline, location, location.max_threads());
        args
    }

    /// Returns the first argument that another machine's shell could interpret.
    pub(super) fn unsafe_argument(&self) -> Option<&OsString> {
        let is_plain = |argument: &OsString| argument.to_str().is_some_and(is_plain_argument);
        self.arguments.iter().find(|argument| !is_plain(argument))
    }

    fn push_database(&mut self, db: Option<&Path>, busy_timeout: Duration, location: Location) {
        if let Some(db) = db {
            let db = match location {
                Location::Local => absolute(db),
                Location::Remote => db.into(),
            };
            self.arguments.extend(["--db".into(), db]);
        }
        self.push_milliseconds("--busy-timeout", busy_timeout);
    }

    /// Adds the options that make the helper exit with its parent, lower its priority and
    /// limit its CPU time.
    fn push_process_limits(&mut self, deadline: Duration, location: Location, threads: u64) {
        // The parent of a remote helper is not this process.
        if location == Location::Local {
            self.push_number("--parent", std::process::id().into());
        }
        // One thread cannot use more CPU time than passes until the deadline.
        let cpu_seconds = (deadline.as_secs().saturating_add(1)).saturating_mul(threads);
        self.arguments
            .extend(["--parent-pipe", "--background"].map(Into::into));
        self.push_number("--cpu-limit", cpu_seconds.min(*CPU_LIMITS_SECONDS.end()));
    }

    /// Adds the limit unless it is the default: an older helper rejects the option.
    fn push_first_prompt_limit(&mut self, limit: usize) {
        if limit != limits::FIRST_PROMPT {
            self.push_number("--first-prompt-limit", limit as u64);
        }
    }

    fn push_number(&mut self, name: &str, value: u64) {
        self.arguments
            .extend([name.into(), value.to_string().into()]);
    }

    fn push_milliseconds(&mut self, name: &str, value: Duration) {
        let value = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        self.push_number(name, value);
    }
}

/// Returns the path as an absolute one: the helper would parse a relative path that begins
/// with `-` as an option.
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
    fn remote_arguments_need_no_quotes() {
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
            HelperArgs::for_listing(&list, Location::Remote),
            HelperArgs::for_look_up(&look_up, Location::Remote),
        ] {
            assert_eq!(args.unsafe_argument(), None);
            assert!(!args.request.is_empty());
        }
        let hostile = ListRequest::of("/srv/$(reboot)");
        let args = HelperArgs::for_listing(&hostile, Location::Remote);
        assert_eq!(args.unsafe_argument(), Some(&"/srv/$(reboot)".into()));
    }

    /// Returns the argument after this option; `None` if the option is absent.
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
                let args = HelperArgs::for_listing(&request, location);
                assert_eq!(value(&args, "--scan-budget"), Some(expected), "{deadline}");
            }
        }
        let unmarked = ListRequest {
            marker: None,
            ..ListRequest::of("/x")
        };
        let args = HelperArgs::for_listing(&unmarked, Location::Local);
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
            (limits::FIRST_PROMPT_MAX, Some("4000")),
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
                    (HelperArgs::for_listing(&list, location), expected),
                    (
                        HelperArgs::for_look_up(&look_up(LookUp::Get), location),
                        expected,
                    ),
                    // A root's answer has no prompt.
                    (
                        HelperArgs::for_look_up(&look_up(LookUp::Roots), location),
                        None,
                    ),
                ] {
                    let passed = value(&args, "--first-prompt-limit");
                    assert_eq!(passed, expected, "{first_prompt_limit}: {args:?}");
                    assert_eq!(args.unsafe_argument(), None);
                }
            }
        }
    }
}
