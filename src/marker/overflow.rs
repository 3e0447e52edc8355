//! From an overflow page back to its row: which pages lead to which.

use std::collections::BTreeSet;

use super::page::{self, Kind, Layout};

/// What leads to an overflow page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    /// The leaf that has this row.
    Row(i64),
    /// The overflow page before it.
    Page(u32),
}

/// With more links than these they are not kept: 3 MiB.
const MOST: usize = 200_000;

/// What the pages of some frames lead to.
#[derive(Debug, Default)]
pub(super) struct OverflowLinks {
    to: Vec<(u32, Link)>,
    sorted: bool,
    forgot: bool,
}

impl OverflowLinks {
    /// Takes the page with this number.
    pub(super) fn take(&mut self, layout: Layout, number: u32, image: &[u8]) {
        self.sorted = false;
        match page::kind(number, image) {
            Kind::Leaf => {
                let cells = page::cells(layout, number, image);
                let to = cells.filter_map(|cell| Some((cell.overflow?, Link::Row(cell.rowid))));
                self.to.extend(to);
            }
            Kind::Tree => {}
            Kind::Overflow => {
                let next = page::next(image);
                if next != 0 {
                    self.to.push((next, Link::Page(number)));
                }
            }
        }
    }

    /// Takes those, too.
    pub(super) fn add(&mut self, other: &Self) {
        self.to.extend_from_slice(&other.to);
        self.sorted = false;
    }

    /// True where not all of them are there any more.
    pub(super) fn have_gaps(&self) -> bool {
        self.forgot
    }

    /// True where it is time to use them and begin anew.
    pub(super) fn are_many(&self) -> bool {
        self.to.len() >= MOST
    }

    /// Begins anew.
    pub(super) fn forget(&mut self) {
        self.to.clear();
        self.forgot = true;
    }

    /// Follows the links back from `unowned_pages`: pages become unowned, too, and rows `owners`.
    pub(super) fn trace_owners(
        &mut self,
        unowned_pages: &mut BTreeSet<u32>,
        owners: &mut BTreeSet<i64>,
    ) {
        let mut left: Vec<u32> = unowned_pages.iter().copied().collect();
        while let Some(page) = left.pop() {
            for link in self.of(page) {
                match *link {
                    (_, Link::Row(rowid)) => {
                        owners.insert(rowid);
                    }
                    (_, Link::Page(before)) if unowned_pages.insert(before) => left.push(before),
                    (_, Link::Page(_)) => {}
                }
            }
        }
    }

    /// Adds the rows that own one of `pages` to `owners`, and keeps of `pages`
    /// those that no row was found for.
    pub(super) fn resolve(&mut self, pages: &mut BTreeSet<u32>, owners: &mut BTreeSet<i64>) {
        if self.forgot {
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

    fn of(&mut self, page: u32) -> &[(u32, Link)] {
        if !self.sorted {
            self.to.sort_unstable();
            self.to.dedup();
            self.sorted = true;
        }
        let start = self.to.partition_point(|(to, _)| *to < page);
        let end = self.to.partition_point(|(to, _)| *to <= page);
        &self.to[start..end]
    }
}
