//! Parses the pages of a database: the rows on a page and its references to other pages
//! (<https://sqlite.org/fileformat2.html>, sections 1.6 and 1.7).
//!
//! A page is read raw, and may be free, torn or not a page at all. So parsing never
//! fails: invalid values are skipped.

/// The kind of a page, determined from its first byte. This is correct for a database of
/// fewer than [`PAGE_COUNT_LIMIT`] pages, since an overflow page begins with the number of the
/// next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageKind {
    /// A leaf page of a table, with rows.
    Leaf,
    /// An interior page of a table, or any page of an index. It has no content of a row.
    Tree,
    /// An overflow page or a free page.
    Overflow,
}

/// The number of pages from which on the first byte of an overflow page can look like
/// that of another kind.
pub(super) const PAGE_COUNT_LIMIT: u32 = 0x0200_0000;

/// The layout of the pages of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The size of a page in bytes.
    pub(super) page_size: usize,
    /// The number of bytes of a page that SQLite uses.
    pub(super) usable_bytes: usize,
}

/// A row on a leaf page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) rowid: i64,
    /// The first overflow page of the row.
    pub(super) overflow: Option<u32>,
}

/// The size in bytes of the database header at the start of the first page.
const DATABASE_HEADER_BYTES: usize = 100;

fn header_offset(number: u32) -> usize {
    if number == 1 {
        DATABASE_HEADER_BYTES
    } else {
        0
    }
}

pub(super) fn kind(number: u32, page: &[u8]) -> PageKind {
    match page.get(header_offset(number)) {
        Some(0x0d) => PageKind::Leaf,
        Some(0x02 | 0x05 | 0x0a) => PageKind::Tree,
        _ => PageKind::Overflow,
    }
}

/// Returns the number of the page after an overflow page or a freelist trunk page, or 0.
pub(super) fn next_page(page: &[u8]) -> u32 {
    page.first_chunk()
        .map_or(0, |next| u32::from_be_bytes(*next))
}

/// Returns the first trunk page of the freelist from the database header, or `None` if
/// the freelist is empty.
pub(super) fn first_trunk(first_page: &[u8]) -> Option<u32> {
    let number = |at| Some(u32::from_be_bytes(*first_page.get(at..)?.first_chunk()?));
    number(32).filter(|_| number(36) != Some(0))
}

/// Returns true if a page could be a trunk page of the freelist: it names a number of
/// leaves for which it has room. Text does not begin like that.
pub(super) fn could_be_trunk(layout: Layout, page: &[u8]) -> bool {
    let leaves = page.get(4..).and_then(<[u8]>::first_chunk);
    leaves.is_some_and(|leaves| u32::from_be_bytes(*leaves) as usize <= layout.usable_bytes / 4 - 2)
}

/// Returns the rows on a leaf page.
pub(super) fn cells(layout: Layout, number: u32, page: &[u8]) -> impl Iterator<Item = Cell> {
    let header = header_offset(number);
    let page = &page[..layout.usable_bytes.min(page.len())];
    let count = page.get(header + 3..header + 5).map_or(0, read_u16);
    (0..count)
        .map_while(move |at| {
            let pointer = header + 8 + 2 * at;
            Some(read_u16(page.get(pointer..pointer + 2)?))
        })
        .filter_map(move |at| parse_cell(layout, page, at))
}

fn parse_cell(layout: Layout, page: &[u8], at: usize) -> Option<Cell> {
    let (payload, at) = read_varint(page, at)?;
    let (rowid, at) = read_varint(page, at)?;
    let (usable, payload) = (layout.usable_bytes as u64, payload.cast_unsigned());
    // Section 1.6, "B-tree Cell Format".
    let max_local = usable - 35;
    if payload <= max_local {
        return Some(Cell {
            rowid,
            overflow: None,
        });
    }
    let min_local = (usable - 12) * 32 / 255 - 23;
    let split = min_local + (payload - min_local) % (usable - 4);
    let local = if split <= max_local { split } else { min_local };
    let at = at + usize::try_from(local).ok()?;
    let overflow = page.get(at..)?.first_chunk()?;
    Some(Cell {
        rowid,
        overflow: Some(u32::from_be_bytes(*overflow)),
    })
}

fn read_u16(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Reads a varint and returns it with the offset of the next byte. A varint has seven
/// bits per byte, high bits first, and eight bits in the ninth byte.
fn read_varint(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let mut value = 0_u64;
    for index in 0..8 {
        let byte = *bytes.get(at + index)?;
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value.cast_signed(), at + index + 1));
        }
    }
    let byte = *bytes.get(at + 8)?;
    Some(((value << 8 | u64::from(byte)).cast_signed(), at + 9))
}
