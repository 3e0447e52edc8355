//! Reaps children that were killed but have not exited, because they are in an
//! uninterruptible system call (on a network disk that does not answer, for example). One
//! thread waits for all of them and ends with the last; no other thread waits for them.

use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often the thread tries to reap each child.
const INTERVAL: Duration = Duration::from_millis(100);

/// The number of killed children of one lister that have not exited. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct StuckProcesses(Arc<AtomicUsize>);

impl StuckProcesses {
    /// Returns the present number. If there are any, sees to it that they are waited for.
    pub(super) fn count(&self) -> usize {
        let count = self.0.load(Ordering::Acquire);
        if count > 0 {
            REAPER
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .ensure_running();
        }
        count
    }
}

/// The killed children of the whole process that have not exited.
#[derive(Debug)]
pub(super) struct Reaper {
    children: Vec<(Child, StuckProcesses)>,
    is_running: bool,
}

static REAPER: Mutex<Reaper> = Mutex::new(Reaper {
    children: Vec::new(),
    is_running: false,
});

impl Reaper {
    /// Waits for a killed `child` in the background, for as long as it takes.
    pub(super) fn reap_later(child: Child, stuck: StuckProcesses) {
        stuck.0.fetch_add(1, Ordering::AcqRel);
        let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
        reaper.children.push((child, stuck));
        reaper.ensure_running();
    }

    /// Spawns the thread. If that fails, the next call tries again: no child is forgotten, since
    /// its lister asks for the number before each listing.
    fn ensure_running(&mut self) {
        if !self.is_running && !self.children.is_empty() {
            self.is_running = thread::Builder::new()
                .name("reaper".into())
                .spawn(Self::run)
                .is_ok();
        }
    }

    fn run() {
        loop {
            thread::sleep(INTERVAL);
            let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
            reaper.children.retain_mut(|(child, stuck)| {
                let is_stuck = matches!(child.try_wait(), Ok(None));
                if !is_stuck {
                    stuck.0.fetch_sub(1, Ordering::AcqRel);
                }
                is_stuck
            });
            if reaper.children.is_empty() {
                reaper.is_running = false;
                return;
            }
        }
    }
}
