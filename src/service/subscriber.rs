//! The queue of events between the owner and one subscriber. A slow subscriber delays no other.
//!
//! Every queue is bounded in both directions. A subscriber that has [`MAX_EVENTS`] unread events
//! misses all further events. Once it has read those in the queue, it receives one fresh
//! snapshot instead of a backlog. A snapshot that it requests is not queued while another one is
//! unread. While a subscriber has [`UNANSWERED`] commands whose replies it has not read, no more
//! commands are taken from it. So at most that many commands and replies and [`MAX_EVENTS`]
//! events wait for one subscriber.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::protocol::Event;
use crate::index::View;

/// The most unread events of a subscriber.
const MAX_EVENTS: usize = 256;

/// The most commands of a subscriber whose replies it has not read.
pub const UNANSWERED: usize = 64;

/// Identifies a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SubscriberId(pub(super) u64);

/// What a subscriber's end of the queue reports to the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The subscriber missed events, has read those in the queue, and now needs a snapshot.
    CaughtUp,
    /// The subscriber was dropped.
    Gone,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    /// The subscriber missed events and needs a snapshot.
    is_behind: bool,
    is_closed: bool,
    /// Commands whose replies were not read.
    unanswered: usize,
    /// The writing end of the pipe that a host polls, if it does.
    wake: Option<PipeWriter>,
    /// A byte is in the pipe.
    is_awake: bool,
}

impl Queue {
    /// Writes a byte to the pipe if an event or the end waits. One byte never blocks.
    fn wake(&mut self) {
        let is_ready = !self.events.is_empty() || self.is_closed;
        if is_ready && !self.is_awake {
            self.is_awake = self
                .wake
                .as_mut()
                .is_some_and(|pipe| pipe.write_all(&[0]).is_ok());
        }
    }
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

    /// Wakes all waiting threads, since the queue has changed.
    fn notify(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.wake();
        drop(queue);
        self.changed.notify_all();
    }
}

/// The owner's end of a queue.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
    /// True for a connection, false for the host.
    pub(super) is_peer: bool,
    /// The sessions that the subscriber sees.
    pub(super) view: View,
}

/// Where replies to commands go; see [`Handle::command`](super::Handle::command).
#[derive(Debug, Clone)]
pub struct ReplyQueue {
    pub(super) id: SubscriberId,
    shared: Arc<Shared>,
}

impl ReplyQueue {
    /// Reserves room for the reply to one command, and waits for room if `waits`. Returns false
    /// if there is none.
    pub(super) fn take_room(&self, waits: bool) -> bool {
        let mut queue = self.shared.lock();
        while waits && queue.unanswered >= UNANSWERED && !queue.is_closed {
            queue = self
                .shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let has_room = queue.unanswered < UNANSWERED && !queue.is_closed;
        queue.unanswered += usize::from(has_room);
        has_room
    }
}

/// A subscription to the events of a service: an iterator that waits for the next event.
///
/// A host with its own event loop polls [`ready_fd`](Self::ready_fd) and takes events with
/// [`try_next`](Self::try_next).
pub struct Subscription {
    shared: Arc<Shared>,
    id: SubscriberId,
    report: Box<dyn Fn(Report) + Send>,
    ready: OnceLock<PipeReader>,
}

/// Returns the two ends of a new queue. `report` is called at the subscriber's end.
pub(super) fn queue(
    id: SubscriberId,
    is_peer: bool,
    report: impl Fn(Report) + Send + 'static,
) -> (Outbox, Subscription) {
    let shared = Arc::new(Shared::default());
    let outbox = Outbox {
        shared: Arc::clone(&shared),
        is_peer,
        view: View::default(),
    };
    let subscription = Subscription {
        shared,
        id,
        report: Box::new(report),
        ready: OnceLock::new(),
    };
    (outbox, subscription)
}

impl Outbox {
    /// Queues an event. Returns false if the subscriber is gone.
    pub(super) fn send(&self, event: &Arc<Event>) -> bool {
        let mut queue = self.shared.lock();
        if queue.is_closed {
            return false;
        }
        let has_room = match **event {
            // The replies are bounded, since the commands are.
            Event::Reply(_) | Event::Bye { .. } => true,
            _ => !queue.is_behind && queue.events.len() < MAX_EVENTS,
        };
        if has_room {
            queue.events.push_back(Arc::clone(event));
        } else {
            queue.is_behind = true;
        }
        self.shared.notify(queue);
        true
    }

    /// Queues the snapshot that a subscriber requested, unless the queue contains one already: the
    /// events after that one lead to the same state.
    pub(super) fn snapshot(&self, snapshot: &Arc<Event>) {
        let queue = self.shared.lock();
        let is_snapshot = |event: &Arc<Event>| matches!(**event, Event::Snapshot(_));
        let (is_behind, has_snapshot) = (queue.is_behind, queue.events.iter().any(is_snapshot));
        drop(queue);
        if is_behind {
            self.replace_events(snapshot);
        } else if !has_snapshot {
            self.send(snapshot);
        }
    }

    /// Changes the view of the subscriber, beginning with this snapshot.
    pub(super) fn set_view(&mut self, view: View, snapshot: &Arc<Event>) {
        self.view = view;
        self.replace_events(snapshot);
    }

    /// Queues a snapshot in place of the unread events, except the `hello` and replies.
    fn replace_events(&self, snapshot: &Arc<Event>) {
        let mut queue = self.shared.lock();
        queue
            .events
            .retain(|event| matches!(**event, Event::Hello(_) | Event::Reply(_)));
        queue.is_behind = false;
        drop(queue);
        self.send(snapshot);
    }

    /// Queues the snapshot for a subscriber that missed events.
    pub(super) fn catch_up(&self, snapshot: &Arc<Event>) {
        let mut queue = self.shared.lock();
        // It can be reported twice, before and after a reply was read.
        let is_owed = std::mem::take(&mut queue.is_behind);
        drop(queue);
        if is_owed {
            self.send(snapshot);
        }
    }

    /// Closes the queue. Its events can still be read.
    pub(super) fn close(&self) {
        let mut queue = self.shared.lock();
        queue.is_closed = true;
        self.shared.notify(queue);
    }

    /// Waits until all events are read, but not past `until`.
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
    /// Closes the queue, so that the subscriber does not wait forever.
    fn drop(&mut self) {
        self.close();
    }
}

impl Subscription {
    /// Waits for the next event; `None` if the service has ended, or no event comes within
    /// `patience`.
    pub fn next_within(&mut self, patience: impl Into<Option<Duration>>) -> Option<Arc<Event>> {
        // A deadline beyond the clock's range means no deadline.
        let until = patience
            .into()
            .and_then(|patience| Instant::now().checked_add(patience));
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            let queue = self.shared.lock();
            if !queue.events.is_empty() {
                continue;
            }
            if queue.is_closed {
                return None;
            }
            match until {
                None => drop(self.shared.changed.wait(queue)),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    drop(self.shared.changed.wait_timeout(queue, left));
                }
            }
        }
    }

    /// Returns the next event if one waits. Never blocks.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        let mut queue = self.shared.lock();
        let event = queue.events.pop_front()?;
        let is_empty = queue.events.is_empty();
        let needs_snapshot = queue.is_behind && is_empty;
        if let Event::Reply(_) = *event {
            queue.unanswered = queue.unanswered.saturating_sub(1);
        }
        if is_empty && !queue.is_closed && queue.is_awake {
            // The pipe contains a byte, so this does not block.
            let taken = self.ready.get().map(|mut pipe| pipe.read_exact(&mut [0]));
            queue.is_awake = !matches!(taken, Some(Ok(())));
        }
        drop(queue);
        self.shared.changed.notify_all();
        if needs_snapshot {
            (self.report)(Report::CaughtUp);
        }
        Some(event)
    }

    /// Returns true if the subscription has ended and all its events were taken.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let queue = self.shared.lock();
        queue.is_closed && queue.events.is_empty()
    }

    /// Returns a descriptor that is readable while an event waits, and after the end. Poll it,
    /// but do not read it: [`try_next`](Self::try_next) does.
    ///
    /// # Errors
    ///
    /// Returns an error if the pipe cannot be created.
    pub fn ready_fd(&self) -> io::Result<BorrowedFd<'_>> {
        if self.ready.get().is_none() {
            let (reader, writer) = io::pipe()?;
            let mut queue = self.shared.lock();
            if self.ready.set(reader).is_ok() {
                queue.wake = Some(writer);
                queue.wake();
            }
        }
        let reader = self.ready.get().map(AsFd::as_fd);
        reader.ok_or_else(|| io::Error::other("the pipe was not created"))
    }

    /// Returns where the replies to commands of this subscription go; see
    /// [`Handle::command`](super::Handle::command).
    #[must_use]
    pub fn reply_to(&self) -> ReplyQueue {
        ReplyQueue {
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

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.is_closed = true;
        queue.events.clear();
        self.shared.notify(queue);
        (self.report)(Report::Gone);
    }
}
