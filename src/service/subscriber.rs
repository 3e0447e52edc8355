//! The readers of a service's events: a queue each, so that one who stops
//! reading holds up nobody.
//!
//! Every queue has a bound, in both directions. When the events that wait are too many,
//! the reader misses everything until it has read what is there; then it gets one fresh
//! snapshot, and goes on from that. Never do two snapshots wait. Of its commands a reader
//! may have [`UNANSWERED`] whose replies it has not read; then no more are taken from it,
//! so that what waits of one reader is at most so many commands, and at most [`EVENTS`]
//! events and so many replies.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Inbox;
use super::protocol::Event;
use crate::index::View;

/// Events that wait for a reader, at most.
const EVENTS: usize = 256;

/// Commands whose replies were not read, at most.
pub const UNANSWERED: usize = 64;

/// Tells readers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SubscriberId(pub(super) u64);

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    /// Something was left out; a snapshot is owed.
    behind: bool,
    closed: bool,
    /// Commands whose replies were not read.
    unanswered: usize,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner's end of a queue.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
    /// It is of a connection, not of the program that the service is a part of.
    pub(super) is_peer: bool,
    /// What the reader sees.
    pub(super) view: View,
}

/// Whom a reply goes to.
#[derive(Debug, Clone)]
pub struct ReplyTo {
    pub(super) id: SubscriberId,
    shared: Arc<Shared>,
}

impl ReplyTo {
    /// Takes room for the reply to one command, and waits for it if told to; false where
    /// there is none.
    pub(super) fn take_room(&self, waits: bool) -> bool {
        let mut queue = self.shared.lock();
        while waits && queue.unanswered >= UNANSWERED && !queue.closed {
            queue = self
                .shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let has_room = queue.unanswered < UNANSWERED && !queue.closed;
        queue.unanswered += usize::from(has_room);
        has_room
    }
}

/// Events as they come, for a host in Rust: an iterator that waits.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    id: SubscriberId,
    inbox: Inbox,
}

/// A queue's two ends.
pub(super) fn queue(id: SubscriberId, inbox: Inbox, is_peer: bool) -> (Outbox, Subscription) {
    let shared = Arc::new(Shared::default());
    let outbox = Outbox {
        shared: Arc::clone(&shared),
        is_peer,
        view: View::default(),
    };
    (outbox, Subscription { shared, id, inbox })
}

impl Outbox {
    /// Queues an event. False where the reader is gone.
    pub(super) fn send(&self, event: &Arc<Event>) -> bool {
        let mut queue = self.shared.lock();
        if queue.closed {
            return false;
        }
        let has_room = match **event {
            // As many as there were commands.
            Event::Reply(_) | Event::Bye { .. } => true,
            _ => !queue.behind && queue.events.len() < EVENTS,
        };
        if has_room {
            queue.events.push_back(Arc::clone(event));
        } else {
            queue.behind = true;
        }
        drop(queue);
        self.shared.changed.notify_all();
        true
    }

    /// Queues the snapshot that a reader asks for, unless one is there that it has not
    /// read: what follows that makes it the same.
    pub(super) fn snapshot(&self, snapshot: &Arc<Event>) {
        let queue = self.shared.lock();
        let is_snapshot = |event: &Arc<Event>| matches!(**event, Event::Snapshot(_));
        let (behind, waits) = (queue.behind, queue.events.iter().any(is_snapshot));
        drop(queue);
        if behind {
            self.begin_anew(snapshot);
        } else if !waits {
            self.send(snapshot);
        }
    }

    /// From now on the reader sees this, and this snapshot first.
    pub(super) fn set_view(&mut self, view: View, snapshot: &Arc<Event>) {
        self.view = view;
        self.begin_anew(snapshot);
    }

    /// Puts a snapshot in the place of what it makes void: all that was not read but who
    /// speaks, and what was asked for.
    fn begin_anew(&self, snapshot: &Arc<Event>) {
        let mut queue = self.shared.lock();
        queue
            .events
            .retain(|event| matches!(**event, Event::Hello(_) | Event::Reply(_)));
        queue.behind = false;
        drop(queue);
        self.send(snapshot);
    }

    /// Queues the snapshot that a reader is owed.
    pub(super) fn catch_up(&self, snapshot: &Arc<Event>) {
        self.shared.lock().behind = false;
        self.send(snapshot);
    }

    /// Ends the queue after what is in it.
    pub(super) fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }

    /// Waits until all was read, but not past `until`.
    pub(super) fn drain(&self, until: Instant) {
        let mut queue = self.shared.lock();
        while !queue.events.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = match self.shared.changed.wait_timeout(queue, left) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

impl Drop for Outbox {
    /// Whoever subscribes to a service that has ended does not wait for ever.
    fn drop(&mut self) {
        self.close();
    }
}

impl Subscription {
    /// The next event, or `None` when there is none within `patience`.
    pub fn next_within(&mut self, patience: impl Into<Option<Duration>>) -> Option<Arc<Event>> {
        // One that never comes is none.
        let until = patience
            .into()
            .and_then(|patience| Instant::now().checked_add(patience));
        let mut queue = self.shared.lock();
        loop {
            if let Some(event) = queue.events.pop_front() {
                let owed = queue.behind && queue.events.is_empty();
                if let Event::Reply(_) = *event {
                    queue.unanswered = queue.unanswered.saturating_sub(1);
                }
                drop(queue);
                self.shared.changed.notify_all();
                if owed {
                    self.inbox.caught_up(self.id);
                }
                return Some(event);
            }
            if queue.closed {
                return None;
            }
            queue = match until {
                None => self
                    .shared
                    .changed
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    match self.shared.changed.wait_timeout(queue, left) {
                        Ok((queue, _)) => queue,
                        Err(poisoned) => poisoned.into_inner().0,
                    }
                }
            };
        }
    }

    /// For [`Handle::command`](super::Handle::command).
    #[must_use]
    pub fn reply_to(&self) -> ReplyTo {
        ReplyTo {
            id: self.id,
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Iterator for Subscription {
    type Item = Arc<Event>;

    fn next(&mut self) -> Option<Arc<Event>> {
        self.next_within(None)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.lock().events.clear();
        self.shared.changed.notify_all();
        self.inbox.gone(self.id);
    }
}
