//! What the frames of the log hold: rows and overflow pages that can contain a half of the
//! marker, the links between overflow pages, and the free pages.
//!
//! The frames arrive once, in their order ([`Step`]). Where the earlier generation ends is
//! known only when all of it was read, so the findings of its last two transactions are
//! kept apart: the last complete one may not be committed, and the frames after it mean
//! nothing.

use std::collections::BTreeSet;

use super::file_scan::Candidates;
use super::free_pages::FreePages;
use super::halves::Halves;
use super::overflow::OverflowLinks;
use super::page::Layout;
use super::scanner::Rowids;
use super::wal::Step;

/// The findings of one read of the log.
pub(super) struct LogPages<'a> {
    layout: Layout,
    halves: &'a Halves,
    /// The earlier generation, except its last transaction.
    earlier: Findings,
    /// The last complete transaction of the earlier generation.
    last: Findings,
    /// The frames after it, until the current generation begins; then that generation.
    newest: Findings,
    is_current: bool,
    rows: Rowids,
    unowned: BTreeSet<u32>,
    free: FreePages,
    bytes: u64,
}

/// What was found in a number of frames.
#[derive(Default)]
struct Findings {
    candidates: Candidates,
    links: OverflowLinks,
}

/// The result of one read of the log.
pub(super) struct LogFindings {
    /// Rowids of any table whose rows can contain a half of the marker.
    pub(super) rows: Rowids,
    /// Overflow pages whose rows are not found, with those that were given.
    pub(super) unowned: BTreeSet<u32>,
    pub(super) free: FreePages,
    /// The size of the page images that were read.
    pub(super) bytes: u64,
}

impl<'a> LogPages<'a> {
    /// Begins a read with these overflow pages, whose rows are not known.
    pub(super) fn new(layout: Layout, halves: &'a Halves, unowned: BTreeSet<u32>) -> Self {
        Self {
            layout,
            halves,
            earlier: Findings::default(),
            last: Findings::default(),
            newest: Findings::default(),
            is_current: false,
            rows: Rowids::new(),
            unowned,
            free: FreePages::default(),
            bytes: 0,
        }
    }

    /// Adds the next step of the read.
    pub(super) fn add(&mut self, step: Step<'_>) {
        match step {
            Step::Frame(number, image) => self.add_frame(number, image),
            // All transactions of the current generation are committed.
            Step::Commit if self.is_current => {}
            Step::Commit => {
                self.free.end_transaction();
                self.earlier.append(std::mem::take(&mut self.last));
                std::mem::swap(&mut self.last, &mut self.newest);
            }
            Step::CurrentGeneration => {
                self.free.begin_current_generation();
                self.newest = Findings::default();
                self.is_current = true;
            }
        }
    }

    fn add_frame(&mut self, number: u32, image: &[u8]) {
        self.bytes += image.len() as u64;
        let is_wanted = self.unowned.contains(&number)
            || [&self.earlier, &self.last, &self.newest]
                .iter()
                .any(|findings| findings.candidates.overflow.contains(&number));
        self.free.add_frame(self.layout, number, image, is_wanted);
        let Findings { candidates, links } = &mut self.newest;
        if self.halves.is_any_in(image) {
            candidates.add_page(self.layout, number, image);
        }
        links.add_page(self.layout, number, image);
        if links.is_full() {
            links.trace_owners(&mut self.unowned, &mut self.rows);
            links.clear();
        }
    }

    /// Ends the read. With `may_resolve`, an overflow page to which a row in the same part
    /// of the frames leads has its row.
    pub(super) fn finish(mut self, may_resolve: bool) -> LogFindings {
        let mut parts = [self.earlier, self.last, self.newest];
        // A chain of links can pass through several parts.
        loop {
            let before = self.unowned.len();
            for part in &mut parts {
                part.links.trace_owners(&mut self.unowned, &mut self.rows);
            }
            if self.unowned.len() == before {
                break;
            }
        }
        for Findings {
            mut candidates,
            mut links,
        } in parts
        {
            // A row whose leaf is not in the part has owned its overflow pages all along,
            // and in a part in which all transactions are committed, no other row's chain
            // leads to them. (The last transaction of a generation may not be committed;
            // its frames then mean nothing.) A part that was not read to its end can be
            // cut within a transaction.
            if may_resolve {
                links.resolve(&mut candidates.overflow, &mut self.rows);
            }
            self.rows.append(&mut candidates.rowids);
            self.unowned.append(&mut candidates.overflow);
        }
        LogFindings {
            rows: self.rows,
            unowned: self.unowned,
            free: self.free,
            bytes: self.bytes,
        }
    }
}

impl Findings {
    fn append(&mut self, later: Self) {
        self.candidates.merge(later.candidates);
        self.links.append(later.links);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker_text::MarkerText;

    const LAYOUT: Layout = Layout {
        page_size: 512,
        usable_bytes: 512,
    };

    /// The row of the tests, and its overflow page.
    const ROW: i64 = 5;
    const OVERFLOW: u32 = 9;

    /// A leaf page with the row, whose record continues on the overflow page.
    fn leaf() -> Vec<u8> {
        let mut image = vec![0; 512];
        image[..8].copy_from_slice(&[0x0d, 0, 0, 0, 1, 1, 0, 0]);
        image[8..10].copy_from_slice(&256_u16.to_be_bytes());
        // A payload of 1000 bytes, of which 39 are here.
        image[256..259].copy_from_slice(&[0x87, 0x68, 5]);
        image[259 + 39..][..4].copy_from_slice(&OVERFLOW.to_be_bytes());
        image
    }

    /// The overflow page, with the marker.
    fn overflow() -> Vec<u8> {
        let mut image = vec![0; 512];
        let text = MarkerText::DEFAULT.as_bytes();
        image[100..100 + text.len()].copy_from_slice(text);
        image
    }

    /// An overflow page has its row only through a link in the same part of the log: a row
    /// of another part may have lost it since, and one of a transaction that was not
    /// committed never had it.
    #[test]
    fn overflow_page_is_resolved_by_links_of_its_part_only() {
        let halves = Halves::new(&MarkerText::default());
        let (leaf, overflow) = (leaf(), overflow());
        // A frame with the link (L), one with the page (P), a commit (C), and the begin of
        // the current generation (|); then whether the row is found.
        for (steps, is_found) in [
            ("|LP", true),
            ("|PCLC", true),
            ("LPC|", true),
            ("LCPCLC|", true),
            // In the last transaction of the generation, and in those before.
            ("PCLC|", false),
            ("LCPC|", false),
            ("LC|P", false),
            // Not committed.
            ("L|P", false),
            ("CL|P", false),
            ("PCL|", false),
            ("PCCL|", false),
        ] {
            let mut pages = LogPages::new(LAYOUT, &halves, BTreeSet::new());
            for step in steps.chars() {
                pages.add(match step {
                    'L' => Step::Frame(3, &leaf),
                    'P' => Step::Frame(OVERFLOW, &overflow),
                    'C' => Step::Commit,
                    _ => Step::CurrentGeneration,
                });
            }
            let found = pages.finish(true);
            let is_unowned = !is_found;
            assert_eq!(found.rows.contains(&ROW), is_found, "{steps:?}");
            assert_eq!(found.unowned.contains(&OVERFLOW), is_unowned, "{steps:?}");
        }
    }
}
