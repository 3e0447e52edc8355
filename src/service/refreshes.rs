//! The refreshes in flight. Each waits for one listing of every source that begins after the
//! request.

use std::collections::BTreeMap;

use super::protocol::Refreshed;
use super::reply_to::ReplyTo;

/// Identifies a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RefreshId(u64);

#[derive(Debug)]
struct Refresh {
    reply_to: ReplyTo,
    /// How many sources are still to be listed.
    left: usize,
    done: Vec<Refreshed>,
}

/// The refreshes in flight.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    next: u64,
    running: BTreeMap<RefreshId, Refresh>,
}

impl Refreshes {
    /// Begins a refresh of this many sources.
    pub(super) fn begin(&mut self, reply_to: ReplyTo, sources: usize) -> RefreshId {
        let id = RefreshId(self.next);
        self.next += 1;
        let refresh = Refresh {
            reply_to,
            left: sources,
            done: Vec::new(),
        };
        self.running.insert(id, refresh);
        id
    }

    /// Records the outcome of one source.
    pub(super) fn take(&mut self, id: RefreshId, one: Refreshed) {
        if let Some(refresh) = self.running.get_mut(&id) {
            refresh.done.push(one);
            refresh.left = refresh.left.saturating_sub(1);
        }
    }

    /// Removes and returns a refresh if all its sources were listed.
    pub(super) fn ended(&mut self, id: RefreshId) -> Option<(ReplyTo, Vec<Refreshed>)> {
        let is_ended = self.running.get(&id)?.left == 0;
        let refresh = is_ended.then(|| self.running.remove(&id)).flatten()?;
        Some((refresh.reply_to, refresh.done))
    }

    /// Returns true if the supervisor waits for a refresh.
    pub(super) fn are_for_supervisor(&self) -> bool {
        let mut refreshes = self.running.values();
        refreshes.any(|refresh| matches!(refresh.reply_to, ReplyTo::Supervisor))
    }
}
