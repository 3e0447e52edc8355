//! Interrupts statements at a caller's deadline, or at the end of a budget that applies
//! to some statements only.
//!
//! SQLite calls the progress handler between instructions. So one long instruction
//! (`LIKE` on a cell of many megabytes, a read that the disk does not answer) is not
//! interrupted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The value of `budget_end_us` without a budget.
const NO_BUDGET: u64 = u64::MAX;

/// The state that the progress handler of one connection checks.
#[derive(Debug)]
pub(super) struct Interrupt {
    deadline: Option<Instant>,
    started: Instant,
    /// The end of the budget, in microseconds after `started`.
    budget_end_us: AtomicU64,
}

impl Interrupt {
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self {
            deadline,
            started: Instant::now(),
            budget_end_us: AtomicU64::new(NO_BUDGET),
        }
    }

    /// Returns true after the deadline or the end of the budget.
    pub(super) fn is_due(&self) -> bool {
        let budget = self.budget_end_us.load(Ordering::Relaxed);
        if budget == NO_BUDGET && self.deadline.is_none() {
            return false;
        }
        let now = Instant::now();
        self.deadline.is_some_and(|deadline| now >= deadline)
            || (budget != NO_BUDGET && self.micros_until(now) >= budget)
    }

    /// Runs `work` with a budget that ends at `deadline`.
    pub(super) fn run_until<T>(&self, deadline: Option<Instant>, work: impl FnOnce() -> T) -> T {
        let budget = deadline.map_or(NO_BUDGET, |deadline| self.micros_until(deadline));
        let before = self.budget_end_us.swap(budget, Ordering::Relaxed);
        let result = work();
        self.budget_end_us.store(before, Ordering::Relaxed);
        result
    }

    fn micros_until(&self, time: Instant) -> u64 {
        let micros = time.saturating_duration_since(self.started).as_micros();
        u64::try_from(micros).unwrap_or(NO_BUDGET - 1)
    }
}
