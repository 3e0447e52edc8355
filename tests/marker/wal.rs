//! Reading the write-ahead log: against logs that SQLite wrote.

use std::cell::Cell;
use std::{fs, io};

use opencode_sessions::internals::marker::wal::{CommitCount, Log, LogGap, LogRead, ReadAt, Step};
use opencode_sessions::internals::store::WalPosition;
use rusqlite::Connection;

use crate::support;

const HEADER: usize = 32;

/// A log as SQLite wrote it, and where each of its frames begins.
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    page_size: usize,
}

/// What a frame is part of: the generation before a restart, except its last transaction,
/// that one, or the generation of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Old,
    Last,
    New,
}

/// The frames of a read, each with its part, put together as a caller does.
#[derive(Default)]
struct Frames {
    settled: Vec<(Part, u32, Vec<u8>)>,
    last: Vec<(Part, u32, Vec<u8>)>,
    open: Vec<(Part, u32, Vec<u8>)>,
    is_current: bool,
}

impl Frames {
    fn add(&mut self, step: Step<'_>) {
        match step {
            Step::Frame(page, image) if self.is_current => {
                self.settled.push((Part::New, page, image.to_vec()));
            }
            Step::Frame(page, image) => self.open.push((Part::Last, page, image.to_vec())),
            Step::Commit if self.is_current => {}
            Step::Commit => {
                let old = self
                    .last
                    .drain(..)
                    .map(|(_, page, image)| (Part::Old, page, image));
                self.settled.extend(old);
                std::mem::swap(&mut self.last, &mut self.open);
            }
            Step::CurrentGeneration => {
                self.settled.append(&mut self.last);
                self.open.clear();
                self.is_current = true;
            }
        }
    }
}

impl Written {
    pub(crate) fn of(bytes: Vec<u8>, page_size: usize) -> Self {
        Self { bytes, page_size }
    }

    fn frame(&self, number: usize) -> &[u8] {
        let size = 24 + self.page_size;
        &self.bytes[HEADER + (number - 1) * size..][..size]
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// The place after so many frames, of whatever generation is there.
    pub(crate) fn place(&self, frames: usize) -> WalPosition {
        let big_endian = self.bytes[3] & 1 == 1;
        if frames == 0 {
            let salts = [16, 20].map(|at| Self::word(&self.bytes, at));
            return WalPosition {
                salts,
                frames: 0,
                checksum: [0; 2],
                big_endian,
            };
        }
        let frame = self.frame(frames);
        WalPosition {
            salts: [8, 12].map(|at| Self::word(frame, at)),
            frames: u32::try_from(frames).unwrap(),
            checksum: [16, 20].map(|at| Self::word(frame, at)),
            big_endian,
        }
    }

    pub(crate) fn frames(&self) -> usize {
        (self.bytes.len() - HEADER) / (24 + self.page_size)
    }

    /// How many frames from the front are of the generation that the header is of.
    pub(crate) fn newest(&self) -> usize {
        let salts = self.place(0).salts;
        let same = |number: &usize| self.place(*number).salts == salts;
        (1..=self.frames()).take_while(same).count()
    }

    fn is_commit(&self, number: usize) -> bool {
        Self::word(self.frame(number), 4) != 0
    }

    fn read(
        &self,
        from: WalPosition,
        to: WalPosition,
    ) -> Result<Vec<(Part, u32, Vec<u8>)>, LogGap> {
        self.read_counted(None, from, to)
    }

    fn read_counted(
        &self,
        count: Option<CommitCount>,
        from: WalPosition,
        to: WalPosition,
    ) -> Result<Vec<(Part, u32, Vec<u8>)>, LogGap> {
        let mut all = Frames::default();
        let mut log = Log::new(&self.bytes[..], self.page_size);
        let read = log
            .read(count, from, to, |step| all.add(step), || false)
            .unwrap()?;
        let all = all.settled;
        assert_eq!(
            read,
            LogRead {
                to,
                frames: all.len() as u64,
                is_past_hole: false,
            }
        );
        Ok(all)
    }

    fn expected(&self, part: Part, numbers: std::ops::Range<usize>) -> Vec<(Part, u32, Vec<u8>)> {
        let frames = numbers.map(|number| self.frame(number));
        frames
            .map(|frame| (part, Self::word(frame, 0), frame[24..].to_vec()))
            .collect()
    }
}

/// What the statements leave in the log.
fn written(page_size: usize, statements: &[&str]) -> Written {
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("x.db");
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA page_size = {page_size}; PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;
         CREATE TABLE t (x); PRAGMA cache_size = 2; PRAGMA cache_spill = 1"
    ))
    .unwrap();
    for statement in statements {
        conn.execute_batch(statement).unwrap();
    }
    let bytes = fs::read(directory.path().join("x.db-wal")).unwrap();
    Written { bytes, page_size }
}

const INSERT: &str = "INSERT INTO t VALUES (randomblob(3000)), (randomblob(100))";

const RESTART: &str = "PRAGMA wal_checkpoint(RESTART)";

#[test]
fn every_frame_between_two_commits_is_read_once() {
    let _limit = support::limit(60);
    for page_size in [512, 1024, 4096, 65536] {
        let log = written(page_size, &[INSERT; 6]);
        let commits: Vec<_> = (1..=log.frames())
            .filter(|number| log.is_commit(*number))
            .collect();
        assert!(commits.len() >= 7);
        for (at, from) in [0].iter().chain(&commits).enumerate() {
            for to in &commits[at..] {
                let read = log.read(log.place(*from), log.place(*to)).unwrap();
                assert!(
                    read == log.expected(Part::New, from + 1..to + 1),
                    "{page_size}: {from} to {to}"
                );
            }
        }
        let last = log.place(*commits.last().unwrap());
        assert!(log.read(last, last).unwrap().is_empty());
    }
}

#[test]
fn log_changed_at_any_byte_is_a_gap() {
    let _limit = support::limit(120);
    let log = written(512, &[INSERT; 2]);
    let (from, to) = (log.place(0), log.place(log.frames()));
    assert!(log.read(from, to).is_ok());
    for at in (0..log.bytes.len()).filter(|at| at % 7 == 0 || at % 536 < 70) {
        let mut damaged = Written {
            bytes: log.bytes.clone(),
            page_size: 512,
        };
        damaged.bytes[at] ^= 0x10;
        assert!(damaged.read(from, to).is_err(), "byte {at}");
    }
    for length in [0, 31, 32, 500, log.bytes.len() - 1] {
        let cut = Written {
            bytes: log.bytes[..length].to_vec(),
            page_size: 512,
        };
        assert!(cut.read(from, to).is_err(), "{length} bytes");
    }
    // What was added since does not matter.
    let longer = Written {
        bytes: [&log.bytes[..], &[0; 1000]].concat(),
        page_size: 512,
    };
    assert!(longer.read(from, to).is_ok());
}

/// After a restart of the log.
#[test]
fn rest_of_the_old_generation_comes_first() {
    let _limit = support::limit(60);
    // A long generation, so that the file goes on behind what is read; then one
    // with a transaction that was rolled back at its end; then a short one.
    let mut statements = vec![INSERT; 20];
    statements.push(RESTART);
    statements.extend([INSERT; 8]);
    statements.push("BEGIN; INSERT INTO t VALUES (randomblob(20000)); INSERT INTO t VALUES (randomblob(9000)); ROLLBACK");
    statements.extend([RESTART, "INSERT INTO t VALUES (1)"]);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("x.db");
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch(
        "PRAGMA page_size = 512; PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;
         CREATE TABLE t (x); PRAGMA cache_size = 2; PRAGMA cache_spill = 1",
    )
    .unwrap();
    let look = || Written {
        bytes: fs::read(directory.path().join("x.db-wal")).unwrap(),
        page_size: 512,
    };
    let (rest, last) = statements.split_at(statements.len() - 2);
    for statement in rest {
        conn.execute_batch(statement).unwrap();
    }
    let old = look();
    let commits: Vec<_> = (1..=old.newest())
        .filter(|number| old.is_commit(*number))
        .collect();
    let end = *commits.last().unwrap();
    assert!(end < old.newest(), "there are frames that were rolled back");
    for statement in last {
        conn.execute_batch(statement).unwrap();
    }
    let new = look();
    let to = new.place(new.newest());
    assert_eq!(to.salts[0], old.place(0).salts[0].wrapping_add(1));
    let mut followed = 0;
    for from in commits.iter().copied() {
        let read = new.read(old.place(from), to);
        if from <= new.newest() {
            assert!(read.is_err(), "{from} is written over");
            continue;
        }
        let before = commits[commits.len() - 2];
        let mut expected = old.expected(Part::Old, from + 1..before + 1);
        expected.extend(old.expected(Part::Last, before.max(from) + 1..end + 1));
        expected.extend(new.expected(Part::New, 1..new.newest() + 1));
        assert!(read.unwrap() == expected, "from {from}");
        followed += 1;
    }
    assert!(followed > 3);
    let from = old.place(end);
    // The frame at the place is another one.
    let other = WalPosition {
        checksum: [1, 2],
        ..from
    };
    assert!(new.read(other, to).is_err());
    // Nothing was read of the generation before.
    assert!(new.read(old.place(0), to).is_err());
    // Two restarts.
    let salts = [from.salts[0].wrapping_sub(1), from.salts[1]];
    assert!(new.read(WalPosition { salts, ..from }, to).is_err());
    // The file may have been cut off where the chain ends.
    let whole = HEADER + 536 * old.newest();
    let cut = Written {
        bytes: new.bytes[..whole].to_vec(),
        page_size: 512,
    };
    let read = cut.read(old.place(commits[commits.len() - 2]), to);
    assert!(read.is_err(), "{read:?}");
}

/// Where frames may be lost, the number of commits tells, if it is certain.
#[test]
fn count_of_commits_shows_that_no_frame_is_missing() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("x.db");
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch(
        "PRAGMA page_size = 512; PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;
         CREATE TABLE t (x)",
    )
    .unwrap();
    let run = |sql: &str, times: usize| {
        for _ in 0..times {
            conn.execute_batch(sql).unwrap();
        }
    };
    let now = || Written {
        bytes: fs::read(directory.path().join("x.db-wal")).unwrap(),
        page_size: 512,
    };
    run(INSERT, 5);
    let old = now();
    let early = old.place(0);
    let (first, from) = (old.place(1), old.place(old.newest()));
    run(INSERT, 3);
    let before_restart = now();
    assert_eq!(before_restart.newest(), before_restart.frames());
    let end = u64::try_from(before_restart.newest()).unwrap();
    run(RESTART, 1);
    run(INSERT, 2);
    let log = now();
    let to = log.place(log.newest());
    // To the end of the file; from before all that is written over; from the start.
    for (from, commits, last) in [
        (from, 5, end),
        (first, 2, first.frames.into()),
        (early, 2, 0),
    ] {
        assert!(log.read(from, to).is_err());
        let count = CommitCount {
            before: 100,
            between: commits,
            max_frames: last + 99,
        };
        let read = log.read_counted(Some(count), from, to);
        assert!(read.is_ok(), "{count:?}: {read:?}");
        for wrong in [
            CommitCount {
                between: commits + 1,
                ..count
            },
            CommitCount {
                between: commits - 1,
                ..count
            },
            // As many could be lost after a recovery.
            CommitCount {
                max_frames: last + 100,
                ..count
            },
            CommitCount {
                before: 99,
                ..count
            },
        ] {
            let read = log.read_counted(Some(wrong), from, to);
            assert!(read.is_err(), "{wrong:?}");
        }
        // Two restarts, of which one is not seen at all.
        let salts = [from.salts[0].wrapping_sub(1), from.salts[1]];
        let earlier = WalPosition { salts, ..from };
        assert!(log.read_counted(Some(count), earlier, to).is_err());
    }
    // A commit that is padded to a sector repeats its last frame, and a commit can look
    // like such a copy.
    let mut padded = support::log::Log::from(before_restart.bytes.clone());
    let (last, end) = (
        padded.offset(before_restart.newest() - 1),
        padded.bytes.len(),
    );
    padded.bytes.extend_from_within(last..);
    padded.seal(before_restart.newest(), before_restart.newest() + 1);
    let with_copy = Written {
        bytes: [&log.bytes, &padded.bytes[end..]].concat(),
        page_size: 512,
    };
    let count = CommitCount {
        before: 100,
        between: 5,
        max_frames: 100,
    };
    assert!(log.read_counted(Some(count), from, to).is_ok());
    assert!(with_copy.read_counted(Some(count), from, to).is_err());
}

#[test]
fn either_byte_order_of_checksums_is_read() {
    let _limit = support::limit(30);
    let log = written(1024, &[INSERT; 2]);
    let mut other = Written {
        bytes: log.bytes.clone(),
        page_size: 1024,
    };
    let is_big = log.bytes[3] & 1 == 1;
    other.bytes[3] ^= 1;
    let sum = |from: [u32; 2], bytes: &[u8]| {
        bytes
            .chunks_exact(8)
            .fold(from, |[mut one, mut two], pair| {
                let word = |bytes: &[u8]| {
                    let bytes = bytes.try_into().unwrap();
                    if is_big {
                        u32::from_le_bytes(bytes)
                    } else {
                        u32::from_be_bytes(bytes)
                    }
                };
                one = one.wrapping_add(word(&pair[..4])).wrapping_add(two);
                two = two.wrapping_add(word(&pair[4..])).wrapping_add(one);
                [one, two]
            })
    };
    let put = |bytes: &mut [u8], [one, two]: [u32; 2]| {
        bytes[..4].copy_from_slice(&one.to_be_bytes());
        bytes[4..8].copy_from_slice(&two.to_be_bytes());
    };
    let mut running = sum([0; 2], &other.bytes[..24]);
    put(&mut other.bytes[24..32], running);
    for frame in other.bytes[HEADER..].chunks_exact_mut(24 + 1024) {
        running = sum(running, &frame[..8]);
        running = sum(running, &frame[24..]);
        put(&mut frame[16..24], running);
    }
    let to = other.place(other.frames());
    assert_ne!(to.big_endian, is_big);
    assert_eq!(other.read(other.place(0), to).unwrap().len(), log.frames());
    // A place of one order is none of the other.
    let wrong = WalPosition {
        big_endian: is_big,
        ..other.place(1)
    };
    assert!(other.read(wrong, to).is_err());
}

#[test]
fn stopped_read_resumes_where_it_stopped() {
    let _limit = support::limit(60);
    let log = written(4096, &[INSERT; 200]);
    let to = log.place(log.frames());
    let (mut at, mut seen, mut pauses) = (log.place(0), 0, 0);
    while at != to {
        let asked = Cell::new(0);
        let mut reader = Log::new(&log.bytes[..], 4096);
        let each = |step: Step<'_>| {
            let Step::Frame(page, image) = step else {
                return;
            };
            seen += 1;
            let frame = log.frame(seen);
            assert!(Written::word(frame, 0) == page && &frame[24..] == image);
        };
        let read = reader
            .read(None, at, to, each, || asked.replace(1) == 0)
            .unwrap()
            .unwrap();
        assert!(read.frames > 0);
        at = read.to;
        pauses += 1;
    }
    assert_eq!(seen, log.frames());
    assert!(pauses > 2, "{pauses}");
}

/// A log that is written over after so many reads.
struct Overtaken<'a> {
    before: &'a Written,
    after: &'a Written,
    reads_left: Cell<usize>,
}

impl ReadAt for Overtaken<'_> {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let left = self.reads_left.get();
        self.reads_left.set(left.saturating_sub(1));
        let now = if left > 0 { self.before } else { self.after };
        now.bytes[..].read_at(buffer, at)
    }
}

/// At whatever read a writer overtakes the reader: what is handed over is all of it
/// and exact, or it is lost.
#[test]
fn writer_that_overtakes_the_reader_is_noticed() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("x.db");
    let conn = Connection::open(&db).unwrap();
    // Three frames are read at a time.
    conn.execute_batch(
        "PRAGMA page_size = 65536; PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;
         CREATE TABLE t (x)",
    )
    .unwrap();
    let now = || Written {
        bytes: fs::read(directory.path().join("x.db-wal")).unwrap(),
        page_size: 65536,
    };
    let write = |times: usize| {
        for _ in 0..times {
            conn.execute("INSERT INTO t VALUES (zeroblob(200000))", [])
                .unwrap();
        }
    };
    let restart = || {
        conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .unwrap();
    };
    // A long generation, so that the file goes on behind what is read.
    write(14);
    restart();
    write(2);
    let from = now().place(now().newest());
    write(5);
    let old_end = now().newest();
    restart();
    write(1);
    let before = now();
    let to = before.place(before.newest());
    assert!(to.frames < from.frames && before.frames() > old_end);
    write(9);
    let after = now();
    assert!(after.newest() > old_end);
    let first = usize::try_from(from.frames).unwrap();
    let mut expected = before.expected(Part::Old, first + 1..old_end + 1);
    expected.extend(before.expected(Part::New, 1..before.newest() + 1));
    let (mut whole, mut lost) = (0, 0);
    for reads in 0..40 {
        let log = Overtaken {
            before: &before,
            after: &after,
            reads_left: Cell::new(reads),
        };
        let mut all = Frames::default();
        match Log::new(&log, 65536)
            .read(None, from, to, |step| all.add(step), || false)
            .unwrap()
        {
            Err(_) => lost += 1,
            Ok(read) => {
                whole += 1;
                assert_eq!(read.to, to);
                let pages = |frames: &[(Part, u32, Vec<u8>)]| {
                    let pages = frames.iter().map(|(_, page, image)| (*page, image.clone()));
                    pages.collect::<Vec<_>>()
                };
                assert!(
                    pages(&all.settled) == pages(&expected),
                    "after {reads} reads"
                );
            }
        }
    }
    assert!(whole > 5 && lost > 5, "{whole} whole, {lost} lost");
}
