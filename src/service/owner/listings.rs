//! Handles the results of the watcher and of the listings.

use std::path::PathBuf;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::Owner;
use crate::index::{Moment, Recheck};
use crate::query;
use crate::service::protocol::RefreshOutcome;
use crate::service::schedule::Activity;
use crate::service::source_task::{Complete, ListingFailure, ListingResult, SourceKey};
use crate::service::watch::WatchEvent;
use crate::session::Millis;
use crate::source::{Place, Source, SourceName};
use crate::text::one_line;

impl Owner {
    /// Replaces the sources. Sources that stay the same are not interrupted.
    pub(super) fn set_sources(&mut self, sources: &[Source]) {
        let now = self.now();
        let listed_archived = query::lists_archived(self.tasks.len());
        let Some(replaced) = self.tasks.replace(sources, now) else {
            return;
        };
        info!(
            sources = sources.len(),
            new = replaced.new,
            gone = replaced.gone,
            "sources changed"
        );
        self.index.set_sources(sources);
        for (source, refresh) in replaced.orphans {
            let reason = Some("source removed by a reload".to_owned());
            self.refreshed(refresh, &source, RefreshOutcome::Failed, reason);
        }
        if listed_archived != query::lists_archived(self.tasks.len()) {
            self.tasks.request_all(now);
        }
        self.subscribers.send_snapshots(&self.index);
        self.heartbeat.show(&self.index);
    }

    pub(super) fn watch_event(&mut self, key: &SourceKey, event: WatchEvent) {
        let now = self.now();
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        let source = &key.name;
        match event {
            WatchEvent::Stamp(stamp) => task.set_stamp(stamp, now),
            WatchEvent::Mode(mode) => {
                if mode.starts_with("polling") {
                    info!(%source, mode = %one_line(&mode), "watching");
                }
                task.watch_mode = mode;
            }
            WatchEvent::Moved(to) => self.moved(source, to),
        }
    }

    /// Reads a source from another database from now on, since its path leads there.
    fn moved(&mut self, source: &SourceName, to: PathBuf) {
        info!(%source, "source path now leads to another database");
        let sources = self.tasks.with_place(source, Place::Database(to));
        self.set_sources(&sources);
    }

    pub(super) fn listed(&mut self, listed: ListingResult) {
        let (moment, took) = (self.moment(), listed.took);
        // A snapshot says when each source was last listed.
        self.subscribers.clear_snapshots();
        self.tasks.listing_ended();
        self.counters.count_listing(&listed);
        let key = listed.source;
        if let Some(reason) = &listed.refused {
            let source = &key.name;
            warn!(%source, "invalid difference from the helper; listed everything");
            debug!(%source, reason = %one_line(reason));
        }
        let Some(task) = self.tasks.get(&key) else {
            return;
        };
        let refreshes = task.take_running();
        let (outcome, reason) = match listed.result {
            Ok(None) => {
                task.unchanged(took, moment.monotonic);
                self.index.set_as_of(&key.name, moment.wall.before(took));
                (RefreshOutcome::Ok, None)
            }
            Ok(Some(complete)) => {
                task.set_differences(&complete, listed.refused.is_some());
                (self.complete(&key, complete, took, moment), None)
            }
            Err(failure) => {
                self.failed(&key, &failure, took, moment);
                (RefreshOutcome::Failed, Some(failure.reason))
            }
        };
        // The replies follow the events that the listing caused.
        for refresh in refreshes {
            self.refreshed(refresh, &key.name, outcome, reason.clone());
        }
    }

    fn complete(
        &mut self,
        key: &SourceKey,
        Complete { listed, scan, .. }: Complete,
        took: Duration,
        moment: Moment,
    ) -> RefreshOutcome {
        let merged = self.index.merge(&key.name, listed, moment);
        if merged.recheck.is_none() {
            self.index.set_as_of(&key.name, moment.wall.before(took));
        }
        let activity = Activity {
            has_changed: !merged.difference.is_empty() || !merged.others.is_empty(),
            frames: scan.frames,
            is_unfinished: !scan.is_finished(),
        };
        if let Some(task) = self.tasks.get(key) {
            match merged.recheck {
                None => task.complete(scan, activity, took, moment.monotonic),
                Some(_) => task.repeat(scan, took, moment.monotonic),
            }
        }
        let outcome = match merged.recheck {
            None => RefreshOutcome::Ok,
            Some(Recheck::Unconfirmed) => RefreshOutcome::Unconfirmed,
            Some(Recheck::Young) => RefreshOutcome::Young,
        };
        self.announce(&key.name, merged);
        outcome
    }

    fn failed(
        &mut self,
        key: &SourceKey,
        ListingFailure { kind, reason }: &ListingFailure,
        took: Duration,
        moment: Moment,
    ) {
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        let source = &key.name;
        task.failed(took, moment.monotonic);
        let next_try = task.schedule.due().map(|due| {
            let left = due.saturating_sub(moment.monotonic).as_millis();
            let left_ms = i64::try_from(left).unwrap_or(i64::MAX);
            Millis(moment.wall.0.saturating_add(left_ms))
        });
        if self.index.fail(source, kind, reason, next_try, moment) {
            warn!(%source, kind, "listing failed; keeping the known sessions");
            debug!(%source, reason = %one_line(reason));
            self.announce_health(source);
        } else {
            task.set_health_stale();
        }
    }
}
