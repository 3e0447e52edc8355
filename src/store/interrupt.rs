//! When SQLite is to give up: at a caller's deadline, or at the end of a budget that
//! holds for some statements only.
//!
//! SQLite asks between its instructions, so that one long instruction (`LIKE` on a
//! cell of many megabytes, a read that the disk does not answer) goes on past it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// No budget.
const NEVER: u64 = u64::MAX;

/// What one connection's progress handler asks.
#[derive(Debug)]
pub(super) struct Interrupt {
    deadline: Option<Instant>,
    since: Instant,
    /// The budget's end, in microseconds after `since`.
    budget_us: AtomicU64,
}

impl Interrupt {
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self {
            deadline,
            since: Instant::now(),
            budget_us: AtomicU64::new(NEVER),
        }
    }

    /// True once the deadline or the budget is over.
    pub(super) fn is_due(&self) -> bool {
        let budget = self.budget_us.load(Ordering::Relaxed);
        if budget == NEVER && self.deadline.is_none() {
            return false;
        }
        let now = Instant::now();
        self.deadline.is_some_and(|deadline| now >= deadline)
            || (budget != NEVER && self.after(now) >= budget)
    }

    /// Does `work` with a budget until then.
    pub(super) fn during<T>(&self, until: Option<Instant>, work: impl FnOnce() -> T) -> T {
        let budget = until.map_or(NEVER, |until| self.after(until));
        let before = self.budget_us.swap(budget, Ordering::Relaxed);
        let done = work();
        self.budget_us.store(before, Ordering::Relaxed);
        done
    }

    fn after(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.since).as_micros();
        u64::try_from(after).unwrap_or(NEVER - 1)
    }
}
