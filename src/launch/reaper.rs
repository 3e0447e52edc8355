//! Children that were killed and do not die, because the kernel holds them (a
//! hanging network disk does that). One thread waits for all of them, and ends
//! with the last; nobody else ever does.

use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often the thread looks.
const PACE: Duration = Duration::from_millis(100);

/// Counts the children of one lister that do not die.
#[derive(Debug, Clone, Default)]
pub(super) struct StuckProcesses(Arc<AtomicUsize>);

impl StuckProcesses {
    /// How many there are now.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// The waiting children of the whole process.
#[derive(Debug)]
pub(super) struct Reaper {
    waiting: Vec<(Child, StuckProcesses)>,
    running: bool,
}

static REAPER: Mutex<Reaper> = Mutex::new(Reaper {
    waiting: Vec::new(),
    running: false,
});

impl Reaper {
    /// Waits for `child`, which has been killed, for as long as it takes.
    pub(super) fn reap_later(child: Child, stuck: StuckProcesses) {
        stuck.0.fetch_add(1, Ordering::AcqRel);
        let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
        reaper.waiting.push((child, stuck));
        if !reaper.running {
            // Without a thread now, the next child brings one.
            reaper.running = thread::Builder::new()
                .name("reaper".into())
                .spawn(Self::run)
                .is_ok();
        }
    }

    fn run() {
        loop {
            thread::sleep(PACE);
            let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
            reaper.waiting.retain_mut(|(child, stuck)| {
                let waiting = matches!(child.try_wait(), Ok(None));
                if !waiting {
                    stuck.0.fetch_sub(1, Ordering::AcqRel);
                }
                waiting
            });
            if reaper.waiting.is_empty() {
                reaper.running = false;
                return;
            }
        }
    }
}
