//! The frames of the write-ahead log between two places, exactly.
//!
//! A log is a header of 32 bytes and frames of 24 bytes and one page each
//! (<https://sqlite.org/fileformat2.html>, section 4.1). Salts in every frame tell
//! generations apart, and a checksum runs over all frames of a generation
//! (section 4.2), so that what was read can be proven to be what was committed.
//! When all of the log is in the database, the next writer begins again at the
//! front, with the first salt one higher (section 4.5): the frames behind the new
//! ones are still those of the generation before.
//!
//! The chain of checksums can have holes that are no damage: SQLite before 3.51 commits
//! frames whose salts and checksum are zero, after a spilled transaction wrote a page
//! twice and rolled a savepoint back (<https://sqlite.org/forum/forumpost/b490f726db>).
//! Within the generation of a snapshot such frames are read all the same, since the
//! published end vouches for them as long as the log's header is that of the generation.
//! Where a generation before ends nobody says, so there a hole is a gap.
//!
//! Nothing here opens a file or allocates for a frame. Whatever does not fit is
//! [`LogGap`], never a wrong frame.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::frame::{FRAME, HEADER, is_older, same_page, word};
use crate::store::{WalPosition, checksum};

/// Something to be read at offsets.
pub trait ReadAt {
    /// Reads as much as there is at `at` into `buffer`, up to its length.
    ///
    /// # Errors
    ///
    /// Where reading fails. The end is none: it reads less, or nothing.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut got = 0;
        while got < buffer.len() {
            match FileExt::read_at(self, &mut buffer[got..], at + got as u64) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(got)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// How much is read at a time, in bytes, where a frame is not larger.
const PIECE: usize = 256 << 10;

/// The frames that are wanted cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogGap {
    /// Why.
    pub why: &'static str,
    /// It happened while they were read: from another snapshot they may be had.
    pub meanwhile: bool,
}

impl LogGap {
    /// Written over while they were read.
    pub const MEANWHILE: Self = Self {
        why: "the log was written over while it was read",
        meanwhile: true,
    };

    /// They are gone, for this reason.
    #[must_use]
    pub const fn for_good(why: &'static str) -> Self {
        Self {
            why,
            meanwhile: false,
        }
    }
}

/// Which part of what was asked for a frame belongs to.
///
/// Each is of whole transactions, and of committed ones, but for [`Part::Last`]: a
/// commit whose sync failed is in the log, and was never published. What comes
/// next is written over it, so only the last one of a generation can be that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The rest of the generation before the last restart, but its last
    /// transaction.
    Old,
    /// The last transaction of that generation, which may not be one.
    Last,
    /// The generation that the wanted end is in.
    New,
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRead {
    /// How far: the wanted end, or an earlier place where time was up.
    pub to: WalPosition,
    /// How many frames.
    pub frames: u64,
    /// Some of them had no checksum. Recovery after a crash ends the log before them, so
    /// that this position is one of another log if the log is restarted then.
    pub past_a_hole: bool,
}

/// A log.
#[derive(Debug)]
pub struct Log<'a, R: ?Sized> {
    file: &'a R,
    page_size: usize,
    buffer: Vec<u8>,
}

/// Where a walk along the checksums ended, and why.
struct Walk {
    /// After the last frame that fits.
    to: WalPosition,
    /// After the last frame that ends a transaction.
    committed: WalPosition,
    /// After the one before that, or where the walk began.
    before: WalPosition,
    why: GapReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GapReason {
    /// As far as was asked.
    Reached,
    /// Time is up.
    Stopped,
    /// The next frame does not go on with the checksums; these are its salts.
    Broken([u32; 2]),
    /// The file ends before another whole frame.
    FileEnds,
}

impl<'a, R: ReadAt + ?Sized> Log<'a, R> {
    /// The log of a database with pages of this size.
    pub fn new(file: &'a R, page_size: usize) -> Self {
        let frames = (PIECE / (FRAME + page_size)).max(1);
        Self {
            file,
            page_size,
            buffer: vec![0; frames * (FRAME + page_size)],
        }
    }

    /// Hands every frame after `from`, up to `to`, to `each`: in which part it is,
    /// its page's number and image. What `each` was given counts only where this
    /// does not end as lost. After each piece `stop` is asked whether to go on.
    ///
    /// `to` must be the end of a snapshot that is held, `from` a place that was
    /// reached before, or the start of the generation of `to`.
    ///
    /// # Errors
    ///
    /// Where reading fails.
    pub fn read(
        &mut self,
        from: WalPosition,
        to: WalPosition,
        mut each: impl FnMut(Part, u32, &[u8]),
        stop: impl Fn() -> bool,
    ) -> io::Result<Result<LogRead, LogGap>> {
        if from.salts == to.salts {
            return self.same_generation(
                from,
                to,
                |page, image| each(Part::New, page, image),
                stop,
            );
        }
        if from.salts[0].wrapping_add(1) != to.salts[0] {
            return Ok(Err(LogGap::for_good(
                "the log was restarted more than once",
            )));
        }
        if from.frames == 0 {
            return Ok(Err(LogGap::for_good(
                "the log was restarted before any of it was read",
            )));
        }
        if to.frames >= from.frames {
            return Ok(Err(LogGap::for_good(
                "the log was restarted and has grown past the last place",
            )));
        }
        if !self.is_intact(from)? {
            return Ok(Err(LogGap::for_good(
                "the log was restarted and written over",
            )));
        }
        // Where the old generation ends nobody says, so it is found first.
        let old = self.walk(from, u32::MAX, |_, _| {}, || false)?;
        match old.why {
            GapReason::Broken(next) if is_older(next, from.salts) => {}
            GapReason::Broken(_) => {
                return Ok(Err(LogGap::for_good(
                    "the log was restarted, and has frames before that without a checksum",
                )));
            }
            // The file may have been cut off there, with frames that were not read.
            _ => {
                return Ok(Err(LogGap::for_good(
                    "the log was restarted and may have been truncated",
                )));
            }
        }
        let (before, end) = (old.before.frames, old.committed.frames);
        let mut at = from.frames;
        let in_its_part = |page, image: &[u8]| {
            let part = if at < before { Part::Old } else { Part::Last };
            at += 1;
            each(part, page, image);
        };
        let old = self.walk(from, end, in_its_part, &stop)?;
        // A writer writes over the frame at `from` before any that was read here.
        if !matches!(old.why, GapReason::Reached | GapReason::Stopped) || !self.is_intact(from)? {
            return Ok(Err(LogGap::MEANWHILE));
        }
        let frames = u64::from(old.to.frames - from.frames);
        if old.why == GapReason::Stopped {
            return Ok(Ok(LogRead {
                to: old.to,
                frames,
                past_a_hole: false,
            }));
        }
        let new = self.same_generation(
            to.start(),
            to,
            |page, image| each(Part::New, page, image),
            stop,
        )?;
        Ok(new.map(|new| LogRead {
            to: new.to,
            frames: frames + new.frames,
            ..new
        }))
    }

    fn same_generation(
        &mut self,
        from: WalPosition,
        to: WalPosition,
        mut each: impl FnMut(u32, &[u8]),
        stop: impl Fn() -> bool,
    ) -> io::Result<Result<LogRead, LogGap>> {
        if from == to {
            return Ok(Ok(LogRead {
                to,
                frames: 0,
                past_a_hole: false,
            }));
        }
        if from.frames >= to.frames || from.big_endian != to.big_endian {
            return Ok(Err(LogGap::for_good("the log is another one")));
        }
        let Some(seed) = self.seed(from)? else {
            return Ok(Err(LogGap::for_good("the log is not what it was")));
        };
        let walk = self.walk(seed, to.frames, &mut each, &stop)?;
        let read = |to: WalPosition, past_a_hole| LogRead {
            to,
            frames: u64::from(to.frames - from.frames),
            past_a_hole,
        };
        Ok(match walk.why {
            GapReason::Reached if walk.to == to => Ok(read(to, false)),
            GapReason::Stopped => Ok(read(walk.to, false)),
            GapReason::Broken([0, 0]) => match self.walk_on(walk.to, to, each, stop)? {
                Some(reached) => Ok(read(reached, true)),
                None => Err(LogGap::MEANWHILE),
            },
            _ => Err(LogGap::MEANWHILE),
        })
    }

    /// Reads on to a published end past frames without a checksum, or to an earlier
    /// frame that has one if `stop` says so. `None` if the log was restarted meanwhile: a
    /// writer then writes its header first, so that it vouches for all frames before.
    fn walk_on(
        &mut self,
        from: WalPosition,
        to: WalPosition,
        mut each: impl FnMut(u32, &[u8]),
        stop: impl Fn() -> bool,
    ) -> io::Result<Option<WalPosition>> {
        let size = FRAME + self.page_size;
        let mut at = from;
        let mut last_with_sum = None;
        let mut ends_in_a_hole = false;
        while at.frames < to.frames {
            let wanted = (to.frames - at.frames).min(self.frames_at_once());
            let offset = self.offset(at.frames);
            let piece = &mut self.buffer[..wanted as usize * size];
            if self.file.read_at(piece, offset)? < piece.len() {
                return Ok(None);
            }
            for frame in piece.chunks_exact(size) {
                let (header, image) = frame.split_at(FRAME);
                let salts = [word(header, 8), word(header, 12)];
                if salts != to.salts && salts != [0, 0] {
                    return Ok(None);
                }
                each(word(header, 0), image);
                at.frames += 1;
                ends_in_a_hole = salts != to.salts;
                if !ends_in_a_hole {
                    at.checksum = [word(header, 16), word(header, 20)];
                    last_with_sum = Some(at);
                }
            }
            if stop()
                && let Some(place) = last_with_sum
                && place.frames < to.frames
            {
                at = place;
                break;
            }
        }
        if at.frames == to.frames {
            // What follows the last frame goes on from the published checksum.
            if !ends_in_a_hole && at != to {
                return Ok(None);
            }
            at = to;
        }
        Ok(self.header_of(to)?.then_some(at))
    }

    fn frames_at_once(&self) -> u32 {
        u32::try_from(self.buffer.len() / (FRAME + self.page_size)).unwrap_or(1)
    }

    /// The place with the checksum to go on from; nothing where the log is not
    /// the one that it is a place in.
    fn seed(&self, place: WalPosition) -> io::Result<Option<WalPosition>> {
        if place.frames > 0 {
            let is_good =
                self.is_intact(place)? || self.is_hole(place)? && self.header_of(place)?;
            return Ok(is_good.then_some(place));
        }
        Ok(self
            .header(place)?
            .map(|checksum| WalPosition { checksum, ..place }))
    }

    /// True if the log's header is of the generation of this position.
    fn header_of(&self, place: WalPosition) -> io::Result<bool> {
        Ok(self.header(place)?.is_some())
    }

    /// The checksum of the log's header, if that is of the generation of this position.
    fn header(&self, place: WalPosition) -> io::Result<Option<[u32; 2]>> {
        let mut header = [0; HEADER];
        if self.file.read_at(&mut header, 0)? < HEADER {
            return Ok(None);
        }
        let magic = 0x377f_0682 | u32::from(place.big_endian);
        let page_size = u32::try_from(self.page_size).unwrap_or(0);
        let checksum = checksum(place.big_endian, [0; 2], &header[..24]);
        let fits = word(&header, 0) == magic
            && word(&header, 4) == 3_007_000
            && word(&header, 8) == page_size
            && [word(&header, 16), word(&header, 20)] == place.salts
            && [word(&header, 24), word(&header, 28)] == checksum;
        Ok(fits.then_some(checksum))
    }

    /// True if the frame at this place has neither salts nor a checksum.
    fn is_hole(&self, place: WalPosition) -> io::Result<bool> {
        let mut header = [1; FRAME];
        let got = self
            .file
            .read_at(&mut header, self.offset(place.frames - 1))?;
        Ok(got == FRAME && header[8..] == [0; 16])
    }

    /// True where the frame at this place is still the one that it was.
    fn is_intact(&self, place: WalPosition) -> io::Result<bool> {
        let mut header = [0; FRAME];
        let at = self.offset(place.frames - 1);
        let got = self.file.read_at(&mut header, at)?;
        Ok(got == FRAME
            && [word(&header, 8), word(&header, 12)] == place.salts
            && [word(&header, 16), word(&header, 20)] == place.checksum)
    }

    fn offset(&self, frames: u32) -> u64 {
        (HEADER as u64) + u64::from(frames) * (FRAME + self.page_size) as u64
    }

    /// Follows the checksums from a place, up to so many frames in all.
    fn walk(
        &mut self,
        from: WalPosition,
        until: u32,
        mut each: impl FnMut(u32, &[u8]),
        stop: impl Fn() -> bool,
    ) -> io::Result<Walk> {
        let size = FRAME + self.page_size;
        let (mut to, mut committed, mut before) = (from, from, from);
        let why = 'walk: loop {
            if to.frames >= until {
                break GapReason::Reached;
            }
            let wanted = (until - to.frames).min(self.frames_at_once());
            let at = self.offset(to.frames);
            let piece = &mut self.buffer[..wanted as usize * size];
            let got = self.file.read_at(piece, at)?;
            for (index, frame) in piece[..got].chunks_exact(size).enumerate() {
                let (header, image) = frame.split_at(FRAME);
                let salts = [word(header, 8), word(header, 12)];
                let sum = checksum(to.big_endian, to.checksum, &header[..8]);
                if salts != to.salts {
                    break 'walk GapReason::Broken(salts);
                }
                let sum = checksum(to.big_endian, sum, image);
                if [word(header, 16), word(header, 20)] != sum {
                    break 'walk GapReason::Broken(salts);
                }
                each(word(header, 0), image);
                let follows_a_commit = committed == to && to.frames > from.frames;
                to.frames += 1;
                to.checksum = sum;
                if word(header, 4) != 0 {
                    // A commit that is padded to a sector repeats its last frame, and
                    // that is no transaction of its own.
                    let repeats = follows_a_commit
                        && match index.checked_sub(1) {
                            Some(last) => same_page(&piece[last * size..][..size], frame),
                            None => {
                                let mut last = vec![0; size];
                                let offset = at - size as u64;
                                self.file.read_at(&mut last, offset)? == size
                                    && same_page(&last, frame)
                            }
                        };
                    if !repeats {
                        before = committed;
                    }
                    committed = to;
                }
            }
            if got < piece.len() {
                break GapReason::FileEnds;
            }
            if stop() && to.frames < until {
                break GapReason::Stopped;
            }
        };
        Ok(Walk {
            to,
            committed,
            before,
            why,
        })
    }
}
