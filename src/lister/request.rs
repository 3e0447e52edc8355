//! What a lister is asked for, and within which limits.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::dirs;
use crate::entry::Rows;
use crate::marker_text::MarkerText;
use crate::session::SessionId;
use crate::wire::{LookUp, limits};

/// What to list.
#[derive(Debug, Clone)]
pub struct ListRequest {
    /// The database; without it the one that the helper finds, where it runs.
    pub db: Option<PathBuf>,
    /// The marker to look for; `None` leaves `marked` unknown.
    pub marker: Option<MarkerText>,
    /// Child sessions too, not just roots.
    pub children: bool,
    /// Archived sessions too.
    pub archived: bool,
    /// How long the listing may take, from spawn to exit.
    pub deadline: Duration,
    /// Where the helper remembers what it knows about the marker, so that the next
    /// listing reads only what is new.
    pub scan_cache: Option<ScanCache>,
    /// How long it may look for the marker; what it does not know by then is
    /// unknown. Never more than half of the deadline or 10 minutes, which is also what
    /// it may take without a budget.
    pub scan_budget: Option<Duration>,
    /// How many characters of a first prompt are wanted, 1 to
    /// [`limits::FIRST_PROMPT_MOST`]; a number outside of that is taken for the nearest.
    pub first_prompt_limit: usize,
    /// Ends the listing early.
    pub cancel: Cancel,
    /// The rows of the listing before. A row that did not change shares its memory.
    pub known: Option<Arc<Rows>>,
}

/// Where a helper remembers what it knows about the marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanCache {
    /// In this file.
    At(PathBuf),
    /// In a file of its own choice, in its user's cache directory, where it runs.
    Auto,
}

impl ScanCache {
    /// The file, in this process, for the database at `db`; its directory is made where
    /// it is not there. `None` where none can be had.
    #[must_use]
    pub fn prepare(self, db: &Path) -> Option<PathBuf> {
        match self {
            Self::At(path) => Some(path),
            Self::Auto => dirs::own_scan_cache(db),
        }
    }
}

/// A file that is called `auto` is `./auto`.
impl From<OsString> for ScanCache {
    fn from(text: OsString) -> Self {
        match text.to_str() {
            Some("auto") => Self::Auto,
            _ => Self::At(text.into()),
        }
    }
}

/// Ends a listing early: its helper is killed and reaped within a second.
/// Clones end the same listing.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the listing, now or when it begins.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// True once it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl ListRequest {
    /// The default deadline: 15 seconds.
    pub const DEADLINE: Duration = Duration::from_secs(15);

    /// The root sessions of the database at `db`, with the default marker and
    /// deadline.
    #[must_use]
    pub fn of(db: impl Into<PathBuf>) -> Self {
        Self {
            db: Some(db.into()),
            marker: Some(MarkerText::default()),
            children: false,
            archived: false,
            deadline: Self::DEADLINE,
            scan_cache: None,
            scan_budget: None,
            first_prompt_limit: limits::FIRST_PROMPT,
            cancel: Cancel::default(),
            known: None,
        }
    }

    /// How long the helper may look for the marker where the listing has `left` until
    /// its deadline: the budget, but at most half of that, so that the sessions can be
    /// read in the rest; 1 millisecond to 10 minutes, as the helper's option takes it.
    pub(crate) fn bounded_scan_budget(&self, left: Duration) -> Duration {
        self.scan_budget
            .unwrap_or(Duration::MAX)
            .min(left / 2)
            .clamp(SHORTEST_SCAN, LONGEST_SCAN)
    }

    pub(crate) fn bounded_first_prompt_limit(&self) -> usize {
        bounded_first_prompt_limit(self.first_prompt_limit)
    }

    pub(crate) fn busy_timeout(&self) -> Duration {
        busy_timeout(self.deadline, Duration::from_secs(5))
    }
}

/// How long the helper waits for another program's lock: `usual`, but at most two thirds of
/// the deadline, so that a locked database is said to be one. Where a quarter of the deadline
/// is longer it is that: the message of a locked database names `--deadline` as the way out,
/// so a longer one must wait longer. Never more than the helper's `--busy-timeout` takes.
fn busy_timeout(deadline: Duration, usual: Duration) -> Duration {
    let most = deadline / 3 * 2;
    usual.min(most).max(deadline / 4).min(LONGEST_WAIT)
}

/// The most that the helper's `--busy-timeout` takes.
const LONGEST_WAIT: Duration = Duration::from_millis(600_000);

/// What to look up.
#[derive(Debug, Clone)]
pub struct LookUpRequest {
    /// The database; without it the one that the helper finds, where it runs.
    pub db: Option<PathBuf>,
    /// What is asked of each id.
    pub what: LookUp,
    /// The ids, at most [`limits::IDS`].
    pub ids: Vec<SessionId>,
    /// How long it may take, from spawn to exit.
    pub deadline: Duration,
    /// As [`ListRequest::first_prompt_limit`].
    pub first_prompt_limit: usize,
    /// Ends it early.
    pub cancel: Cancel,
}

impl LookUpRequest {
    /// The default deadline: 2 seconds.
    pub const DEADLINE: Duration = Duration::from_secs(2);

    /// Looks up these ids in the database at `db`, with the default deadline.
    #[must_use]
    pub fn of(db: impl Into<PathBuf>, what: LookUp, ids: Vec<SessionId>) -> Self {
        Self {
            db: Some(db.into()),
            what,
            ids,
            deadline: Self::DEADLINE,
            first_prompt_limit: limits::FIRST_PROMPT,
            cancel: Cancel::default(),
        }
    }

    pub(crate) fn bounded_first_prompt_limit(&self) -> usize {
        bounded_first_prompt_limit(self.first_prompt_limit)
    }

    pub(crate) fn busy_timeout(&self) -> Duration {
        busy_timeout(self.deadline, Duration::from_millis(500))
    }
}

/// The moment of a deadline, from now. One beyond what a clock can tell is a year
/// away.
pub(crate) fn until(deadline: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + deadline.min(YEAR)
}

/// How long a listing looks for the marker at most, where what it does not know
/// by then may wait for the next one.
pub const SCAN_BUDGET: Duration = Duration::from_secs(2);

/// The least and the most that the helper's `--scan-budget` takes.
const SHORTEST_SCAN: Duration = Duration::from_millis(1);
const LONGEST_SCAN: Duration = Duration::from_millis(600_000);

/// A limit that the helper's `--first-prompt-limit` takes.
fn bounded_first_prompt_limit(limit: usize) -> usize {
    limit.clamp(1, limits::FIRST_PROMPT_MOST)
}

/// The most threads a helper reads with where nobody says how many.
pub(crate) const MOST_THREADS: usize = 4;

/// How many threads a helper reads with: as many as the machine has, up to 4.
#[must_use]
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get().min(MOST_THREADS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_for_a_lock_follows_the_deadline() {
        let ms = Duration::from_millis;
        // The deadline, the wait of a listing, that of a look-up.
        for (deadline, listing, look_up) in [
            (0, 0, 0),
            (1, 0, 0),
            (300, 200, 200),
            (1_500, 1_000, 500),
            // The default of a look-up.
            (2_000, 1_333, 500),
            (6_000, 4_000, 1_500),
            // The default of a listing.
            (15_000, 5_000, 3_750),
            (60_000, 15_000, 15_000),
            // As long as the option takes it.
            (86_400_000, 600_000, 600_000),
        ] {
            let list = ListRequest {
                deadline: ms(deadline),
                ..ListRequest::of("/x")
            };
            let get = LookUpRequest {
                deadline: ms(deadline),
                ..LookUpRequest::of("/x", LookUp::Get, Vec::new())
            };
            let waits = (
                list.busy_timeout().as_millis(),
                get.busy_timeout().as_millis(),
            );
            assert_eq!(waits, (listing, look_up), "{deadline}");
        }
        let endless = ListRequest {
            deadline: Duration::MAX,
            ..ListRequest::of("/x")
        };
        assert_eq!(endless.busy_timeout(), ms(600_000));
    }

    #[test]
    fn scan_budget_is_at_most_half_of_the_deadline() {
        let ms = Duration::from_millis;
        let (none, two_seconds) = (None, Some(SCAN_BUDGET));
        for (deadline, budget, expected) in [
            // The default.
            (ms(15_000), two_seconds, ms(2_000)),
            (ms(15_000), none, ms(7_500)),
            (ms(4_000), two_seconds, ms(2_000)),
            (ms(3_999), two_seconds, Duration::from_micros(1_999_500)),
            (ms(150), two_seconds, ms(75)),
            (ms(150), none, ms(75)),
            (ms(150), Some(ms(10)), ms(10)),
            // As short as `--deadline` takes it, and shorter.
            (ms(10), two_seconds, ms(5)),
            (ms(2), two_seconds, ms(1)),
            (ms(1), two_seconds, ms(1)),
            (Duration::ZERO, none, ms(1)),
            (Duration::from_nanos(1), none, ms(1)),
            (ms(15_000), Some(Duration::ZERO), ms(1)),
            // As long as it takes it, and longer.
            (Duration::from_secs(24 * 60 * 60), two_seconds, ms(2_000)),
            (Duration::from_secs(24 * 60 * 60), none, ms(600_000)),
            (Duration::MAX, none, ms(600_000)),
            (Duration::MAX, Some(Duration::MAX), ms(600_000)),
        ] {
            let request = ListRequest {
                deadline,
                scan_budget: budget,
                ..ListRequest::of("/x")
            };
            let bounded = request.bounded_scan_budget(request.deadline);
            assert_eq!(bounded, expected, "{budget:?} of {deadline:?}");
        }
    }
}
