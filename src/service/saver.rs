//! Saves the index to disk, at most every few seconds and on its own thread, since the disk may
//! be slow. A failed write is logged once and retried.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use tracing::warn;

use super::state::StateDir;
use crate::codec;
use crate::files;
use crate::index::Index;
use crate::index::snapshot::{self, Snapshot};
use crate::marker_text::MarkerText;
use crate::session::Millis;
use crate::text::one_line;

/// The shortest time between two writes.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// The delay before a failed write is retried.
const RETRY_DELAY: Duration = Duration::from_secs(60);

/// The thread that writes snapshots, and the state of its writes.
pub(super) struct Saver {
    /// Keeps the lock until the last snapshot is written, or its time at the end is over.
    _state: StateDir,
    queue: Sender<Snapshot>,
    /// The [`Index::changes`] of the snapshot that was last queued; `None` if its write failed.
    queued_changes: Option<u64>,
    /// How many queued snapshots have not been written.
    pending: usize,
    not_before: Duration,
    is_failing: bool,
}

impl Saver {
    /// Spawns the thread. `done` receives the result of each write.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread cannot be spawned.
    pub(super) fn start(
        state: StateDir,
        changes: u64,
        done: impl Fn(Result<(), String>) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, snapshots) = mpsc::channel::<Snapshot>();
        let path: PathBuf = state.snapshot_path();
        thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || {
                let mut left_out = 0;
                for snapshot in snapshots {
                    let before = left_out;
                    let saved = files::save(&path, |file| {
                        left_out = snapshot.write(file)?;
                        Ok(())
                    });
                    if left_out > before {
                        warn!(
                            sources = left_out,
                            "sources too large for the snapshot; a restart begins without their \
                             sessions"
                        );
                    }
                    done(saved.map_err(|error| error.to_string()));
                }
            })?;
        Ok(Self {
            _state: state,
            queue,
            queued_changes: Some(changes),
            pending: 0,
            not_before: Duration::ZERO,
            is_failing: false,
        })
    }

    /// Returns when a snapshot is to be written, or `None` if none is.
    pub(super) fn due(&self, changes: u64) -> Option<Duration> {
        (self.pending == 0 && self.queued_changes != Some(changes)).then_some(self.not_before)
    }

    /// Queues a snapshot of the index.
    pub(super) fn save(&mut self, index: &Index, marker: Option<&MarkerText>, now: Duration) {
        self.not_before = now + SAVE_INTERVAL;
        self.queued_changes = Some(index.changes());
        self.pending += 1;
        let _ = self.queue.send(Snapshot::of(index, marker));
    }

    /// Records the result of a write.
    pub(super) fn done(&mut self, result: Result<(), String>, now: Duration) {
        self.pending = self.pending.saturating_sub(1);
        match result {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                if !self.is_failing {
                    warn!(error = %one_line(&error), "cannot write the snapshot; a restart would use the last one written");
                }
                self.is_failing = true;
                self.queued_changes = None;
                self.not_before = now + RETRY_DELAY;
            }
        }
    }

    /// Returns true if a snapshot with all changes was queued.
    pub(super) fn has_queued(&self, changes: u64) -> bool {
        self.queued_changes == Some(changes)
    }

    /// Returns true while a snapshot is being written.
    pub(super) fn is_writing(&self) -> bool {
        self.pending > 0
    }
}

/// Restores the last snapshot into the index. If that fails, renames the file, so that it is
/// not overwritten, and leaves the index empty.
pub(super) fn restore(index: &mut Index, state: &StateDir, marker: Option<&MarkerText>) {
    let path = state.snapshot_path();
    let error = match files::load(&path, codec::HEADER_BYTES + codec::MAX_BODY_BYTES) {
        Ok(None) => return,
        Ok(Some(bytes)) => match snapshot::restore(index, &bytes, marker, Millis::now()) {
            Ok(()) => return,
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    let message = match files::set_aside(&path) {
        Ok(_) => "ignoring unreadable snapshot (moved to index.set-aside)",
        Err(_) => "ignoring unreadable snapshot (it cannot be moved aside)",
    };
    warn!(error = %one_line(&error), "{message}");
}
