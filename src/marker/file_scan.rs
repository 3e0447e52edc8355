//! The pages of the database file, read past SQLite in large pieces by several
//! threads: the fastest way to see all of them, and one that needs no read
//! transaction, so that the log can restart meanwhile.
//!
//! A page read so can be of any moment, free, or torn by a checkpoint. That is
//! sound because of what is read besides: the log from the start of the
//! generation in which the reading began to the snapshot in which the answer
//! holds. A page that is different in that snapshot than it was when that
//! generation began is among those frames; any other one was not written
//! meanwhile, and what was read is what it is.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::halves::Halves;
use super::overflow::OverflowLinks;
use super::page::{self, Kind, Layout};
use super::wal::ReadAt;

/// Bytes read at a time, where a page is not larger.
const PIECE: usize = 256 << 10;

/// Where pieces are read to: the system copies whole pages four times as fast to a
/// page's start.
const ALIGNMENT: usize = 4096;

/// A thread is of use for so many pieces.
const PIECES_A_THREAD: u32 = 16;

/// The file of a database.
pub(super) struct FileScan<'a> {
    file: &'a File,
    layout: Layout,
    threads: usize,
    /// Pages of a piece.
    at_once: u32,
}

/// What was found on pages that hold a half of the marker.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Candidates {
    /// The rows of leaves, of whatever table.
    pub(super) rowids: BTreeSet<i64>,
    /// Overflow pages, of whatever row.
    pub(super) overflow: BTreeSet<u32>,
}

impl Candidates {
    /// Takes the page with this number, which holds a half.
    pub(super) fn take(&mut self, layout: Layout, number: u32, image: &[u8]) {
        match page::kind(number, image) {
            Kind::Leaf => {
                let cells = page::cells(layout, number, image);
                self.rowids.extend(cells.map(|cell| cell.rowid));
            }
            // Dead bytes: a table's root was once its first leaf.
            Kind::Tree => {}
            Kind::Overflow => {
                self.overflow.insert(number);
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.rowids.extend(other.rowids);
        self.overflow.extend(other.overflow);
    }
}

impl<'a> FileScan<'a> {
    pub(super) fn new(file: &'a File, layout: Layout, threads: usize) -> Self {
        let at_once = u32::try_from(PIECE / layout.page_size).unwrap_or(1).max(1);
        Self {
            file,
            layout,
            threads,
            at_once,
        }
    }

    /// How many whole pages there are.
    pub(super) fn pages(&self) -> io::Result<u32> {
        let pages = self.file.metadata()?.len() / self.layout.page_size as u64;
        Ok(u32::try_from(pages).unwrap_or(u32::MAX))
    }

    /// Searches the pages after the first `done`, until there are no more or
    /// `stop` says so. Returns how many are done then, and what was found.
    pub(super) fn search(
        &self,
        done: u32,
        halves: &Halves,
        stop: impl Fn() -> bool + Sync,
    ) -> io::Result<(u32, Candidates)> {
        let pages = self.pages()?;
        let all = Mutex::new(Candidates::default());
        let (from, to) = (done / self.at_once, pages.div_ceil(self.at_once));
        let reached = self.each_piece(from, to, stop, |piece, buffer| {
            let first = piece * self.at_once;
            let read = self.read(first, buffer)?;
            let mut found = Candidates::default();
            halves.pages_with(self.layout.page_size, read, |index| {
                let image = &read[index * self.layout.page_size..][..self.layout.page_size];
                found.take(self.layout, number(first, index), image);
            });
            if found != Candidates::default() {
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .add(found);
            }
            Ok(())
        })?;
        let hits = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((reached.saturating_mul(self.at_once).min(pages), hits))
    }

    /// Looks for what leads to `unowned_pages` on the first `pages` pages, of which the
    /// last `done` were looked at, until there are no more or `stop` says so: rows
    /// become `owners`, overflow pages unowned. Returns how many are done then, and
    /// whether all of them were seen together.
    ///
    /// From the end: SQLite takes new pages from the end of the file, so that a
    /// page of a row mostly comes before the next one. In what is seen together the
    /// order does not matter.
    pub(super) fn trace_owners(
        &self,
        unowned_pages: &mut BTreeSet<u32>,
        owners: &mut BTreeSet<i64>,
        pages: u32,
        done: u32,
        stop: impl Fn() -> bool + Sync,
    ) -> io::Result<(u32, bool)> {
        let (from, to) = (done / self.at_once, pages.div_ceil(self.at_once));
        let all = Mutex::new((OverflowLinks::default(), &mut *unowned_pages, &mut *owners));
        let reached = self.each_piece(from, to, stop, |piece, buffer| {
            let first = (to - 1 - piece) * self.at_once;
            let read = self.read(first, buffer)?;
            let mut found = OverflowLinks::default();
            for (index, image) in read.chunks_exact(self.layout.page_size).enumerate() {
                found.take(self.layout, number(first, index), image);
            }
            let (links, unowned_pages, owners) =
                &mut *all.lock().unwrap_or_else(PoisonError::into_inner);
            links.add(&found);
            if links.are_many() {
                links.trace_owners(unowned_pages, owners);
                links.forget();
            }
            Ok(())
        })?;
        let mut links = all.into_inner().unwrap_or_else(PoisonError::into_inner).0;
        links.trace_owners(unowned_pages, owners);
        let done = reached.saturating_mul(self.at_once).min(pages);
        Ok((done, !links.have_gaps()))
    }

    /// The pages of a piece, as far as the file has them whole.
    fn read<'b>(&self, first: u32, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let at = u64::from(first) * self.layout.page_size as u64;
        let got = ReadAt::read_at(self.file, buffer, at)?;
        Ok(&buffer[..got - got % self.layout.page_size])
    }

    /// Works on the pieces in order, several at a time, and returns how many are
    /// done, counted from the first of all.
    fn each_piece(
        &self,
        from: u32,
        to: u32,
        stop: impl Fn() -> bool + Sync,
        work: impl Fn(u32, &mut [u8]) -> io::Result<()> + Sync,
    ) -> io::Result<u32> {
        let next = AtomicU32::new(from);
        let one = || {
            let size = self.at_once as usize * self.layout.page_size;
            let mut memory = vec![0; size + ALIGNMENT];
            let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
            let buffer = &mut memory[start..][..size];
            // One piece at least, so that every scan comes further.
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= to {
                    break;
                }
                work(piece, buffer)?;
                if stop() {
                    break;
                }
            }
            io::Result::Ok(())
        };
        let of_use = to.saturating_sub(from) / PIECES_A_THREAD;
        let more = self.threads.min(of_use as usize).saturating_sub(1);
        thread::scope(|scope| {
            let others: Vec<_> = (0..more)
                .filter_map(|_| {
                    thread::Builder::new()
                        .stack_size(256 << 10)
                        .spawn_scoped(scope, one)
                        .ok()
                })
                .collect();
            let ours = one();
            others.into_iter().fold(ours, |all, other| {
                let other = other
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")));
                all.and(other)
            })
        })?;
        // Every piece that somebody took is done.
        Ok(next.into_inner().min(to))
    }
}

/// Pages are counted from 1.
fn number(first: u32, index: usize) -> u32 {
    first + u32::try_from(index).unwrap_or(0) + 1
}
