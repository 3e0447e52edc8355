//! The work on one source: how its changes are noticed, when it is listed, and the
//! listing itself, on a thread of its own.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::schedule::{Schedule, Urgency};
use super::watch::{SourceStamp, Watch, Watcher};
use super::{Inbox, Message};
use crate::dirs;
use crate::index::{Health, ListedEntries};
use crate::lister::{Cancel, ListRequest, Outcome, ScanCache, until};
use crate::locate::DatabaseFiles;
use crate::project::Projects;
use crate::query::{self, SourceLister};
use crate::source::{Place, Source, SourceName};
use crate::text::format_duration;
use crate::wire::{ErrorKind, Scan};

/// How long a refresh waits for a look at where its path leads.
const LOOK: Duration = Duration::from_secs(1);

/// The health of a source that goes on failing is announced at most this often.
const HEALTH_PACE: Duration = Duration::from_secs(1);

/// What the owner knows of a source beside its sessions.
pub(super) struct SourceTask {
    pub(super) source_lister: SourceLister,
    /// Another one for each source that ever was: a listing that outlives its source
    /// says nothing of the next one of that name.
    pub(super) number: u64,
    scan_cache: Option<ScanCache>,
    pub(super) schedule: Schedule,
    /// Of a database.
    pub(super) watch: Option<Watch>,
    pub(super) how_watched: String,
    /// What the files look like now.
    pub(super) stamp: Option<SourceStamp>,
    /// What they looked like when the listing in flight began.
    pub(super) listing: Option<SourceStamp>,
    /// What they looked like when the last complete listing began.
    pub(super) listed: Option<SourceStamp>,
    /// How the marker was last looked for.
    pub(super) scan: Option<Scan>,
    pub(super) cancel: Cancel,
    /// Refreshes that wait for a listing that begins from now on.
    pub(super) waiting: Vec<u64>,
    /// Refreshes that wait for the listing in flight.
    pub(super) running: Vec<u64>,
    /// When its health was last announced.
    pub(super) told: Duration,
    /// Its health says more than was announced: another reason, another time to try again.
    pub(super) health_is_stale: bool,
}

impl SourceTask {
    /// Begins to watch the source, which causes its first listing.
    pub(super) fn begin(
        source_lister: SourceLister,
        number: u64,
        state_dir: Option<&Path>,
        watcher: &Watcher,
        inbox: &Inbox,
        now: Duration,
    ) -> Self {
        let mut schedule = Schedule::default();
        let (watch, scan_cache, how_watched) = match &source_lister.source.place {
            Place::Database(path) => {
                let files = DatabaseFiles::of_canonical(path.clone());
                let cache = state_dir.map(|directory| dirs::scan_cache_in(directory, &files));
                let watch = watcher.watch(&source_lister.source, number, files, inbox.clone());
                let how = "not yet".to_owned();
                // Without one it is where a single listing keeps it.
                let cache = cache.map_or(ScanCache::Auto, ScanCache::At);
                (Some(watch), Some(cache), how)
            }
            Place::Remote(remote) => {
                schedule = Schedule::polled(remote.every);
                schedule.ask(Urgency::Changed, now);
                let how = format!("asked every {}", format_duration(remote.every));
                (None, Some(ScanCache::Auto), how)
            }
        };
        Self {
            source_lister,
            number,
            scan_cache,
            schedule,
            watch,
            how_watched,
            stamp: None,
            listing: None,
            listed: None,
            scan: None,
            cancel: Cancel::default(),
            waiting: Vec::new(),
            running: Vec::new(),
            told: Duration::ZERO,
            health_is_stale: false,
        }
    }

    /// When its health is to be announced again.
    pub(super) fn health_due(&self) -> Option<Duration> {
        self.health_is_stale.then_some(self.told + HEALTH_PACE)
    }

    /// What these looks ask for, after the last complete listing; `None` where nothing can
    /// have changed since.
    pub(super) fn asked_for_by(&self, stamp: &SourceStamp) -> Option<Urgency> {
        match self.listed {
            Some(listed) if listed.is_unchanged(stamp) => None,
            Some(listed) if listed.has_only_aged(stamp) => Some(Urgency::Older),
            _ => Some(Urgency::Changed),
        }
    }

    /// Begins a listing on a thread of its own: of this source, otherwise as asked. What
    /// comes of it goes to the inbox, also where there is no thread.
    pub(super) fn list(&mut self, request: ListRequest, inbox: &Inbox) {
        self.listing = self.stamp;
        self.running = std::mem::take(&mut self.waiting);
        self.cancel = request.cancel.clone();
        let request = ListRequest {
            db: self.source_lister.source.db(),
            scan_cache: self.scan_cache.clone(),
            ..request
        };
        let projects = self.source_lister.projects();
        let lister = Arc::clone(&self.source_lister.lister);
        let source = self.source_lister.source.clone();
        // Where the last listing said all there is to say, and nothing was written since,
        // a refresh opens nothing.
        let is_finished = self
            .scan
            .is_none_or(|scan| scan.progress >= 1.0 || scan.stalled);
        let is_asked = !self.running.is_empty();
        let known = self.listed.filter(|_| is_asked && is_finished);
        // A refresh must read the database that the path leads to now.
        let inspected = self.watch.as_ref().filter(|_| is_asked);
        let inspected = inspected.map(Watch::inspect);
        let no_thread = ListingFailure {
            kind: "thread",
            reason: "no thread to list with".to_owned(),
        };
        let mut answer = PendingAnswer {
            listed: Some(Listed {
                source: self.source_lister.source.name.clone(),
                number: self.number,
                result: Err(no_thread),
                took: Duration::ZERO,
                bytes: 0,
            }),
            inbox: inbox.clone(),
        };
        let thread = thread::Builder::new()
            .name("listing".into())
            .spawn(move || {
                answer.becomes(
                    Err(ListingFailure {
                        kind: "panic",
                        reason: "the thread that lists has failed".to_owned(),
                    }),
                    Duration::ZERO,
                    0,
                );
                let seen = inspected.and_then(|inspected| inspected.recv_timeout(LOOK).ok());
                let started = Instant::now();
                let until = until(request.deadline);
                let (result, bytes) = match (known, seen) {
                    (Some(known), Some(now)) if known.is_unchanged(&now) => (Ok(None), 0),
                    _ => found(lister.list(&request), &source, &projects, until),
                };
                answer.becomes(result, started.elapsed(), bytes);
            });
        // Where there is none, the answer has said so.
        drop(thread);
    }

    /// Why a source is not asked for single sessions: its listings show that it answers
    /// nothing, or not in time, and everybody who asks would wait for it.
    pub(super) fn skip_reason(&self, health: &Health) -> Option<String> {
        let Health::Failing(failing) = health else {
            return None;
        };
        let is_remote = matches!(self.source_lister.source.place, Place::Remote(_));
        (is_remote || failing.kind == "timeout").then(|| failing.reason.clone())
    }
}

/// What a listing's thread owes the owner. It is sent in any case: where the thread could
/// not be spawned or has panicked, as a failure, when this is dropped.
struct PendingAnswer {
    /// What it comes to if it is dropped now.
    listed: Option<Listed>,
    inbox: Inbox,
}

impl PendingAnswer {
    fn becomes(
        &mut self,
        result: Result<Option<Complete>, ListingFailure>,
        took: Duration,
        bytes: u64,
    ) {
        if let Some(listed) = &mut self.listed {
            (listed.result, listed.took, listed.bytes) = (result, took, bytes);
        }
    }
}

impl Drop for PendingAnswer {
    fn drop(&mut self) {
        if let Some(listed) = self.listed.take() {
            self.inbox.send(Message::Listed(Box::new(listed)));
        }
    }
}

/// What a listing's thread brings back.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) source: SourceName,
    /// The [`SourceTask::number`] that it was launched for.
    pub(super) number: u64,
    /// Nothing where there is nothing new.
    pub(super) result: Result<Option<Complete>, ListingFailure>,
    pub(super) took: Duration,
    pub(super) bytes: u64,
}

/// What a complete listing brought.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) found: ListedEntries,
    pub(super) scan: Scan,
}

/// Why a listing failed.
#[derive(Debug)]
pub(super) struct ListingFailure {
    pub(super) kind: &'static str,
    pub(super) reason: String,
}

/// What an outcome means for the index.
fn found(
    outcome: Outcome,
    source: &Source,
    projects: &Projects,
    until: Instant,
) -> (Result<Option<Complete>, ListingFailure>, u64) {
    let (kind, reason) = match outcome {
        Outcome::Complete(listing) => {
            let (scan, bytes) = (listing.end.scan, listing.bytes);
            // Not an empty database: what was known of OpenCode's own is kept.
            if let Some(reason) = query::why_another_programs(source, &listing.end.other_tables) {
                let kind = ErrorKind::Schema.as_str();
                return (Err(ListingFailure { kind, reason }), bytes);
            }
            let found = query::found(listing, projects, until);
            return (Ok(Some(Complete { found, scan })), bytes);
        }
        Outcome::Refused(refusal) => (refusal.failure.kind.as_str(), refusal.to_string()),
        Outcome::Failed(failure) => (failure.reason.kind(), failure.to_string()),
        Outcome::TimedOut(timeout) => ("timeout", timeout.to_string()),
        cancelled @ Outcome::Cancelled => ("cancelled", cancelled.to_string()),
    };
    (Err(ListingFailure { kind, reason }), 0)
}
