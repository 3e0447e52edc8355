//! Reads exactly the frames of the write-ahead log between two positions.
//!
//! A log consists of a header of 32 bytes and frames of 24 bytes and one page each
//! (<https://sqlite.org/fileformat2.html>, section 4.1). The salts in every frame
//! identify its generation, and a checksum runs over all frames of a generation (section
//! 4.2), which proves that the frames that were read are those that were committed. When
//! the whole log has been checkpointed, the next writer restarts it from the beginning,
//! with the first salt one higher (section 4.5). The frames after the new ones are still
//! those of the generation before.
//!
//! The checksum chain can have holes without damage: SQLite before 3.51 commits frames
//! whose salts and checksum are zero, after a spilled transaction wrote a page twice and
//! rolled back a savepoint (<https://sqlite.org/forum/forumpost/b490f726db>). Within the
//! generation of a snapshot such frames are read all the same: the published end proves
//! them valid as long as the log's header is that of the generation. The end of an
//! earlier generation is not published, so a hole there is a gap.
//!
//! This module opens no file and does not allocate per frame. It reads each frame once:
//! where the earlier generation ends is known only when it was read, so the caller learns
//! of each commit ([`Step`]). Any mismatch results in a [`LogGap`], never in a wrong frame.

use std::io;

pub use super::commit_count::CommitCount;
use super::frame::{
    FRAME_HEADER_BYTES, LOG_HEADER_BYTES, is_older_generation, is_same_page, read_u32,
};
pub use super::read_at::ReadAt;
use crate::store::{WalPosition, checksum};

/// How many bytes are read at a time, unless a frame is larger.
const PIECE_BYTES: usize = 256 << 10;

/// The requested frames are not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogGap {
    /// The reason.
    pub reason: &'static str,
    /// Whether the frames were overwritten while they were read. A read from another
    /// snapshot may succeed.
    pub is_transient: bool,
}

impl LogGap {
    /// The frames were overwritten while they were read.
    pub const OVERWRITTEN: Self = Self {
        reason: "the log was overwritten while it was read",
        is_transient: true,
    };

    /// Creates a gap that another read cannot close.
    #[must_use]
    pub const fn permanent(reason: &'static str) -> Self {
        Self {
            reason,
            is_transient: false,
        }
    }
}

/// One step of reading the log.
///
/// The end of an earlier generation is not published, so that only reading it shows where
/// it is: the frames after its last [`Commit`](Step::Commit) mean nothing. Its last
/// transaction may not be committed either: a commit whose sync failed is in the log but
/// was never published. The next transaction overwrites it, so only the last transaction
/// of a generation can be such a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A frame: its page number and its page image.
    Frame(u32, &'a [u8]),
    /// The frame before ends a transaction.
    Commit,
    /// The frames from here on are of the generation of the requested end. All of them
    /// are committed.
    CurrentGeneration,
}

/// The result of reading the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRead {
    /// The position up to which frames were read: the requested end, or an earlier
    /// position if `stop` ended the read.
    pub to: WalPosition,
    /// The number of frames read.
    pub frames: u64,
    /// Whether some frames had no checksum. Recovery after a crash ends the log before
    /// them. If the log is restarted then, this position is not a position of that log.
    pub is_past_hole: bool,
}

/// A write-ahead log.
#[derive(Debug)]
pub struct Log<'a, R: ?Sized> {
    file: &'a R,
    page_size: usize,
    /// How many commits were read.
    commits: u32,
    /// Whether a commit looked like a copy of the frame before it, so that it is unknown
    /// whether it is one.
    has_copies: bool,
    /// The last frame of the piece before, and a piece.
    buffer: Vec<u8>,
}

/// The rest of an earlier generation.
struct Earlier {
    read: LogRead,
    /// The number of frames up to which it was read.
    end_frames: u32,
    /// Why frames after these may be lost, if they may.
    gap: Option<LogGap>,
}

/// The end of a verified run of frames, and why it ended.
struct VerifiedRun {
    /// After the last frame that continues the checksum chain.
    end: WalPosition,
    /// After the last frame that ends a transaction.
    last_commit: WalPosition,
    reason: EndReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndReason {
    /// The requested end was reached.
    Reached,
    /// The caller stopped the read.
    Stopped,
    /// The next frame, with these salts, does not continue the checksum chain.
    ChainBroken([u32; 2]),
    /// The file ends before another complete frame.
    FileEnd,
}

impl<'a, R: ReadAt + ?Sized> Log<'a, R> {
    /// Creates a reader for the log of a database with this page size in bytes.
    pub fn new(file: &'a R, page_size: usize) -> Self {
        let frames = (PIECE_BYTES / (FRAME_HEADER_BYTES + page_size)).max(1);
        Self {
            file,
            page_size,
            commits: 0,
            has_copies: false,
            buffer: vec![0; (1 + frames) * (FRAME_HEADER_BYTES + page_size)],
        }
    }

    /// Passes every frame after `from`, up to `to`, to `each`. These frames are valid only
    /// if the result is not a gap. Each frame is read once. After each piece, `stop` is
    /// asked whether to end the read.
    ///
    /// `to` must be the end of a snapshot that is still held. `from` must be a position
    /// that was reached before, or the start of the generation of `to`. `count` is the
    /// number of commits between them, if it is known.
    ///
    /// # Errors
    ///
    /// Returns an error if reading fails.
    pub fn read(
        &mut self,
        count: Option<CommitCount>,
        from: WalPosition,
        to: WalPosition,
        mut each: impl FnMut(Step<'_>),
        stop: impl Fn() -> bool,
    ) -> io::Result<Result<LogRead, LogGap>> {
        (self.commits, self.has_copies) = (0, false);
        if from.salts == to.salts {
            each(Step::CurrentGeneration);
            return self.read_generation(from, to, each, stop);
        }
        let earlier = match self.read_earlier_generation(from, to, &mut each, &stop)? {
            Ok(earlier) if earlier.read.to.salts == from.salts => return Ok(Ok(earlier.read)),
            Ok(earlier) => earlier,
            Err(gap) => return Ok(Err(gap)),
        };
        let is_proof = |count: &CommitCount| count.is_certain(earlier.end_frames);
        let count = count.filter(is_proof);
        if let (Some(gap), None) = (earlier.gap, count) {
            return Ok(Err(gap));
        }
        each(Step::CurrentGeneration);
        let read = match self.read_generation(earlier.read.to, to, each, stop)? {
            Ok(read) => read,
            Err(gap) => return Ok(Err(gap)),
        };
        let is_all = read.to == to
            && !self.has_copies
            && count.is_some_and(|count| count.between == self.commits);
        Ok(match earlier.gap {
            Some(gap) if !is_all => Err(gap),
            _ => Ok(LogRead {
                frames: earlier.read.frames + read.frames,
                ..read
            }),
        })
    }

    /// Reads the frames after `from` of the generation before that of `to`, as far as they
    /// are there. The result ends at the start of the generation of `to`, or earlier if
    /// `stop` ended the read.
    fn read_earlier_generation(
        &mut self,
        from: WalPosition,
        to: WalPosition,
        each: impl FnMut(Step<'_>),
        stop: impl Fn() -> bool,
    ) -> io::Result<Result<Earlier, LogGap>> {
        let gap = |reason| Ok(Err(LogGap::permanent(reason)));
        if from.salts[0].wrapping_add(1) != to.salts[0] {
            return gap("the log was restarted more than once");
        }
        let lost = if from.frames == 0 {
            Some("the log was restarted before any of it was read")
        } else if to.frames >= from.frames {
            Some("the log was restarted and has grown past the last position")
        } else if !self.is_intact(from)? {
            Some("the log was restarted and overwritten")
        } else {
            None
        };
        let read = |to: WalPosition, end: WalPosition, lost: Option<&'static str>| Earlier {
            read: LogRead {
                to,
                frames: u64::from(end.frames - from.frames),
                is_past_hole: false,
            },
            end_frames: end.frames,
            gap: lost.map(LogGap::permanent),
        };
        if lost.is_some() {
            return Ok(Ok(read(to.start(), from, lost)));
        }
        let run = self.read_chain(from, u32::MAX, each, stop)?;
        // A writer overwrites the frame at `from` before any frame that was read here.
        if !self.is_intact(from)? {
            return Ok(Err(LogGap::OVERWRITTEN));
        }
        let (to, end, lost) = match run.reason {
            EndReason::ChainBroken(next) if is_older_generation(next, from.salts) => {
                (to.start(), run.last_commit, None)
            }
            EndReason::ChainBroken(_) => {
                return gap("the log was restarted after frames without a checksum");
            }
            EndReason::Stopped => (run.end, run.end, None),
            // The file may have been truncated there, with frames that were not read.
            EndReason::Reached | EndReason::FileEnd => (
                to.start(),
                run.last_commit,
                Some("the log was restarted and may have been truncated"),
            ),
        };
        Ok(Ok(read(to, end, lost)))
    }

    fn read_generation(
        &mut self,
        from: WalPosition,
        to: WalPosition,
        mut each: impl FnMut(Step<'_>),
        stop: impl Fn() -> bool,
    ) -> io::Result<Result<LogRead, LogGap>> {
        if from == to {
            return Ok(Ok(LogRead {
                to,
                frames: 0,
                is_past_hole: false,
            }));
        }
        if from.frames >= to.frames || from.big_endian != to.big_endian {
            return Ok(Err(LogGap::permanent("the log is a different one")));
        }
        let Some(resume) = self.resume_position(from)? else {
            return Ok(Err(LogGap::permanent(
                "the log no longer contains the last position",
            )));
        };
        let run = self.read_chain(resume, to.frames, &mut each, &stop)?;
        let read = |to: WalPosition, is_past_hole| LogRead {
            to,
            frames: u64::from(to.frames - from.frames),
            is_past_hole,
        };
        Ok(match run.reason {
            EndReason::Reached if run.end == to => Ok(read(to, false)),
            EndReason::Stopped => Ok(read(run.end, false)),
            EndReason::ChainBroken([0, 0]) => {
                match self.read_past_holes(run.end, to, each, stop)? {
                    Some(reached) => Ok(read(reached, true)),
                    None => Err(LogGap::OVERWRITTEN),
                }
            }
            _ => Err(LogGap::OVERWRITTEN),
        })
    }

    /// Reads up to a published end past frames without a checksum, or up to an earlier
    /// frame with a checksum if `stop` returns true. Returns `None` if the log was
    /// restarted during the read. A writer that restarts the log writes the header first,
    /// so an unchanged header proves all frames before it.
    fn read_past_holes(
        &mut self,
        from: WalPosition,
        to: WalPosition,
        mut each: impl FnMut(Step<'_>),
        stop: impl Fn() -> bool,
    ) -> io::Result<Option<WalPosition>> {
        let frame_bytes = FRAME_HEADER_BYTES + self.page_size;
        let mut at = from;
        let mut last_with_checksum = None;
        let mut ends_in_hole = false;
        while at.frames < to.frames {
            let wanted = (to.frames - at.frames).min(self.frames_per_piece());
            let offset = self.frame_offset(at.frames);
            let piece = &mut self.buffer[..wanted as usize * frame_bytes];
            if self.file.read_at(piece, offset)? < piece.len() {
                return Ok(None);
            }
            for frame in piece.chunks_exact(frame_bytes) {
                let (header, image) = frame.split_at(FRAME_HEADER_BYTES);
                let salts = [read_u32(header, 8), read_u32(header, 12)];
                if salts != to.salts && salts != [0, 0] {
                    return Ok(None);
                }
                each(Step::Frame(read_u32(header, 0), image));
                at.frames += 1;
                ends_in_hole = salts != to.salts;
                if !ends_in_hole {
                    at.checksum = [read_u32(header, 16), read_u32(header, 20)];
                    last_with_checksum = Some(at);
                }
            }
            if stop()
                && let Some(position) = last_with_checksum
                && position.frames < to.frames
            {
                at = position;
                break;
            }
        }
        if at.frames == to.frames {
            // The frames after the last one continue from the published checksum.
            if !ends_in_hole && at != to {
                return Ok(None);
            }
            at = to;
        }
        Ok(self.has_header_of(to)?.then_some(at))
    }

    fn frames_per_piece(&self) -> u32 {
        u32::try_from(self.buffer.len() / (FRAME_HEADER_BYTES + self.page_size) - 1).unwrap_or(1)
    }

    /// Returns the position with the checksum to continue from, or `None` if the log does
    /// not contain the position.
    fn resume_position(&self, position: WalPosition) -> io::Result<Option<WalPosition>> {
        if position.frames > 0 {
            let is_in_log = self.is_intact(position)?
                || self.is_hole(position)? && self.has_header_of(position)?;
            return Ok(is_in_log.then_some(position));
        }
        Ok(self.header_checksum(position)?.map(|checksum| WalPosition {
            checksum,
            ..position
        }))
    }

    /// Returns true if the header of the log is of the generation of this position.
    fn has_header_of(&self, position: WalPosition) -> io::Result<bool> {
        Ok(self.header_checksum(position)?.is_some())
    }

    /// Returns the checksum of the log header, if the header is of the generation of this
    /// position.
    fn header_checksum(&self, position: WalPosition) -> io::Result<Option<[u32; 2]>> {
        let mut header = [0; LOG_HEADER_BYTES];
        if self.file.read_at(&mut header, 0)? < LOG_HEADER_BYTES {
            return Ok(None);
        }
        let magic = 0x377f_0682 | u32::from(position.big_endian);
        let page_size = u32::try_from(self.page_size).unwrap_or(0);
        let checksum = checksum(position.big_endian, [0; 2], &header[..24]);
        let is_valid = read_u32(&header, 0) == magic
            && read_u32(&header, 4) == 3_007_000
            && read_u32(&header, 8) == page_size
            && [read_u32(&header, 16), read_u32(&header, 20)] == position.salts
            && [read_u32(&header, 24), read_u32(&header, 28)] == checksum;
        Ok(is_valid.then_some(checksum))
    }

    /// Returns true if the frame before this position has neither salts nor a checksum.
    fn is_hole(&self, position: WalPosition) -> io::Result<bool> {
        let mut header = [1; FRAME_HEADER_BYTES];
        let read_bytes = self
            .file
            .read_at(&mut header, self.frame_offset(position.frames - 1))?;
        Ok(read_bytes == FRAME_HEADER_BYTES && header[8..] == [0; 16])
    }

    /// Returns true if the frame before this position is unchanged.
    fn is_intact(&self, position: WalPosition) -> io::Result<bool> {
        let mut header = [0; FRAME_HEADER_BYTES];
        let at = self.frame_offset(position.frames - 1);
        let read_bytes = self.file.read_at(&mut header, at)?;
        Ok(read_bytes == FRAME_HEADER_BYTES
            && [read_u32(&header, 8), read_u32(&header, 12)] == position.salts
            && [read_u32(&header, 16), read_u32(&header, 20)] == position.checksum)
    }

    fn frame_offset(&self, frames: u32) -> u64 {
        (LOG_HEADER_BYTES as u64) + u64::from(frames) * (FRAME_HEADER_BYTES + self.page_size) as u64
    }

    /// Reads frames that continue the checksum chain, from a position up to `end_frames`
    /// frames in all.
    fn read_chain(
        &mut self,
        from: WalPosition,
        end_frames: u32,
        mut each: impl FnMut(Step<'_>),
        stop: impl Fn() -> bool,
    ) -> io::Result<VerifiedRun> {
        let frame_bytes = FRAME_HEADER_BYTES + self.page_size;
        let (mut end, mut last_commit) = (from, from);
        let reason = 'run: loop {
            if end.frames >= end_frames {
                break EndReason::Reached;
            }
            let wanted = (end_frames - end.frames).min(self.frames_per_piece());
            let at = self.frame_offset(end.frames);
            let piece = &mut self.buffer[frame_bytes..][..wanted as usize * frame_bytes];
            let piece_bytes = piece.len();
            let read_bytes = self.file.read_at(piece, at)?;
            let frames = self.buffer[..frame_bytes + read_bytes].chunks_exact(frame_bytes);
            for (frame, before) in frames.clone().skip(1).zip(frames) {
                let (header, image) = frame.split_at(FRAME_HEADER_BYTES);
                let salts = [read_u32(header, 8), read_u32(header, 12)];
                if salts != end.salts {
                    break 'run EndReason::ChainBroken(salts);
                }
                let sum = checksum(end.big_endian, end.checksum, &header[..8]);
                let sum = checksum(end.big_endian, sum, image);
                if [read_u32(header, 16), read_u32(header, 20)] != sum {
                    break 'run EndReason::ChainBroken(salts);
                }
                each(Step::Frame(read_u32(header, 0), image));
                let follows_commit = last_commit == end && end.frames > from.frames;
                end.frames += 1;
                end.checksum = sum;
                if read_u32(header, 4) != 0 {
                    last_commit = end;
                    // A commit that is padded to a sector repeats its last frame. The
                    // copy is not a transaction of its own.
                    if follows_commit && is_same_page(before, frame) {
                        self.has_copies = true;
                    } else {
                        self.commits += 1;
                        each(Step::Commit);
                    }
                }
            }
            if read_bytes < piece_bytes {
                break EndReason::FileEnd;
            }
            self.buffer
                .copy_within(piece_bytes..piece_bytes + frame_bytes, 0);
            if stop() && end.frames < end_frames {
                break EndReason::Stopped;
            }
        };
        Ok(VerifiedRun {
            end,
            last_commit,
            reason,
        })
    }
}
