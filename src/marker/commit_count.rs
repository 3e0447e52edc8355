//! Whether frames of the log are missing, by the number of commits.

use crate::store::PublishedLog;

/// How many commits were made between two positions, according to the wal-index.
///
/// If the frames that were read have as many commits, no frame is missing, although the
/// log may have lost some: a restart overwrites the generation before, and
/// `journal_size_limit` cuts it off. But recovery sets the count to zero. Then it is
/// equal, too, if after the recovery exactly as many commits as `before` were made that
/// are lost. Each of them had a frame, so there can only be so many as the generation had
/// room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitCount {
    /// The number of commits at the first position, since the wal-index was built.
    pub before: u32,
    /// The number of commits between the two.
    pub between: u32,
    /// The maximum number of frames of a generation.
    pub max_frames: u64,
}

impl CommitCount {
    /// Returns the count between a position at which `before` was published and what is
    /// published now.
    pub(super) fn between(before: Option<u32>, now: Option<PublishedLog>) -> Option<Self> {
        let (before, now) = (before?, now?);
        Some(Self {
            before,
            between: now.commits.checked_sub(before)?,
            max_frames: now.max_frames,
        })
    }

    /// Returns true if the count shows what is missing after so many frames of a
    /// generation.
    pub(super) fn is_certain(self, frames: u32) -> bool {
        u64::from(self.before) > self.max_frames.saturating_sub(frames.into())
    }
}
