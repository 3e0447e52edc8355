//! Requests to a [`Lister`](super::Lister), and the limits of their fields.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::dirs;
use crate::marker_text::MarkerText;
use crate::session::SessionId;
use crate::wire::{Known, LookUp, limits};

/// A request for one listing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ListRequest {
    /// The database; `None` for the one that the helper finds on its own machine.
    pub db: Option<PathBuf>,
    /// The marker to search for; with `None` the field `marked` of each session is unknown.
    pub marker: Option<MarkerText>,
    /// Whether to list child sessions as well as roots.
    pub children: bool,
    /// Whether to list archived sessions too.
    pub archived: bool,
    /// How long the listing may take, from spawn to exit.
    pub deadline: Duration,
    /// The cache of the marker scan; with it the next listing reads only what is new.
    pub scan_cache: Option<ScanCache>,
    /// How long the marker scan may take; marks not known by then stay unknown. The scan
    /// never takes more than half of the deadline or 10 minutes, also with `None`.
    pub scan_budget: Option<Duration>,
    /// The maximum length of a first prompt in characters, clamped to 1 to
    /// [`limits::FIRST_PROMPT_MAX`].
    pub first_prompt_limit: usize,
    /// Cancels the listing.
    pub cancel: Cancel,
    /// The rows of the listing before. A row that did not change shares its memory.
    pub(crate) known: Option<Known>,
    /// Whether to ask for the differences to `known` only. The helper must be able to send them
    /// ([`Listing::can_send_differences`](crate::wire::Listing)).
    pub(crate) only_differences: bool,
}

/// The location of the scan cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanCache {
    /// This file.
    At(PathBuf),
    /// A file that the helper chooses, in the cache directory of its user on its machine.
    Auto,
}

impl ScanCache {
    /// Returns the cache file of the database at `db` for this process. Creates the
    /// directory of [`Auto`](Self::Auto) if it does not exist. `None` if there is no cache
    /// directory or it cannot be created.
    #[must_use]
    pub fn prepare(self, db: &Path) -> Option<PathBuf> {
        match self {
            Self::At(path) => Some(path),
            Self::Auto => dirs::user_scan_cache(db),
        }
    }
}

/// Parses the value of `--scan-cache`: `auto`, or a path. A file named `auto` is written as
/// `./auto`.
impl From<OsString> for ScanCache {
    fn from(text: OsString) -> Self {
        match text.to_str() {
            Some("auto") => Self::Auto,
            _ => Self::At(text.into()),
        }
    }
}

/// A handle that cancels a request: the helper is killed and reaped within one second.
/// Clones cancel the same request.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Cancels the request, whether it is running or has not begun.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Returns true if the request was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl ListRequest {
    /// The default deadline: 15 seconds.
    pub const DEADLINE: Duration = Duration::from_secs(15);

    /// Creates a request for the root sessions of the database at `db`, with the default
    /// marker and deadline.
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
            only_differences: false,
        }
    }

    /// Sets the database; `None` for the one that the helper finds on its own machine.
    #[must_use]
    pub fn db(self, db: Option<PathBuf>) -> Self {
        Self { db, ..self }
    }

    /// Sets the marker to search for.
    #[must_use]
    pub fn marker(self, marker: Option<MarkerText>) -> Self {
        Self { marker, ..self }
    }

    /// Sets whether to list child sessions as well as roots.
    #[must_use]
    pub fn children(self, children: bool) -> Self {
        Self { children, ..self }
    }

    /// Sets whether to list archived sessions too.
    #[must_use]
    pub fn archived(self, archived: bool) -> Self {
        Self { archived, ..self }
    }

    /// Sets how long the listing may take, from spawn to exit.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Sets the cache of the marker scan.
    #[must_use]
    pub fn scan_cache(self, scan_cache: Option<ScanCache>) -> Self {
        Self { scan_cache, ..self }
    }

    /// Sets how long the marker scan may take.
    #[must_use]
    pub fn scan_budget(self, scan_budget: Option<Duration>) -> Self {
        Self {
            scan_budget,
            ..self
        }
    }

    /// Sets the maximum length of a first prompt in characters.
    #[must_use]
    pub fn first_prompt_limit(self, first_prompt_limit: usize) -> Self {
        Self {
            first_prompt_limit,
            ..self
        }
    }

    /// Sets the handle that cancels the listing.
    #[must_use]
    pub fn cancel(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    /// Returns how long the marker scan may take if `left` remains until the deadline: the
    /// budget, but at most half of `left`, so that the other half remains for reading the
    /// sessions. The result is clamped to 1 millisecond to 10 minutes, the range of the
    /// helper's option.
    pub(crate) fn bounded_scan_budget(&self, left: Duration) -> Duration {
        self.scan_budget
            .unwrap_or(Duration::MAX)
            .min(left / 2)
            .clamp(MIN_SCAN_BUDGET, MAX_SCAN_BUDGET)
    }

    /// Returns the rows to which only the differences are asked for.
    pub(crate) fn base(&self) -> Option<&Known> {
        let known = self.known.as_ref().filter(|_| self.only_differences);
        known.filter(|known| known.set.is_some())
    }

    pub(crate) fn bounded_first_prompt_limit(&self) -> usize {
        bounded_first_prompt_limit(self.first_prompt_limit)
    }

    pub(crate) fn busy_timeout(&self) -> Duration {
        busy_timeout(self.deadline, Duration::from_secs(5))
    }
}

/// Returns how long the helper waits for another program's lock.
///
/// That is `default`, but at most two thirds of the deadline, so that the helper can still
/// report a locked database. It is at least a quarter of the deadline: the message of a
/// locked database advises to raise `--deadline`, so a longer deadline must wait longer. It
/// never exceeds the maximum of the helper's `--busy-timeout`.
fn busy_timeout(deadline: Duration, default: Duration) -> Duration {
    let upper_bound = deadline / 3 * 2;
    default
        .min(upper_bound)
        .max(deadline / 4)
        .min(MAX_BUSY_TIMEOUT)
}

/// The range of the helper's `--busy-timeout`, in milliseconds.
pub(crate) const BUSY_TIMEOUTS_MS: RangeInclusive<u64> = 0..=600_000;

const MAX_BUSY_TIMEOUT: Duration = Duration::from_millis(*BUSY_TIMEOUTS_MS.end());

/// The range of the helper's `--cpu-limit`, in seconds: up to one day.
pub(crate) const CPU_LIMITS_SECONDS: RangeInclusive<u64> = 1..=86_400;

/// A request for one look-up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LookUpRequest {
    /// The database; `None` for the one that the helper finds on its own machine.
    pub db: Option<PathBuf>,
    /// What to find for each id.
    pub what: LookUp,
    /// The ids, at most [`limits::IDS`].
    pub ids: Vec<SessionId>,
    /// How long the look-up may take, from spawn to exit.
    pub deadline: Duration,
    /// As [`ListRequest::first_prompt_limit`].
    pub first_prompt_limit: usize,
    /// Cancels the look-up.
    pub cancel: Cancel,
}

impl LookUpRequest {
    /// The default deadline: 2 seconds.
    pub const DEADLINE: Duration = Duration::from_secs(2);

    /// Creates a request for these ids in the database at `db`, with the default deadline.
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

    /// Sets the database; `None` for the one that the helper finds on its own machine.
    #[must_use]
    pub fn db(self, db: Option<PathBuf>) -> Self {
        Self { db, ..self }
    }

    /// Sets how long the look-up may take, from spawn to exit.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Sets the maximum length of a first prompt in characters.
    #[must_use]
    pub fn first_prompt_limit(self, first_prompt_limit: usize) -> Self {
        Self {
            first_prompt_limit,
            ..self
        }
    }

    /// Sets the handle that cancels the look-up.
    #[must_use]
    pub fn cancel(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    pub(crate) fn bounded_first_prompt_limit(&self) -> usize {
        bounded_first_prompt_limit(self.first_prompt_limit)
    }

    pub(crate) fn busy_timeout(&self) -> Duration {
        busy_timeout(self.deadline, Duration::from_millis(500))
    }
}

/// Returns the time at which `deadline`, counted from now, has passed. Capped at one year,
/// since the clock cannot represent every sum.
pub(crate) fn until(deadline: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + deadline.min(YEAR)
}

/// The scan budget of a listing whose unknown marks can wait for the next listing.
pub const SCAN_BUDGET: Duration = Duration::from_secs(2);

/// The range of the helper's `--scan-budget`, in milliseconds.
pub(crate) const SCAN_BUDGETS_MS: RangeInclusive<u64> = 1..=600_000;

const MIN_SCAN_BUDGET: Duration = Duration::from_millis(*SCAN_BUDGETS_MS.start());
const MAX_SCAN_BUDGET: Duration = Duration::from_millis(*SCAN_BUDGETS_MS.end());

/// Clamps a limit to the range of the helper's `--first-prompt-limit`.
fn bounded_first_prompt_limit(limit: usize) -> usize {
    limit.clamp(1, limits::FIRST_PROMPT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_timeout_follows_the_deadline() {
        let ms = Duration::from_millis;
        // The deadline, the timeout of a listing, that of a look-up.
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
            // The maximum of the option.
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
            let timeouts = (
                list.busy_timeout().as_millis(),
                get.busy_timeout().as_millis(),
            );
            assert_eq!(timeouts, (listing, look_up), "{deadline}");
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
            // The minimum of `--deadline`, and less.
            (ms(10), two_seconds, ms(5)),
            (ms(2), two_seconds, ms(1)),
            (ms(1), two_seconds, ms(1)),
            (Duration::ZERO, none, ms(1)),
            (Duration::from_nanos(1), none, ms(1)),
            (ms(15_000), Some(Duration::ZERO), ms(1)),
            // The maximum of `--deadline`, and more.
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
