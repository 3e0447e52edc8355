//! What a helper is told: its arguments, and the one line on its standard input.
//!
//! The arguments of a helper elsewhere may pass through another machine's shell, so
//! they hold only [plain characters](crate::source::is_plain_argument); everything
//! that is text goes on standard input.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::{ListRequest, LookUpRequest, MOST_THREADS, ScanCache, default_threads};
use crate::source::is_plain_argument;
use crate::wire::{LookUp, MarkerText, Request, line};

/// The largest `--cpu-limit` the helper takes: a day.
const MOST_CPU_SECONDS: u64 = 86_400;

/// Where the helper runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runs {
    /// As a child of this process.
    Here,
    /// Elsewhere, for a child of this process that passes on what it says.
    Elsewhere,
}

/// What a helper is told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) arguments: Vec<OsString>,
    /// One line, or nothing.
    pub(super) on_stdin: Vec<u8>,
}

impl Told {
    /// To list.
    pub(super) fn to_list(request: &ListRequest, runs: Runs) -> Self {
        let on_stdin = match &request.marker {
            Some(marker) if *marker != MarkerText::default() => line(&Request::List {
                marker: Some(marker.clone()),
            }),
            _ => Vec::new(),
        };
        let mut told = Self {
            arguments: Vec::new(),
            on_stdin,
        };
        told.place(request.db.as_deref(), request.busy_timeout(), runs);
        for (is_asked, flag) in [
            (request.children, "--children"),
            (request.archived, "--archived"),
            (request.marker.is_none(), "--no-marker"),
            (!told.on_stdin.is_empty(), "--request-stdin"),
        ] {
            told.arguments.extend(is_asked.then(|| flag.into()));
        }
        if runs == Runs::Here {
            told.number("--threads", default_threads() as u64);
        }
        match (&request.scan_cache, runs) {
            (None, _) => {}
            (Some(ScanCache::At(cache)), Runs::Here) => {
                told.arguments
                    .extend(["--scan-cache".into(), absolute(cache)]);
            }
            // A path of this machine is none of another.
            (Some(ScanCache::At(_) | ScanCache::Auto), _) => {
                told.arguments
                    .extend(["--scan-cache", "auto"].map(Into::into));
            }
        }
        if let Some(budget) = &request.scan_budget {
            told.milliseconds("--scan-budget", *budget);
        }
        told.launched(request.deadline, runs);
        told
    }

    /// To look something up.
    pub(super) fn to_look_up(request: &LookUpRequest, runs: Runs) -> Self {
        let ids = request.ids.clone();
        let (command, on_stdin) = match request.what {
            LookUp::Get => ("get", Request::Get { ids }),
            LookUp::Roots => ("roots", Request::Roots { ids }),
        };
        let mut told = Self {
            arguments: vec![command.into()],
            on_stdin: line(&on_stdin),
        };
        told.place(request.db.as_deref(), request.busy_timeout(), runs);
        told.arguments.push("--request-stdin".into());
        told.launched(request.deadline, runs);
        told
    }

    /// The first argument that another machine's shell could take for something else.
    pub(super) fn not_plain(&self) -> Option<&OsString> {
        let is_plain = |argument: &OsString| argument.to_str().is_some_and(is_plain_argument);
        self.arguments.iter().find(|argument| !is_plain(argument))
    }

    fn place(&mut self, db: Option<&Path>, busy_timeout: Duration, runs: Runs) {
        if let Some(db) = db {
            let db = match runs {
                Runs::Here => absolute(db),
                Runs::Elsewhere => db.into(),
            };
            self.arguments.extend(["--db".into(), db]);
        }
        self.milliseconds("--busy-timeout", busy_timeout);
    }

    /// It dies with whoever launched it, and keeps to limits.
    fn launched(&mut self, deadline: Duration, runs: Runs) {
        let threads = match runs {
            // Its parent elsewhere is not this process.
            Runs::Elsewhere => MOST_THREADS as u64,
            Runs::Here => {
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
        for told in [
            Told::to_list(&list, Runs::Elsewhere),
            Told::to_look_up(&look_up, Runs::Elsewhere),
        ] {
            assert_eq!(told.not_plain(), None);
            assert!(!told.on_stdin.is_empty());
        }
        let hostile = ListRequest::of("/srv/$(reboot)");
        let told = Told::to_list(&hostile, Runs::Elsewhere);
        assert_eq!(told.not_plain(), Some(&"/srv/$(reboot)".into()));
    }
}
