//! The queue of events between the owner and one subscriber, so that a slow subscriber holds up
//! nobody.
//!
//! Every queue is bounded in both directions. If too many events wait, the subscriber misses all
//! further events until it has read those; then it receives one fresh snapshot and goes on from
//! there. Two snapshots never wait. A subscriber may have [`UNANSWERED`] commands whose replies
//! it has not read; then no more commands are taken from it. So at most that many commands,
//! [`EVENTS`] events and as many replies as commands wait for one subscriber.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::protocol::Event;
use crate::index::View;

/// The most events that wait for a subscriber.
const EVENTS: usize = 256;

/// The most commands whose replies were not read.
pub const UNANSWERED: usize = 64;

/// Tells subscribers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SubscriberId(pub(super) u64);

/// What the owner hears from a subscriber's end of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The subscriber has read all events, and is owed a snapshot.
    CaughtUp,
    /// The subscriber was dropped.
    Gone,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    /// Events were left out: a snapshot is owed.
    is_behind: bool,
    is_closed: bool,
    /// Commands whose replies were not read.
    unanswered: usize,
    /// The end of the pipe that a host polls, if it does.
    wake: Option<PipeWriter>,
    /// A byte is in the pipe.
    is_awake: bool,
}

impl Queue {
    /// Puts a byte into the pipe if there is something to read. One byte never blocks.
    fn wake(&mut self) {
        let has_something = !self.events.is_empty() || self.is_closed;
        if has_something && !self.is_awake {
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

    /// Tells everyone who waits that the queue has changed.
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
    /// What the subscriber sees.
    pub(super) view: View,
}

/// Where replies to commands go; see [`Handle::command`](super::Handle::command).
#[derive(Debug, Clone)]
pub struct ReplyQueue {
    pub(super) id: SubscriberId,
    shared: Arc<Shared>,
}

impl ReplyQueue {
    /// Takes room for the reply to one command, and waits for it if told to. Returns false if
    /// there is none.
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

/// Events as they come: an iterator that waits for the next one.
///
/// A host with a loop of its own polls [`ready_fd`](Self::ready_fd) and takes events by
/// [`try_next`](Self::try_next).
pub struct Subscription {
    shared: Arc<Shared>,
    id: SubscriberId,
    report: Box<dyn Fn(Report) + Send>,
    ready: OnceLock<PipeReader>,
}

/// Returns the two ends of a queue. `report` tells the owner what happens at this one.
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
            // There are as many replies as commands.
            Event::Reply(_) | Event::Bye { .. } => true,
            _ => !queue.is_behind && queue.events.len() < EVENTS,
        };
        if has_room {
            queue.events.push_back(Arc::clone(event));
        } else {
            queue.is_behind = true;
        }
        self.shared.notify(queue);
        true
    }

    /// Queues the snapshot that a subscriber asked for, unless one waits that it has not read:
    /// the events after that one lead to the same state.
    pub(super) fn snapshot(&self, snapshot: &Arc<Event>) {
        let queue = self.shared.lock();
        let is_snapshot = |event: &Arc<Event>| matches!(**event, Event::Snapshot(_));
        let (is_behind, waits) = (queue.is_behind, queue.events.iter().any(is_snapshot));
        drop(queue);
        if is_behind {
            self.begin_anew(snapshot);
        } else if !waits {
            self.send(snapshot);
        }
    }

    /// Changes what the subscriber sees, beginning with this snapshot.
    pub(super) fn set_view(&mut self, view: View, snapshot: &Arc<Event>) {
        self.view = view;
        self.begin_anew(snapshot);
    }

    /// Queues a snapshot in place of the events that it makes void: all unread ones but the
    /// `hello` and replies.
    fn begin_anew(&self, snapshot: &Arc<Event>) {
        let mut queue = self.shared.lock();
        queue
            .events
            .retain(|event| matches!(**event, Event::Hello(_) | Event::Reply(_)));
        queue.is_behind = false;
        drop(queue);
        self.send(snapshot);
    }

    /// Queues the snapshot that a subscriber is owed.
    pub(super) fn catch_up(&self, snapshot: &Arc<Event>) {
        self.shared.lock().is_behind = false;
        self.send(snapshot);
    }

    /// Ends the queue after what is in it.
    pub(super) fn close(&self) {
        let mut queue = self.shared.lock();
        queue.is_closed = true;
        self.shared.notify(queue);
    }

    /// Waits until all events were read, but not past `until`.
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
    /// A subscriber of a service that has ended does not wait for ever.
    fn drop(&mut self) {
        self.close();
    }
}

impl Subscription {
    /// Waits for the next event; `None` if the service has ended, or no event comes within
    /// `patience`.
    pub fn next_within(&mut self, patience: impl Into<Option<Duration>>) -> Option<Arc<Event>> {
        // A moment beyond the clock's range never comes.
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
        let is_owed = queue.is_behind && is_empty;
        if let Event::Reply(_) = *event {
            queue.unanswered = queue.unanswered.saturating_sub(1);
        }
        if is_empty && !queue.is_closed && queue.is_awake {
            // The byte is there, so this does not block.
            let taken = self.ready.get().map(|mut pipe| pipe.read_exact(&mut [0]));
            queue.is_awake = !matches!(taken, Some(Ok(())));
        }
        drop(queue);
        self.shared.changed.notify_all();
        if is_owed {
            (self.report)(Report::CaughtUp);
        }
        Some(event)
    }

    /// Returns true if the service has ended and all events were taken.
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
    /// Returns an error if the pipe cannot be made.
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
        reader.ok_or_else(|| io::Error::other("there is no pipe"))
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
