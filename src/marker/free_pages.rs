//! Which pages of the log's frames no row has in the snapshot at their end: those that are
//! free, and those that are of a tree now.
//!
//! A page that is freed keeps what it held. Some become trunks of the freelist, are
//! written for that with half a marker still on them, and again each time a page is freed
//! or taken (<https://sqlite.org/fileformat2.html>, section 1.5). Nothing leads from a row
//! to them, so that without knowing this all of the file would have to be searched for it.
//!
//! SQLite changes the first trunk only, unless a page must be where auto-vacuum wants it.
//! So in front of a trunk that is among the frames there are only trunks that are among
//! them, too, and the first page names the first one. What is not found so is a page that
//! some row may have.
//!
//! A page is told free only where that is so whether or not the last transaction of the
//! generation before was one ([`Part::Last`]).

use std::collections::{BTreeMap, BTreeSet};

use super::page::{self, Kind, Layout};
use super::wal::Part;

/// With more trunks than these nothing is told: 16 GiB of free pages of 4 KiB.
const MOST: usize = 4096;

/// What the frames say of free pages; of frames up to the snapshot's end.
#[derive(Debug, Default)]
pub(super) struct FreePages {
    all: Images,
    without_last: Images,
}

/// What the newest image of each page says.
#[derive(Debug, Default)]
struct Images {
    /// The first trunk of the freelist, as the first page says.
    first: Option<u32>,
    /// Pages that look like a trunk, and the next one of each.
    trunks: BTreeMap<u32, u32>,
    /// Wanted pages that are of a tree.
    in_tree: BTreeSet<u32>,
    /// There were too many trunks.
    lost: bool,
}

impl FreePages {
    /// Takes the next frame: the page with this number, and whether it may be asked for.
    pub(super) fn take(
        &mut self,
        part: Part,
        layout: Layout,
        number: u32,
        image: &[u8],
        is_wanted: bool,
    ) {
        self.all.take(layout, number, image, is_wanted);
        if part != Part::Last {
            self.without_last.take(layout, number, image, is_wanted);
        }
    }

    /// Those of these pages that no row has.
    pub(super) fn among(&self, pages: &BTreeSet<u32>) -> BTreeSet<u32> {
        if pages.is_empty() {
            return BTreeSet::new();
        }
        let (all, without_last) = (self.all.known(), self.without_last.known());
        let known = all.intersection(&without_last).copied().collect();
        pages.intersection(&known).copied().collect()
    }
}

impl Images {
    fn take(&mut self, layout: Layout, number: u32, image: &[u8], is_wanted: bool) {
        if number == 1 {
            self.first = page::first_trunk(image);
        }
        match page::kind(number, image) {
            Kind::Overflow => {
                self.in_tree.remove(&number);
                if !page::could_be_trunk(layout, image) {
                    self.trunks.remove(&number);
                    return;
                }
                self.lost |= self.trunks.len() >= MOST;
                if !self.lost {
                    self.trunks.insert(number, page::next(image));
                }
            }
            Kind::Leaf | Kind::Tree => {
                self.trunks.remove(&number);
                if is_wanted {
                    self.in_tree.insert(number);
                }
            }
        }
    }

    /// The trunks from the first one on, and pages of trees.
    fn known(&self) -> BTreeSet<u32> {
        let mut known = self.in_tree.clone();
        let mut at = self.first.filter(|_| !self.lost);
        while let Some(trunk) = at
            && let Some(next) = self.trunks.get(&trunk)
            && known.insert(trunk)
        {
            at = Some(*next);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        page_size: 512,
        usable: 512,
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

    fn free(frames: &[(Part, u32, Vec<u8>)]) -> Vec<u32> {
        let mut free = FreePages::default();
        for (part, number, image) in frames {
            free.take(*part, LAYOUT, *number, image, true);
        }
        free.among(&(1..100).collect()).into_iter().collect()
    }

    use Part::{Last, New, Old};

    #[test]
    fn trunks_that_the_first_page_leads_to_are_free() {
        let text = || vec![b'x'; 512];
        let cases = [
            (vec![(New, 1, header(7)), (New, 7, trunk(0, 0))], vec![7]),
            // In front of it there are newer ones.
            (
                vec![
                    (New, 7, trunk(50, 120)),
                    (New, 8, trunk(7, 3)),
                    (New, 1, header(8)),
                ],
                vec![7, 8],
            ),
            // Nothing says that it is the first.
            (vec![(New, 7, trunk(0, 0))], vec![]),
            // It was, and is not any more.
            (
                vec![
                    (New, 7, trunk(9, 0)),
                    (New, 1, header(7)),
                    (New, 1, header(9)),
                ],
                vec![],
            ),
            // It is a text since.
            (
                vec![(New, 7, trunk(9, 0)), (New, 1, header(7)), (New, 7, text())],
                vec![],
            ),
            // More numbers than a page has room for.
            (vec![(New, 1, header(7)), (New, 7, trunk(0, 127))], vec![]),
            // In a circle.
            (
                vec![
                    (New, 1, header(7)),
                    (New, 7, trunk(8, 0)),
                    (New, 8, trunk(7, 0)),
                ],
                vec![7, 8],
            ),
            // Of a tree, until it is not any more.
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
    fn last_transaction_of_a_generation_proves_nothing() {
        let cases = [
            // By it alone: it may not be one.
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
            // Or it undoes what was.
            (
                vec![
                    (Old, 1, header(7)),
                    (Old, 7, trunk(0, 0)),
                    (Last, 7, vec![b'x'; 512]),
                ],
                false,
                "a text",
            ),
            // With it and without it.
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
                "what came after",
            ),
        ];
        for (frames, expected, name) in cases {
            assert_eq!(free(&frames).contains(&7), expected, "{name}");
        }
    }
}
