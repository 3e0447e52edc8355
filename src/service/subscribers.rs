//! The subscribers of a service, and the snapshots that they share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::command::{CommandError, ErrorCode};
use super::protocol::{Event, Snapshot};
use super::status::SourceHealth;
use super::subscriber::{Outbox, SubscriberId};
use crate::index::{Index, View};

/// All subscribers.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    outboxes: BTreeMap<SubscriberId, Outbox>,
    /// The widest view that a subscriber can request, and the view of the host.
    widest: View,
    /// The snapshots that were built since the index changed.
    snapshots: BTreeMap<View, Arc<Event>>,
}

impl Subscribers {
    pub(super) fn with_view(widest: View) -> Self {
        Self {
            widest,
            ..Self::default()
        }
    }

    pub(super) fn count(&self) -> usize {
        self.outboxes.len()
    }

    /// Adds a subscriber, which receives a `hello`, then a `snapshot`.
    pub(super) fn add(
        &mut self,
        id: SubscriberId,
        mut outbox: Outbox,
        hello: Event,
        index: &Index,
    ) {
        if !outbox.is_peer {
            outbox.view = self.widest;
        }
        outbox.send(&Arc::new(hello));
        outbox.send(&self.snapshot(outbox.view, index));
        self.outboxes.insert(id, outbox);
    }

    /// Removes a subscriber. Its queue ends after the events that it contains.
    pub(super) fn remove(&mut self, id: SubscriberId) -> Option<Outbox> {
        self.outboxes.remove(&id)
    }

    /// Returns true if the subscriber is a connection, and not the host.
    pub(super) fn is_peer(&self, id: SubscriberId) -> bool {
        let outbox = self.outboxes.get(&id);
        outbox.is_some_and(|outbox| outbox.is_peer)
    }

    /// Sends an event to all subscribers.
    pub(super) fn broadcast(&mut self, event: Event) {
        let event = Arc::new(event);
        self.outboxes.retain(|_, outbox| outbox.send(&event));
    }

    /// Returns true if a subscriber has this view.
    pub(super) fn has_view(&self, view: View) -> bool {
        self.outboxes.values().any(|outbox| outbox.view == view)
    }

    /// Sends an event to the subscribers of this view.
    pub(super) fn send_to_view(&mut self, view: View, event: Event) {
        let event = Arc::new(event);
        self.outboxes
            .retain(|_, outbox| outbox.view != view || outbox.send(&event));
    }

    /// Sends an event to one subscriber.
    pub(super) fn send(&self, id: SubscriberId, event: Event) {
        if let Some(outbox) = self.outboxes.get(&id) {
            outbox.send(&Arc::new(event));
        }
    }

    /// Sends the snapshot that a subscriber requested.
    pub(super) fn send_snapshot(&mut self, id: SubscriberId, index: &Index) {
        self.with_snapshot(id, index, Outbox::snapshot);
    }

    /// Sends a snapshot to a subscriber that missed events.
    pub(super) fn catch_up(&mut self, id: SubscriberId, index: &Index) {
        self.with_snapshot(id, index, Outbox::catch_up);
    }

    fn with_snapshot(
        &mut self,
        id: SubscriberId,
        index: &Index,
        send: impl FnOnce(&Outbox, &Arc<Event>),
    ) {
        if let Some(view) = self.outboxes.get(&id).map(|outbox| outbox.view) {
            let snapshot = self.snapshot(view, index);
            if let Some(outbox) = self.outboxes.get(&id) {
                send(outbox, &snapshot);
            }
        }
    }

    /// Sends a snapshot to all subscribers, since the sources have changed.
    pub(super) fn send_snapshots(&mut self, index: &Index) {
        self.clear_snapshots();
        let views: BTreeSet<View> = self.outboxes.values().map(|outbox| outbox.view).collect();
        for view in views {
            let snapshot = self.snapshot(view, index);
            self.outboxes
                .retain(|_, outbox| outbox.view != view || outbox.send(&snapshot));
        }
    }

    /// Changes the view of a subscriber.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorCode::Invalid`] if the service does not list what the view shows.
    pub(super) fn set_view(
        &mut self,
        id: SubscriberId,
        view: View,
        index: &Index,
    ) -> Result<(), CommandError> {
        if !self.widest.includes(view) {
            let message = match view.children && !self.widest.children {
                true => "child sessions are not listed; start the service with --children",
                false => "archived sessions are not listed; start the service with --archived",
            };
            return Err(CommandError::new(ErrorCode::Invalid, message));
        }
        let snapshot = self.snapshot(view, index);
        if let Some(outbox) = self.outboxes.get_mut(&id) {
            outbox.set_view(view, &snapshot);
        }
        Ok(())
    }

    /// Drops the shared snapshots, since the index has changed or the service is idle.
    pub(super) fn clear_snapshots(&mut self) {
        self.snapshots.clear();
    }

    /// Returns the snapshot of a view. It is built once per state of the index.
    fn snapshot(&mut self, view: View, index: &Index) -> Arc<Event> {
        let build = || {
            Arc::new(Event::Snapshot(Snapshot {
                revision: index.revision_of(view),
                sources: index.sources().map(SourceHealth::of).collect(),
                sessions: index.sessions(view),
            }))
        };
        Arc::clone(self.snapshots.entry(view).or_insert_with(build))
    }

    /// Closes all queues, and waits until their events are read, but not past `until`.
    pub(super) fn drain(&self, until: Instant) {
        for outbox in self.outboxes.values() {
            outbox.close();
        }
        for outbox in self.outboxes.values() {
            outbox.drain(until);
        }
    }
}
