//! Determines which pages in the log's frames belong to no row in the snapshot at their
//! end: free pages, and pages that are now b-tree pages.
//!
//! A freed page keeps its content. Some freed pages become trunk pages of the freelist.
//! They are written for that with half a marker still on them, and again each time a page
//! is freed or reused (<https://sqlite.org/fileformat2.html>, section 1.5). No row leads
//! to them. Without this module the scan would search the whole file for their owners.
//!
//! SQLite changes the first trunk page only, unless auto-vacuum needs a page at a certain
//! place. So if a trunk page is among the frames, all trunk pages before it are among
//! them too, and the first page of the database names the first trunk page. A page that
//! is not found in this way may belong to a row.
//!
//! A page counts as free only if it is free whether or not the last transaction of the
//! previous generation was committed ([`Step`](super::wal::Step)).

use std::collections::{BTreeMap, BTreeSet};

use super::page::{self, Layout, PageKind};

/// With more trunk pages, no page counts as free. The limit corresponds to 16 GiB of free
/// pages of 4 KiB.
const MAX_TRUNKS: usize = 4096;

/// The free pages according to the frames up to the end of the snapshot.
#[derive(Debug, Default)]
pub(super) struct FreePages {
    /// According to all frames, except those in `last` and `open`.
    all: FreelistState,
    /// The last complete transaction of the earlier generation.
    last: Vec<PageImage>,
    /// The frames after it.
    open: Vec<PageImage>,
    is_current: bool,
    /// In the current generation, without the last transaction of the earlier one, if
    /// that changed anything.
    without_last: Option<FreelistState>,
}

/// What one frame says about the freelist.
#[derive(Debug, Clone, Copy)]
struct PageImage {
    number: u32,
    content: Content,
    /// On the first page of the database: the first trunk page, if any.
    first_trunk: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
enum Content {
    /// It looks like a trunk page, before this one.
    Trunk(u32),
    /// Some other page outside of the trees.
    Other,
    /// A b-tree page that the caller may ask for.
    RequestedTree,
    Tree,
}

/// The state of the freelist according to the newest image of each page.
#[derive(Debug, Default, Clone)]
struct FreelistState {
    /// The first trunk page, according to the first page of the database.
    first_trunk: Option<u32>,
    /// Pages that look like trunk pages, and the next trunk page of each.
    trunks: BTreeMap<u32, u32>,
    /// Requested pages that are b-tree pages.
    tree_pages: BTreeSet<u32>,
    has_too_many_trunks: bool,
}

impl FreePages {
    /// Adds the next frame, of the page with this number. `is_wanted` is true if the
    /// caller may ask for the page.
    pub(super) fn add_frame(&mut self, layout: Layout, number: u32, image: &[u8], is_wanted: bool) {
        let image = PageImage::new(layout, number, image, is_wanted);
        if !self.is_current {
            return self.open.push(image);
        }
        self.all.add(image);
        if let Some(state) = &mut self.without_last {
            state.add(image);
        }
    }

    /// The frames since the last call are a transaction of the earlier generation.
    pub(super) fn end_transaction(&mut self) {
        for image in self.last.drain(..) {
            self.all.add(image);
        }
        std::mem::swap(&mut self.last, &mut self.open);
    }

    /// The frames from here on are of the current generation.
    pub(super) fn begin_current_generation(&mut self) {
        self.is_current = true;
        self.open = Vec::new();
        let last = std::mem::take(&mut self.last);
        self.without_last = (!last.is_empty()).then(|| self.all.clone());
        for image in last {
            self.all.add(image);
        }
    }

    /// Returns those of `pages` that belong to no row.
    pub(super) fn select(&self, pages: &BTreeSet<u32>) -> BTreeSet<u32> {
        if pages.is_empty() {
            return BTreeSet::new();
        }
        let mut free = self.all.pages();
        if let Some(state) = &self.without_last {
            free = free.intersection(&state.pages()).copied().collect();
        }
        pages.intersection(&free).copied().collect()
    }
}

impl PageImage {
    fn new(layout: Layout, number: u32, image: &[u8], is_wanted: bool) -> Self {
        Self {
            number,
            content: match page::kind(number, image) {
                PageKind::Overflow if page::could_be_trunk(layout, image) => {
                    Content::Trunk(page::next_page(image))
                }
                PageKind::Overflow => Content::Other,
                PageKind::Leaf | PageKind::Tree if is_wanted => Content::RequestedTree,
                PageKind::Leaf | PageKind::Tree => Content::Tree,
            },
            first_trunk: match number {
                1 => page::first_trunk(image),
                _ => None,
            },
        }
    }
}

impl FreelistState {
    fn add(&mut self, image: PageImage) {
        let number = image.number;
        if number == 1 {
            self.first_trunk = image.first_trunk;
        }
        match image.content {
            Content::Trunk(next) => {
                self.tree_pages.remove(&number);
                self.has_too_many_trunks |= self.trunks.len() >= MAX_TRUNKS;
                if !self.has_too_many_trunks {
                    self.trunks.insert(number, next);
                }
            }
            Content::Other => {
                self.tree_pages.remove(&number);
                self.trunks.remove(&number);
            }
            Content::RequestedTree => {
                self.trunks.remove(&number);
                self.tree_pages.insert(number);
            }
            Content::Tree => {
                self.trunks.remove(&number);
            }
        }
    }

    /// Returns the trunk pages in the chain from the first one, and the b-tree pages.
    fn pages(&self) -> BTreeSet<u32> {
        let mut pages = self.tree_pages.clone();
        let mut current = self.first_trunk.filter(|_| !self.has_too_many_trunks);
        while let Some(trunk) = current
            && let Some(next) = self.trunks.get(&trunk)
            && pages.insert(trunk)
        {
            current = Some(*next);
        }
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        page_size: 512,
        usable_bytes: 512,
    };

    fn header(first: u32) -> Vec<u8> {
        let mut image = vec![0; 512];
        image[32..36].copy_from_slice(&first.to_be_bytes());
        image[36..40].copy_from_slice(&9_u32.to_be_bytes());
        image[100] = 0x0d;
        image
    }

    fn trunk(next: u32, leaves: u32) -> Vec<u8> {
        let mut image = vec![b'x'; 512];
        image[..4].copy_from_slice(&next.to_be_bytes());
        image[4..8].copy_from_slice(&leaves.to_be_bytes());
        image
    }

    fn leaf() -> Vec<u8> {
        let mut image = vec![0; 512];
        image[0] = 0x0d;
        image
    }

    /// A transaction of the earlier generation but the last, the last, and what follows.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Part {
        Old,
        Last,
        New,
    }
    use Part::{Last, New, Old};

    fn free(frames: &[(Part, u32, Vec<u8>)]) -> Vec<u32> {
        let mut free = FreePages::default();
        for part in [Old, Last, New] {
            if part == New {
                // A frame of a transaction that was rolled back.
                free.add_frame(LAYOUT, 7, &leaf(), true);
                free.begin_current_generation();
            }
            for (_, number, image) in frames.iter().filter(|frame| frame.0 == part) {
                free.add_frame(LAYOUT, *number, image, true);
            }
            let has_any = frames.iter().any(|frame| frame.0 == part);
            if part != New && has_any {
                free.end_transaction();
            }
        }
        free.select(&(1..100).collect()).into_iter().collect()
    }

    #[test]
    fn trunk_pages_in_the_chain_are_free() {
        let text = || vec![b'x'; 512];
        let cases = [
            (vec![(New, 1, header(7)), (New, 7, trunk(0, 0))], vec![7]),
            // A chain with newer trunk pages before it.
            (
                vec![
                    (New, 7, trunk(50, 120)),
                    (New, 8, trunk(7, 3)),
                    (New, 1, header(8)),
                ],
                vec![7, 8],
            ),
            // The first page does not name it.
            (vec![(New, 7, trunk(0, 0))], vec![]),
            // It was the first trunk page and is no longer.
            (
                vec![
                    (New, 7, trunk(9, 0)),
                    (New, 1, header(7)),
                    (New, 1, header(9)),
                ],
                vec![],
            ),
            // It has become a page of text.
            (
                vec![(New, 7, trunk(9, 0)), (New, 1, header(7)), (New, 7, text())],
                vec![],
            ),
            // More leaves than a page has room for.
            (vec![(New, 1, header(7)), (New, 7, trunk(0, 127))], vec![]),
            // A cycle.
            (
                vec![
                    (New, 1, header(7)),
                    (New, 7, trunk(8, 0)),
                    (New, 8, trunk(7, 0)),
                ],
                vec![7, 8],
            ),
            // A b-tree page, until it is overwritten.
            (vec![(New, 7, text()), (New, 7, leaf())], vec![7]),
            (vec![(New, 7, leaf()), (New, 7, text())], vec![]),
        ];
        for (frames, expected) in cases {
            let got: Vec<_> = free(&frames)
                .into_iter()
                .filter(|page| *page != 1)
                .collect();
            assert_eq!(got, expected, "{frames:?}");
        }
    }

    #[test]
    fn last_transaction_alone_does_not_make_a_page_free() {
        let cases = [
            // Only the last transaction says so, which may not be committed.
            (
                vec![(Last, 1, header(7)), (Last, 7, trunk(0, 0))],
                false,
                "the trunk",
            ),
            (
                vec![(Old, 7, trunk(0, 0)), (Last, 1, header(7))],
                false,
                "the first page",
            ),
            (vec![(Last, 7, leaf())], false, "the tree"),
            // The last transaction overwrites the page.
            (
                vec![
                    (Old, 1, header(7)),
                    (Old, 7, trunk(0, 0)),
                    (Last, 7, vec![b'x'; 512]),
                ],
                false,
                "a text",
            ),
            // Free with and without the last transaction.
            (
                vec![
                    (Old, 1, header(7)),
                    (Old, 7, trunk(0, 0)),
                    (Last, 7, trunk(0, 1)),
                    (Last, 1, header(7)),
                ],
                true,
                "both",
            ),
            (
                vec![
                    (Last, 7, vec![b'x'; 512]),
                    (New, 7, trunk(0, 1)),
                    (New, 1, header(7)),
                ],
                true,
                "later frames",
            ),
        ];
        for (frames, expected, name) in cases {
            assert_eq!(free(&frames).contains(&7), expected, "{name}");
        }
    }
}
