//! The pages of a database as bytes: which rows and which other pages one names
//! (<https://sqlite.org/fileformat2.html>, sections 1.6 and 1.7).
//!
//! A page can be anything: it is read raw, may be free, torn, or no page at all.
//! So nothing here fails; what makes no sense is passed over.

/// What a page is, told from its first byte. That is sound for pages that belong
/// to a database of fewer than [`TELLABLE`] pages: an overflow page begins with
/// the number of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A leaf of a table: it has rows.
    Leaf,
    /// Another page of a table or an index. It has no content of a row.
    Tree,
    /// An overflow page, or a free one.
    Overflow,
}

/// The number of pages from which on the first byte of an overflow page can be
/// that of another kind.
pub(super) const TELLABLE: u32 = 0x0200_0000;

/// How the pages of one database are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The size of a page in bytes.
    pub(super) page_size: usize,
    /// How much of it SQLite uses.
    pub(super) usable: usize,
}

/// A row of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) rowid: i64,
    /// Its first overflow page.
    pub(super) overflow: Option<u32>,
}

/// The database's header in front of the first page.
const FILE_HEADER: usize = 100;

fn start(number: u32) -> usize {
    if number == 1 { FILE_HEADER } else { 0 }
}

pub(super) fn kind(number: u32, page: &[u8]) -> Kind {
    match page.get(start(number)) {
        Some(0x0d) => Kind::Leaf,
        Some(0x02 | 0x05 | 0x0a) => Kind::Tree,
        _ => Kind::Overflow,
    }
}

/// The page after an overflow page.
pub(super) fn next(page: &[u8]) -> u32 {
    page.first_chunk()
        .map_or(0, |next| u32::from_be_bytes(*next))
}

/// The first trunk of the freelist, from the database's header; `None` if there is none.
pub(super) fn first_trunk(first_page: &[u8]) -> Option<u32> {
    let number = |at| Some(u32::from_be_bytes(*first_page.get(at..)?.first_chunk()?));
    number(32).filter(|_| number(36) != Some(0))
}

/// True where a page could be a trunk of the freelist: it says how many numbers it has,
/// and has room for them. A text does not begin so.
pub(super) fn could_be_trunk(layout: Layout, page: &[u8]) -> bool {
    let leaves = page.get(4..).and_then(<[u8]>::first_chunk);
    leaves.is_some_and(|leaves| u32::from_be_bytes(*leaves) as usize <= layout.usable / 4 - 2)
}

/// The rows of a leaf.
pub(super) fn cells(layout: Layout, number: u32, page: &[u8]) -> impl Iterator<Item = Cell> {
    let header = start(number);
    let page = &page[..layout.usable.min(page.len())];
    let count = page.get(header + 3..header + 5).map_or(0, two_bytes);
    (0..count)
        .map_while(move |at| {
            let pointer = header + 8 + 2 * at;
            Some(two_bytes(page.get(pointer..pointer + 2)?))
        })
        .filter_map(move |at| cell(layout, page, at))
}

fn cell(layout: Layout, page: &[u8], at: usize) -> Option<Cell> {
    let (payload, at) = varint(page, at)?;
    let (rowid, at) = varint(page, at)?;
    let (usable, payload) = (layout.usable as u64, payload.cast_unsigned());
    // Section 1.6, "B-tree Cell Format".
    let most = usable - 35;
    if payload <= most {
        return Some(Cell {
            rowid,
            overflow: None,
        });
    }
    let least = (usable - 12) * 32 / 255 - 23;
    let split = least + (payload - least) % (usable - 4);
    let local = if split <= most { split } else { least };
    let at = at + usize::try_from(local).ok()?;
    let overflow = page.get(at..)?.first_chunk()?;
    Some(Cell {
        rowid,
        overflow: Some(u32::from_be_bytes(*overflow)),
    })
}

fn two_bytes(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// A number and where the next byte is: seven bits a byte, high ones first, eight
/// in the ninth.
fn varint(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
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
