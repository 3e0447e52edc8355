//! Reads the pages of the database file past SQLite, in large pieces and by several
//! threads. This is the fastest way to read all pages. It needs no read transaction, so
//! that the log can restart meanwhile.
//!
//! A page that is read in this way can be of any time, free, or torn by a checkpoint. The
//! scan is correct because the log is read too: from the start of the generation in which
//! the reading began to the snapshot of the answer. A page that differs in that snapshot
//! from the start of that generation is among those frames. Any other page was not
//! written meanwhile, so what was read is its content.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::halves::Halves;
use super::overflow::OverflowLinks;
use super::page::{self, Layout, PageKind};
use super::read_at::ReadAt;
use crate::threads::default_threads;

/// How many bytes are read at a time, unless a page is larger.
const PIECE_BYTES: usize = 256 << 10;

/// The alignment of buffers in bytes. The kernel copies whole pages four times as fast to
/// the start of a page.
const ALIGNMENT_BYTES: usize = 4096;

/// How many pieces justify one thread.
const MIN_PIECES_PER_THREAD: u32 = 16;

/// The scan of a database file.
pub(super) struct FileScan<'a> {
    file: &'a File,
    layout: Layout,
    threads: usize,
    pages_per_piece: u32,
}

/// Rows and overflow pages that were found on pages with a half of the marker.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Candidates {
    /// The rowids on leaf pages of any table.
    pub(super) rowids: BTreeSet<i64>,
    /// Overflow pages of any row.
    pub(super) overflow: BTreeSet<u32>,
}

impl Candidates {
    /// Adds the page with this number, which contains a half of the marker.
    pub(super) fn add_page(&mut self, layout: Layout, number: u32, image: &[u8]) {
        match page::kind(number, image) {
            PageKind::Leaf => {
                let cells = page::cells(layout, number, image);
                self.rowids.extend(cells.map(|cell| cell.rowid));
            }
            // Leftover bytes: the root page of a table was once its first leaf.
            PageKind::Tree => {}
            PageKind::Overflow => {
                self.overflow.insert(number);
            }
        }
    }

    /// Adds those of `other`.
    pub(super) fn merge(&mut self, other: Self) {
        self.rowids.extend(other.rowids);
        self.overflow.extend(other.overflow);
    }
}

impl<'a> FileScan<'a> {
    pub(super) fn new(file: &'a File, layout: Layout, threads: usize) -> Self {
        let pages_per_piece = u32::try_from(PIECE_BYTES / layout.page_size)
            .unwrap_or(1)
            .max(1);
        Self {
            file,
            layout,
            threads,
            pages_per_piece,
        }
    }

    /// Returns the number of complete pages in the file.
    pub(super) fn page_count(&self) -> io::Result<u32> {
        let pages = self.file.metadata()?.len() / self.layout.page_size as u64;
        Ok(u32::try_from(pages).unwrap_or(u32::MAX))
    }

    /// Searches the pages after the first `done` until the end of the file or until
    /// `stop` returns true. Returns how many pages are then done, and what was found.
    pub(super) fn search(
        &self,
        done: u32,
        halves: &Halves,
        stop: impl Fn() -> bool + Sync,
    ) -> io::Result<(u32, Candidates)> {
        let pages = self.page_count()?;
        let all = Mutex::new(Candidates::default());
        let (from, to) = (
            done / self.pages_per_piece,
            pages.div_ceil(self.pages_per_piece),
        );
        let reached = self.process_pieces(from, to, stop, |piece, buffer| {
            let first = piece * self.pages_per_piece;
            let read = self.read_piece(first, buffer)?;
            let mut found = Candidates::default();
            halves.find_pages(self.layout.page_size, read, |index| {
                let image = &read[index * self.layout.page_size..][..self.layout.page_size];
                found.add_page(self.layout, page_number(first, index), image);
            });
            if found != Candidates::default() {
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .merge(found);
            }
            Ok(())
        })?;
        let candidates = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((
            reached.saturating_mul(self.pages_per_piece).min(pages),
            candidates,
        ))
    }

    /// Searches the first `pages` pages of the file for links to `unowned_pages`, of
    /// which the last `done` pages have been searched already, until all are done or
    /// `stop` returns true. Adds rows to `owners` and overflow pages to `unowned_pages`.
    /// Returns how many pages are then done, and whether all links of this call were
    /// traced together.
    ///
    /// The search runs from the end: SQLite takes new pages from the end of the file, so
    /// that a page of a row is mostly before the next one. The order does not matter for
    /// links that are traced together.
    pub(super) fn trace_owners(
        &self,
        unowned_pages: &mut BTreeSet<u32>,
        owners: &mut BTreeSet<i64>,
        pages: u32,
        done: u32,
        stop: impl Fn() -> bool + Sync,
    ) -> io::Result<(u32, bool)> {
        let (from, to) = (
            done / self.pages_per_piece,
            pages.div_ceil(self.pages_per_piece),
        );
        let all = Mutex::new((OverflowLinks::default(), &mut *unowned_pages, &mut *owners));
        let reached = self.process_pieces(from, to, stop, |piece, buffer| {
            let first = (to - 1 - piece) * self.pages_per_piece;
            let read = self.read_piece(first, buffer)?;
            let mut found = OverflowLinks::default();
            for (index, image) in read.chunks_exact(self.layout.page_size).enumerate() {
                found.add_page(self.layout, page_number(first, index), image);
            }
            let (links, unowned_pages, owners) =
                &mut *all.lock().unwrap_or_else(PoisonError::into_inner);
            links.merge(&found);
            if links.is_full() {
                links.trace_owners(unowned_pages, owners);
                links.clear();
            }
            Ok(())
        })?;
        let mut links = all.into_inner().unwrap_or_else(PoisonError::into_inner).0;
        links.trace_owners(unowned_pages, owners);
        let done = reached.saturating_mul(self.pages_per_piece).min(pages);
        Ok((done, !links.has_dropped_links()))
    }

    /// Reads the complete pages of a piece.
    fn read_piece<'b>(&self, first: u32, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let at = u64::from(first) * self.layout.page_size as u64;
        let read_bytes = ReadAt::read_at(self.file, buffer, at)?;
        Ok(&buffer[..read_bytes - read_bytes % self.layout.page_size])
    }

    /// Processes the pieces in order, several at a time. Returns how many pieces are
    /// done, counted from the first piece of the file.
    fn process_pieces(
        &self,
        from: u32,
        to: u32,
        stop: impl Fn() -> bool + Sync,
        work: impl Fn(u32, &mut [u8]) -> io::Result<()> + Sync,
    ) -> io::Result<u32> {
        let next = AtomicU32::new(from);
        let run_thread = || {
            let size_bytes = self.pages_per_piece as usize * self.layout.page_size;
            let mut allocation = vec![0; size_bytes + ALIGNMENT_BYTES];
            let start = allocation
                .as_ptr()
                .align_offset(ALIGNMENT_BYTES)
                .min(ALIGNMENT_BYTES);
            let buffer = &mut allocation[start..][..size_bytes];
            // At least one piece, so that every scan makes progress.
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
        let useful_threads = to.saturating_sub(from) / MIN_PIECES_PER_THREAD;
        let threads = match self.threads {
            // Not known until it is needed.
            0 if useful_threads > 1 => default_threads(),
            threads => threads,
        };
        let extra_threads = threads.min(useful_threads as usize).saturating_sub(1);
        thread::scope(|scope| {
            let others: Vec<_> = (0..extra_threads)
                .filter_map(|_| {
                    thread::Builder::new()
                        .stack_size(256 << 10)
                        .spawn_scoped(scope, run_thread)
                        .ok()
                })
                .collect();
            let own_result = run_thread();
            others.into_iter().fold(own_result, |result, other| {
                let other = other
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("scan thread panicked")));
                result.and(other)
            })
        })?;
        // Every piece that a thread has taken is done.
        Ok(next.into_inner().min(to))
    }
}

/// Page numbers start at 1.
fn page_number(first: u32, index: usize) -> u32 {
    first + u32::try_from(index).unwrap_or(0) + 1
}
