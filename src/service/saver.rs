//! Keeping the index on disk: at most every few seconds, on a thread of its own, since
//! a disk may be slow. A snapshot that cannot be written is said once, and tried again.

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

/// The snapshot is written at most this often.
const SAVE: Duration = Duration::from_secs(5);

/// When a snapshot that could not be written is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(60);

/// The thread that writes snapshots, and what it has to do.
pub(super) struct Saver {
    /// Holds the lock until the last snapshot is written.
    _state: StateDir,
    to: Sender<Snapshot>,
    /// The [`Index::changes`] that were last handed over; nothing where that failed.
    saved: Option<u64>,
    /// How many are being written.
    writing: usize,
    not_before: Duration,
    failing: bool,
}

impl Saver {
    /// Starts the thread. `done` gets the result of each snapshot.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread cannot be spawned.
    pub(super) fn start(
        state: StateDir,
        changes: u64,
        done: impl Fn(Result<(), String>) + Send + 'static,
    ) -> io::Result<Self> {
        let (to, from) = mpsc::channel::<Snapshot>();
        let path: PathBuf = state.snapshot();
        thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || {
                for snapshot in from {
                    let saved = files::save_written(&path, |file| snapshot.write(file));
                    done(saved.map_err(|error| error.to_string()));
                }
            })?;
        Ok(Self {
            _state: state,
            to,
            saved: Some(changes),
            writing: 0,
            not_before: Duration::ZERO,
            failing: false,
        })
    }

    /// When something is to be saved, if anything is.
    pub(super) fn due(&self, changes: u64) -> Option<Duration> {
        (self.writing == 0 && self.saved != Some(changes)).then_some(self.not_before)
    }

    /// Hands over what is known now.
    pub(super) fn save(&mut self, index: &Index, marker: Option<&MarkerText>, now: Duration) {
        self.not_before = now + SAVE;
        self.saved = Some(index.changes());
        self.writing += 1;
        let _ = self.to.send(Snapshot::of(index, marker));
    }

    /// What was handed over was written, or not.
    pub(super) fn done(&mut self, result: Result<(), String>, now: Duration) {
        self.writing = self.writing.saturating_sub(1);
        match result {
            Ok(()) => self.failing = false,
            Err(why) => {
                if !self.failing {
                    warn!(why = %one_line(&why), "the snapshot cannot be written; a restart will begin with what is there");
                }
                self.failing = true;
                self.saved = None;
                self.not_before = now + SAVE_AGAIN;
            }
        }
    }

    /// True where everything was handed over.
    pub(super) fn has_all(&self, changes: u64) -> bool {
        self.saved == Some(changes)
    }

    /// True while something is being written.
    pub(super) fn is_writing(&self) -> bool {
        self.writing > 0
    }
}

/// Puts the last snapshot into the index, or sets it aside.
pub(super) fn restore(index: &mut Index, state: &StateDir, marker: Option<&MarkerText>) {
    let path = state.snapshot();
    let unusable = match files::load(&path, codec::HEADER_BYTES + codec::MAX_BODY_BYTES) {
        Ok(None) => return,
        Ok(Some(bytes)) => match snapshot::restore(index, &bytes, marker, Millis::now()) {
            Ok(()) => return,
            Err(why) => why.to_string(),
        },
        Err(why) => why.to_string(),
    };
    let aside = files::set_aside(&path).is_ok();
    warn!(why = %one_line(&unusable), aside, "the snapshot is of no use; the first listings rebuild it");
}
