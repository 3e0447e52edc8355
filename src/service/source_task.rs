//! The task of one source: it watches the files, schedules the listings, and runs each listing
//! on its own thread.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::differences::Differences;
use super::refreshes::RefreshId;
use super::schedule::{Activity, Finished, Schedule, Urgency};
use super::watch::{SourceStamp, Watch, WatchEvent, Watcher};
use crate::dirs;
use crate::index::{Health, SourceListing};
use crate::lister::{Cancel, ListRequest, Outcome, ScanCache, list_or_ask_for_all, until};
use crate::locate::DatabaseFiles;
use crate::project::Projects;
use crate::query::{self, LookUpSource, SourceLister};
use crate::source::{Place, Source, SourceName};
use crate::text::format_duration;
use crate::wire::{ErrorKind, Known, Scan};

/// How long a refresh waits for the inspection of the source's files.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// The shortest time between two announcements of the same kind of failure.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Identifies a source task. Each task has a different number, so that a listing that outlives
/// its source is not attributed to the next source of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceKey {
    pub(super) name: SourceName,
    pub(super) number: u64,
}

/// The state of a source outside the index.
pub(super) struct SourceTask {
    pub(super) key: SourceKey,
    pub(super) source_lister: SourceLister,
    pub(super) schedule: Schedule,
    /// How changes are noticed, in words for people.
    pub(super) watch_mode: String,
    /// How the last complete listing searched for the marker.
    pub(super) scan: Option<Scan>,
    /// The refreshes that wait for the next listing.
    pub(super) waiting: Vec<RefreshId>,
    /// The refreshes that wait for the listing in flight.
    running: Vec<RefreshId>,
    scan_cache: ScanCache,
    /// `None` for a command.
    watch: Option<Watch>,
    stamps: Stamps,
    cancel: Cancel,
    /// When the health was last announced.
    health_announced: Duration,
    /// The reason or the time of the next attempt has changed since the announcement.
    health_is_stale: bool,
    differences: Differences,
}

/// The stamps of a source's files at different times.
#[derive(Debug, Clone, Copy, Default)]
struct Stamps {
    now: Option<SourceStamp>,
    /// At the start of the listing in flight.
    listing: Option<SourceStamp>,
    /// At the start of the last complete listing.
    listed: Option<SourceStamp>,
}

impl SourceTask {
    /// Starts watching the source, which causes its first listing. `report` receives the events
    /// of the watcher.
    pub(super) fn begin(
        source_lister: SourceLister,
        key: SourceKey,
        state_dir: Option<&Path>,
        watcher: &Watcher,
        report: impl Fn(WatchEvent) + Send + 'static,
        now: Duration,
    ) -> Self {
        let mut schedule = Schedule::default();
        let (watch, scan_cache, watch_mode) = match &source_lister.source.place {
            Place::Database(path) => {
                let files = DatabaseFiles::of_canonical(path.clone());
                let cache = state_dir.map(|directory| dirs::scan_cache_in(directory, &files));
                let watch = watcher.watch(&source_lister.source, files, report);
                // Without a state directory, the cache is where `list` keeps it.
                let cache = cache.map_or(ScanCache::Auto, ScanCache::At);
                (Some(watch), cache, "not yet".to_owned())
            }
            Place::Remote(remote) => {
                schedule = Schedule::polled(remote.every);
                schedule.request(Urgency::Changed, now);
                let mode = format!("asked every {}", format_duration(remote.every));
                (None, ScanCache::Auto, mode)
            }
        };
        Self {
            key,
            source_lister,
            schedule,
            watch_mode,
            scan: None,
            waiting: Vec::new(),
            running: Vec::new(),
            scan_cache,
            watch,
            stamps: Stamps::default(),
            cancel: Cancel::default(),
            health_announced: Duration::ZERO,
            health_is_stale: false,
            differences: Differences::default(),
        }
    }

    /// Returns when the health is to be announced again.
    pub(super) fn health_due(&self) -> Option<Duration> {
        self.health_is_stale
            .then_some(self.health_announced + HEALTH_INTERVAL)
    }

    /// Records that the health was announced.
    pub(super) fn announced(&mut self, now: Duration) {
        (self.health_is_stale, self.health_announced) = (false, now);
    }

    /// Records that the health has changed since it was announced.
    pub(super) fn set_health_stale(&mut self) {
        self.health_is_stale = true;
    }

    /// Inspects the files soon, if this is a database.
    pub(super) fn inspect(&self) {
        if let Some(watch) = &self.watch {
            // The watcher reports the result.
            let _ = watch.inspect();
        }
    }

    /// Records the current stamp of the files.
    pub(super) fn set_stamp(&mut self, stamp: SourceStamp, now: Duration) {
        self.stamps.now = Some(stamp);
        self.request_if_changed(now);
    }

    /// Requests a listing if the files can have changed since the last complete one.
    fn request_if_changed(&mut self, now: Duration) {
        let Some(stamp) = &self.stamps.now else {
            return;
        };
        let urgency = match self.stamps.listed {
            Some(listed) if listed.is_unchanged(stamp) => return,
            Some(listed) if listed.has_only_aged(stamp) => Urgency::Aged,
            _ => Urgency::Changed,
        };
        self.schedule.request(urgency, now);
    }

    /// Cancels the listing in flight, and returns all refreshes that wait for this source.
    pub(super) fn end(self) -> Vec<RefreshId> {
        self.cancel.cancel();
        self.waiting.into_iter().chain(self.running).collect()
    }

    /// Cancels the listing in flight.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Returns the refreshes that waited for the listing that has ended.
    pub(super) fn take_running(&mut self) -> Vec<RefreshId> {
        std::mem::take(&mut self.running)
    }

    /// Begins a listing of this source on its own thread. `done` receives the result in any
    /// case, also if the thread cannot be spawned.
    pub(super) fn list(
        &mut self,
        request: ListRequest,
        known: Option<Known>,
        done: impl FnOnce(ListingResult) + Send + 'static,
    ) {
        self.stamps.listing = self.stamps.now;
        self.running = std::mem::take(&mut self.waiting);
        self.cancel = request.cancel.clone();
        let request = ListRequest {
            db: self.source_lister.source.db(),
            scan_cache: Some(self.scan_cache.clone()),
            known,
            only_differences: self.differences.are_possible(),
            ..request
        };
        let projects = self.source_lister.projects();
        let lister = Arc::clone(&self.source_lister.lister);
        let source = self.source_lister.source.clone();
        // If the last marker scan was finished, a refresh opens the database only if something
        // was written since.
        let is_finished = self.scan.is_none_or(|scan| scan.is_finished());
        let is_refresh = !self.running.is_empty();
        let finds_all_projects = self.differences.begin_with_projects(is_refresh);
        let listed = self.stamps.listed.filter(|_| is_refresh && is_finished);
        // A refresh must read the database that the path leads to now.
        let watch = self.watch.as_ref().filter(|_| is_refresh);
        let inspection = watch.map(Watch::inspect);
        let mut pending = PendingResult::new(self.key.clone(), done);
        let thread = thread::Builder::new()
            .name("listing".into())
            .spawn(move || {
                pending.set(
                    Err(ListingFailure {
                        kind: "panic",
                        reason: "the listing thread panicked".to_owned(),
                    }),
                    Duration::ZERO,
                    0,
                );
                let seen = inspection.and_then(|seen| seen.recv_timeout(INSPECTION_TIMEOUT).ok());
                let started = Instant::now();
                let until = until(request.deadline);
                let mut refused = None;
                let (result, bytes) = match (listed, seen) {
                    (Some(listed), Some(now)) if listed.is_unchanged(&now) => (Ok(None), 0),
                    _ => {
                        let (outcome, reason) = list_or_ask_for_all(&*lister, &request);
                        refused = reason;
                        let known = request.base().filter(|_| finds_all_projects);
                        result_of(outcome, known, &source, &projects, until)
                    }
                };
                // The owner changes the rows in place only if they are not shared.
                drop(request);
                pending.set(result, started.elapsed(), bytes);
                pending.set_refused(refused);
            });
        // If the thread could not be spawned, the pending result has reported it.
        drop(thread);
    }

    /// Records whether the next listing may ask for differences, after a complete listing.
    /// `was_refused` is true if the helper's difference broke a rule.
    pub(super) fn set_differences(&mut self, complete: &Complete, was_refused: bool) {
        let is_difference = complete.listed.difference.is_some();
        self.differences
            .complete(complete.can_send_differences, is_difference, was_refused);
    }

    /// Records that the listing in flight was complete.
    pub(super) fn complete(
        &mut self,
        scan: Scan,
        activity: Activity,
        took: Duration,
        now: Duration,
    ) {
        self.scan = Some(scan);
        self.stamps.listed = self.stamps.listing;
        self.finish(Finished::Ok(activity), took, now);
        // The listing may have missed what changed while it ran.
        if self.stamps.now != self.stamps.listed && self.stamps.listed.is_some() {
            self.request_if_changed(now);
        }
    }

    /// Records that the listing in flight was complete, but is to be repeated soon.
    pub(super) fn repeat(&mut self, scan: Scan, took: Duration, now: Duration) {
        self.scan = Some(scan);
        self.stamps.listed = None;
        self.finish(Finished::Retry, took, now);
    }

    /// Records that a refresh found no change and listed nothing.
    pub(super) fn unchanged(&mut self, took: Duration, now: Duration) {
        self.finish(Finished::Ok(Activity::default()), took, now);
    }

    /// Records that the listing in flight failed.
    pub(super) fn failed(&mut self, took: Duration, now: Duration) {
        self.stamps.listed = None;
        self.differences.fail();
        self.finish(Finished::Failed, took, now);
    }

    fn finish(&mut self, finished: Finished, took: Duration, now: Duration) {
        self.schedule.finish(finished, took, now, fastrand::f64());
    }

    /// Returns this source for a look-up. A source whose listings time out, or a command whose
    /// listings fail, is skipped, since every look-up would wait for it.
    pub(super) fn to_look_up(&self, health: &Health) -> LookUpSource {
        let is_remote = matches!(self.source_lister.source.place, Place::Remote(_));
        let skip_reason = match health {
            Health::Failing(failing) if is_remote || failing.kind == "timeout" => {
                Some(failing.reason.clone())
            }
            _ => None,
        };
        LookUpSource {
            source_lister: self.source_lister.clone(),
            skip_reason,
        }
    }
}

/// The result that a listing sends to the owner when this is dropped. It is a failure if the
/// thread could not be spawned or panicked.
struct PendingResult<F: FnOnce(ListingResult)> {
    result: Option<(ListingResult, F)>,
}

impl<F: FnOnce(ListingResult)> PendingResult<F> {
    fn new(source: SourceKey, done: F) -> Self {
        let result = ListingResult {
            source,
            result: Err(ListingFailure {
                kind: "thread",
                reason: "cannot spawn the listing thread".to_owned(),
            }),
            took: Duration::ZERO,
            bytes: 0,
            refused: None,
        };
        Self {
            result: Some((result, done)),
        }
    }

    fn set(
        &mut self,
        result: Result<Option<Complete>, ListingFailure>,
        took: Duration,
        bytes: u64,
    ) {
        if let Some((pending, _)) = &mut self.result {
            (pending.result, pending.took, pending.bytes) = (result, took, bytes);
        }
    }

    fn set_refused(&mut self, refused: Option<String>) {
        if let Some((pending, _)) = &mut self.result {
            pending.refused = refused;
        }
    }
}

impl<F: FnOnce(ListingResult)> Drop for PendingResult<F> {
    fn drop(&mut self) {
        if let Some((result, done)) = self.result.take() {
            done(result);
        }
    }
}

/// The result of a listing.
#[derive(Debug)]
pub(super) struct ListingResult {
    pub(super) source: SourceKey,
    /// `None` if nothing had changed, so that no helper was launched.
    pub(super) result: Result<Option<Complete>, ListingFailure>,
    pub(super) took: Duration,
    /// How many bytes the helper sent.
    pub(super) bytes: u64,
    /// Why the helper's difference was refused, so that another listing asked for everything.
    pub(super) refused: Option<String>,
}

/// A complete listing.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) listed: SourceListing,
    pub(super) scan: Scan,
    pub(super) can_send_differences: bool,
}

/// Why a listing failed.
#[derive(Debug)]
pub(super) struct ListingFailure {
    pub(super) kind: &'static str,
    pub(super) reason: String,
}

/// Converts the outcome of a helper. Also returns how many bytes the helper sent.
fn result_of(
    outcome: Outcome,
    known: Option<&Known>,
    source: &Source,
    projects: &Projects,
    until: Instant,
) -> (Result<Option<Complete>, ListingFailure>, u64) {
    let (kind, reason) = match outcome {
        Outcome::Complete(listing) => {
            let (scan, bytes) = (listing.end.scan, listing.bytes);
            // Another program's database does not count as an empty one: the known sessions are
            // kept.
            if let Some(reason) = query::foreign_database_message(source, &listing.end.other_tables)
            {
                let kind = ErrorKind::Schema.as_str();
                return (Err(ListingFailure { kind, reason }), bytes);
            }
            let complete = Complete {
                can_send_differences: listing.can_send_differences,
                listed: query::listed(listing, known, projects, until),
                scan,
            };
            return (Ok(Some(complete)), bytes);
        }
        Outcome::Refused(refusal) => (refusal.error.kind.as_str(), refusal.to_string()),
        Outcome::Failed(failure) => (failure.reason.kind(), failure.to_string()),
        Outcome::TimedOut(timeout) => ("timeout", timeout.to_string()),
        cancelled @ Outcome::Cancelled => ("cancelled", cancelled.to_string()),
    };
    (Err(ListingFailure { kind, reason }), 0)
}
