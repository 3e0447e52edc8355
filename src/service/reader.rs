//! The readers of a service's events: a queue each, so that one who stops
//! reading holds up nobody.
//!
//! A queue has a bound. When it is full, its reader misses everything until it
//! has read what is there; then it gets one fresh snapshot, and goes on from
//! that. Replies are kept a little longer, up to a bound of their own.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Inbox;
use super::event::Event;

/// Events that wait for a reader, at most.
const EVENTS: usize = 256;

/// Events and replies together, at most.
const REPLIES: usize = 1024;

/// Tells readers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ReaderId(pub(super) u64);

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    /// Something was left out; a snapshot is owed.
    behind: bool,
    closed: bool,
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
pub(super) struct Outbox(Arc<Shared>);

/// Events as they come, for a host in Rust: an iterator that waits.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    id: ReaderId,
    inbox: Inbox,
}

/// A queue's two ends.
pub(super) fn queue(id: ReaderId, inbox: Inbox) -> (Outbox, Subscription) {
    let shared = Arc::new(Shared::default());
    (
        Outbox(Arc::clone(&shared)),
        Subscription { shared, id, inbox },
    )
}

impl Outbox {
    /// Queues an event. False where the reader is gone.
    pub(super) fn send(&self, event: &Arc<Event>) -> bool {
        let mut queue = self.0.lock();
        if queue.closed {
            return false;
        }
        let room = match **event {
            Event::Reply(_) | Event::Bye { .. } => REPLIES,
            _ if queue.behind => 0,
            _ => EVENTS,
        };
        if queue.events.len() < room {
            queue.events.push_back(Arc::clone(event));
        } else {
            queue.behind = true;
        }
        drop(queue);
        self.0.changed.notify_all();
        true
    }

    /// Queues the snapshot that a reader is owed.
    pub(super) fn catch_up(&self, snapshot: &Arc<Event>) {
        self.0.lock().behind = false;
        self.send(snapshot);
    }

    /// Ends the queue after what is in it.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }

    /// Waits until all was read, but not past `until`.
    pub(super) fn drain(&self, until: Instant) {
        let mut queue = self.0.lock();
        while !queue.events.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = match self.0.changed.wait_timeout(queue, left) {
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
        let until = patience.into().map(|patience| Instant::now() + patience);
        let mut queue = self.shared.lock();
        loop {
            if let Some(event) = queue.events.pop_front() {
                let owed = queue.behind && queue.events.is_empty();
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

    /// Who reads.
    pub(super) fn id(&self) -> ReaderId {
        self.id
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
