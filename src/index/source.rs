//! The state of one source in the index: its rows and its health.
//!
//! A complete listing replaces the rows. A failed listing keeps them, and so does a database
//! that is being created; see [the index](super) for the rules.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{
    CONFIRM_DELAY, ChangedRows, Health, MergeResult, Moment, Recheck, SourceListing, View,
};
use crate::line_hash::{HashKey, SetHash};
use crate::row::{Row, Rows};
use crate::session::{Millis, SessionId};
use crate::source::{Place, Source, SourceName};
use crate::wire::{DatabaseState, Known, ListingDifference};

/// One source and its sessions.
#[derive(Debug, Clone)]
pub struct SourceState {
    name: SourceName,
    place: Place,
    identity: String,
    health: Health,
    /// Shared with the listing in flight and with the snapshot that is being written.
    pub(super) rows: Arc<Rows>,
    /// The key of the hashes of the rows.
    key: HashKey,
    /// The hash of the set of their lines; `None` if the line of a row is unknown.
    set: Option<SetHash>,
    /// Grows whenever the rows are others.
    generation: u64,
    /// When the source was first seen without its sessions, on the monotonic clock.
    gone_since: Option<Duration>,
    /// When the listing began that the rows are from.
    as_of: Option<Millis>,
}

impl SourceState {
    pub(super) fn new(source: &Source) -> Self {
        Self {
            name: source.name.clone(),
            place: source.place.clone(),
            identity: source.identity(),
            health: Health::Starting,
            rows: Arc::default(),
            key: HashKey::random(),
            set: None,
            generation: 0,
            gone_since: None,
            as_of: None,
        }
    }

    /// Gives the source this name and place. Its health at another place says nothing about
    /// this one.
    pub(super) fn rename(self, source: &Source) -> Self {
        let mut state = Self {
            name: source.name.clone(),
            ..self
        };
        if state.place != source.place {
            state.place = source.place.clone();
            state.gone_since = None;
            state.as_of = None;
            state.health = state.not_listed();
        }
        state
    }

    /// Returns the health before the first listing.
    fn not_listed(&self) -> Health {
        if self.rows.is_empty() {
            Health::Starting
        } else {
            Health::Stale
        }
    }

    /// Returns the name of the source.
    #[must_use]
    pub fn name(&self) -> &SourceName {
        &self.name
    }

    /// Returns what identifies the source ([`Source::identity`]).
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Returns the health of the source.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Returns when the listing began that the rows are from; `None` before the first one.
    #[must_use]
    pub fn as_of(&self) -> Option<Millis> {
        self.as_of
    }

    pub(super) fn set_as_of(&mut self, began: Millis) {
        self.as_of = Some(began);
    }

    /// Returns how many roots the source has that are not archived.
    #[must_use]
    pub fn count(&self) -> usize {
        let is_usual = |row: &&Row| View::default().shows(row);
        self.rows.values().filter(is_usual).count()
    }

    /// Returns all rows, archived sessions and children included.
    #[must_use]
    pub fn rows(&self) -> &Arc<Rows> {
        &self.rows
    }

    /// Returns what a listing can be compared with.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            rows: Arc::clone(&self.rows),
            key: self.key,
            set: self.set,
            generation: self.generation,
        }
    }

    /// Restores the rows of a snapshot.
    pub(super) fn restore(&mut self, rows: Vec<Row>, now: Millis) {
        self.health = Health::Stale;
        let rows = rows.into_iter().map(|row| self.with_credibility(row, now));
        self.rows = Arc::new(rows.map(|row| (row.id().clone(), row)).collect());
        self.set = None;
        self.generation += 1;
    }

    /// Records a failed listing. Returns true if the health is of another kind now.
    pub(super) fn fail(
        &mut self,
        kind: &'static str,
        reason: &str,
        next_try: Option<Millis>,
        now: Moment,
    ) -> bool {
        // A listing before the failure does not confirm one after it.
        self.gone_since = None;
        self.health.fail(kind, reason, next_try, now.wall)
    }

    /// Merges a complete listing.
    pub(super) fn merge(
        &mut self,
        listing: SourceListing,
        now: Moment,
    ) -> (MergeResult, ChangedRows) {
        let health = match listing.database {
            DatabaseState::Young => {
                self.gone_since = None;
                return (self.young(), ChangedRows::new());
            }
            DatabaseState::Ready => Health::Ok,
            DatabaseState::Missing => Health::Missing,
            DatabaseState::Empty => Health::Empty,
        };
        if health != Health::Ok && !self.rows.is_empty() {
            let since = *self.gone_since.get_or_insert(now.monotonic);
            if now.monotonic.saturating_sub(since) < CONFIRM_DELAY {
                let merged = MergeResult {
                    recheck: Some(Recheck::Unconfirmed),
                    ..MergeResult::default()
                };
                return (merged, ChangedRows::new());
            }
        }
        let is_to_other_rows = |difference: &ListingDifference| {
            difference.generation != self.generation || health != Health::Ok
        };
        if listing.difference.as_ref().is_some_and(is_to_other_rows) {
            let merged = MergeResult {
                recheck: Some(Recheck::Unconfirmed),
                ..MergeResult::default()
            };
            return (merged, ChangedRows::new());
        }
        self.gone_since = None;
        let changed_rows = match listing.difference {
            None => self.replace_rows(listing.rows, now.wall),
            Some(difference) => self.apply(listing.rows, difference, now.wall),
        };
        let merged = MergeResult {
            has_new_health: self.set_health(health),
            ..MergeResult::default()
        };
        (merged, changed_rows)
    }

    /// Merges the listing of a database that is being created. It does not show which sessions
    /// exist, but it ends a failure.
    fn young(&mut self) -> MergeResult {
        let was_failing = matches!(self.health, Health::Failing(_));
        MergeResult {
            has_new_health: was_failing && self.set_health(self.not_listed()),
            recheck: Some(Recheck::Young),
            ..MergeResult::default()
        }
    }

    /// Sets the health. Returns true if it was another.
    fn set_health(&mut self, health: Health) -> bool {
        let has_changed = self.health != health;
        self.health = health;
        has_changed
    }

    /// Replaces the rows. Returns those that changed, with their earlier values.
    fn replace_rows(&mut self, listed: Vec<Row>, now: Millis) -> ChangedRows {
        let mut changed_rows = ChangedRows::new();
        let (mut new, mut kept) = (Vec::new(), 0);
        let mut ids = HashSet::with_capacity(listed.len());
        self.set = listed.iter().map(Row::line_hash).collect();
        for row in listed {
            let row = self.merged(row, now);
            let known = self.rows.get(row.id());
            ids.insert(row.id().clone());
            kept += usize::from(known.is_some());
            if known != Some(&row) {
                changed_rows.push((row.id().clone(), known.cloned()));
                new.push(row);
            } else if known.and_then(Row::line_hash) != row.line_hash() {
                new.push(row);
            }
        }
        let is_removed = |id: &SessionId| !ids.contains(id);
        if kept < self.rows.len() {
            let removed = self.rows.iter().filter(|(id, _)| is_removed(id));
            changed_rows.extend(removed.map(|(id, row)| (id.clone(), Some(row.clone()))));
        }
        if !changed_rows.is_empty() || !new.is_empty() {
            let rows = Arc::make_mut(&mut self.rows);
            rows.retain(|id, _| !is_removed(id));
            rows.extend(new.into_iter().map(|row| (row.id().clone(), row)));
            self.generation += 1;
        }
        changed_rows
    }

    /// Applies a difference. Returns the rows that changed, with their earlier values, as
    /// [`replace_rows`](Self::replace_rows) with all rows would.
    fn apply(
        &mut self,
        listed: Vec<Row>,
        ListingDifference { gone, set, .. }: ListingDifference,
        now: Millis,
    ) -> ChangedRows {
        let mut changed_rows = ChangedRows::new();
        let mut new: Vec<_> = listed
            .into_iter()
            .map(|row| self.merged(row, now))
            .collect();
        if matches!(self.place, Place::Remote(_)) {
            new.extend(self.rows_to_believe(&new, &gone, now));
        }
        for row in &new {
            let known = self.rows.get(row.id());
            if known != Some(row) {
                changed_rows.push((row.id().clone(), known.cloned()));
            }
        }
        let removed = gone.iter().filter_map(|id| self.rows.get_key_value(id));
        changed_rows.extend(removed.map(|(id, row)| (id.clone(), Some(row.clone()))));
        self.set = Some(set);
        if !new.is_empty() || !gone.is_empty() {
            let rows = Arc::make_mut(&mut self.rows);
            for id in &gone {
                rows.remove(id);
            }
            rows.extend(new.into_iter().map(|row| (row.id().clone(), row)));
            self.generation += 1;
        }
        changed_rows
    }

    /// Returns the rows that the listing left as they are, but whose credibility is another one
    /// now: the time of a row that was far ahead has come, or the clock was set back.
    fn rows_to_believe(&self, listed: &[Row], gone: &[SessionId], now: Millis) -> Vec<Row> {
        let rows = self.rows.values();
        let has_turned = |row: &&Row| {
            row.is_credible() != self.place.is_credible(row.updated(), now)
                && listed.iter().all(|other| other.id() != row.id())
                && !gone.contains(row.id())
        };
        rows.filter(has_turned)
            .map(|row| self.with_credibility(row.clone(), now))
            .collect()
    }

    /// Returns the row of a session as it is kept: with the last known mark, if the listing does
    /// not know it.
    fn merged(&self, mut row: Row, now: Millis) -> Row {
        if let Some(marked) = self.rows.get(row.id()).and_then(Row::marked) {
            row.set_mark(marked);
        }
        self.with_credibility(row, now)
    }

    /// Decides whether the time of a row that was read at `now` counts against the times of
    /// other sources.
    fn with_credibility(&self, mut row: Row, now: Millis) -> Row {
        row.set_credible(self.place.is_credible(row.updated(), now));
        row
    }
}
