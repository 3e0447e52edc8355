//! The links between overflow pages, which lead from an overflow page back to the row
//! that owns it.

use std::collections::BTreeSet;

use super::page::{self, Layout, PageKind};

/// The source of a link to an overflow page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    /// The row on a leaf page whose first overflow page it is.
    Row(i64),
    /// The previous overflow page.
    Page(u32),
}

/// How many links are kept at most: 3 MiB.
const MAX_LINKS: usize = 200_000;

/// The links to overflow pages on a set of pages.
#[derive(Debug, Default)]
pub(super) struct OverflowLinks {
    links: Vec<(u32, Link)>,
    is_sorted: bool,
    has_dropped: bool,
}

impl OverflowLinks {
    /// Adds the links on the page with this number.
    pub(super) fn add_page(&mut self, layout: Layout, number: u32, image: &[u8]) {
        self.is_sorted = false;
        match page::kind(number, image) {
            PageKind::Leaf => {
                let cells = page::cells(layout, number, image);
                let links = cells.filter_map(|cell| Some((cell.overflow?, Link::Row(cell.rowid))));
                self.links.extend(links);
            }
            PageKind::Tree => {}
            PageKind::Overflow => {
                let next = page::next_page(image);
                if next != 0 {
                    self.links.push((next, Link::Page(number)));
                }
            }
        }
    }

    /// Adds the links of `other`.
    pub(super) fn merge(&mut self, other: &Self) {
        self.links.extend_from_slice(&other.links);
        self.is_sorted = false;
    }

    /// Adds the links of `other`, and what `other` has dropped.
    pub(super) fn append(&mut self, mut other: Self) {
        self.links.append(&mut other.links);
        self.is_sorted = false;
        self.has_dropped |= other.has_dropped;
    }

    pub(super) fn has_dropped_links(&self) -> bool {
        self.has_dropped
    }

    /// Returns true if the links must be traced and then dropped.
    pub(super) fn is_full(&self) -> bool {
        self.links.len() >= MAX_LINKS
    }

    /// Drops all links.
    pub(super) fn clear(&mut self) {
        self.links.clear();
        self.has_dropped = true;
    }

    /// Follows the links back from `unowned_pages`. Adds the pages on the way to
    /// `unowned_pages` and the rows to `owners`.
    pub(super) fn trace_owners(
        &mut self,
        unowned_pages: &mut BTreeSet<u32>,
        owners: &mut BTreeSet<i64>,
    ) {
        let mut pending: Vec<u32> = unowned_pages.iter().copied().collect();
        while let Some(page) = pending.pop() {
            for link in self.links_to(page) {
                match *link {
                    (_, Link::Row(rowid)) => {
                        owners.insert(rowid);
                    }
                    (_, Link::Page(before)) if unowned_pages.insert(before) => pending.push(before),
                    (_, Link::Page(_)) => {}
                }
            }
        }
    }

    /// Adds the rows that own one of `pages` to `owners`, and removes from `pages` those
    /// for which a row was found.
    pub(super) fn resolve(&mut self, pages: &mut BTreeSet<u32>, owners: &mut BTreeSet<i64>) {
        if self.has_dropped {
            return;
        }
        pages.retain(|page| {
            let mut found = BTreeSet::new();
            self.trace_owners(&mut BTreeSet::from([*page]), &mut found);
            let is_unknown = found.is_empty();
            owners.append(&mut found);
            is_unknown
        });
    }

    fn links_to(&mut self, page: u32) -> &[(u32, Link)] {
        if !self.is_sorted {
            self.links.sort_unstable();
            self.links.dedup();
            self.is_sorted = true;
        }
        let start = self.links.partition_point(|(to, _)| *to < page);
        let end = self.links.partition_point(|(to, _)| *to <= page);
        &self.links[start..end]
    }
}
