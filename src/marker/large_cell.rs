//! A large cell, searched in pieces: base64 attachments make cells of hundreds
//! of megabytes, and memory must not follow them.

use std::io::Read;

use rusqlite::{Connection, MAIN_DB};

use super::Needle;
use crate::store::StoreError;

/// Bytes read at a time.
const PIECE: usize = 256 << 10;

/// What `column LIKE '%marker%'` says of one cell of a UTF-8 database, read
/// with incremental blob I/O. The cell must be a TEXT or a BLOB.
pub(super) fn is_like(
    conn: &Connection,
    table: &str,
    column: &str,
    rowid: i64,
    needle: &Needle,
) -> Result<bool, StoreError> {
    let cell = conn.blob_open(MAIN_DB, table, column, rowid, true)?;
    Ok(search(cell, needle, PIECE)?)
}

fn search(mut cell: impl Read, needle: &Needle, piece: usize) -> std::io::Result<bool> {
    // The end of one piece is carried into the next, so that a marker across
    // their border is found.
    let mut window = vec![0; needle.len() - 1 + piece];
    let mut carried = 0;
    loop {
        let got = cell.read(&mut window[carried..])?;
        let held = &window[..carried + got];
        // LIKE stops at a NUL. What was carried has none.
        let text = memchr::memchr(0, held).map_or(held, |nul| &held[..nul]);
        if needle.is_in(text) {
            return Ok(true);
        }
        if got == 0 || text.len() < held.len() {
            return Ok(false);
        }
        let keep = held.len().min(needle.len() - 1);
        let end = held.len();
        window.copy_within(end - keep..end, 0);
        carried = keep;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker_text::MarkerText;

    #[test]
    fn pieces_of_every_size_find_what_the_whole_has() {
        let needle = Needle::new(&MarkerText::default());
        let text = format!(
            "{}{}tail",
            "x=3-".repeat(20),
            MarkerText::DEFAULT.to_uppercase()
        );
        for piece in 1..text.len() + 2 {
            assert!(
                search(text.as_bytes(), &needle, piece).unwrap(),
                "pieces of {piece}"
            );
            assert!(!search(&text.as_bytes()[..text.len() - 5], &needle, piece).unwrap());
        }
    }

    #[test]
    fn a_nul_ends_the_text_in_every_piece() {
        let needle = Needle::new(&MarkerText::default());
        let before = format!("{}\0", MarkerText::DEFAULT);
        let after = format!("abc\0{}", MarkerText::DEFAULT);
        let within = MarkerText::DEFAULT.replace('=', "\0");
        for piece in 1..64 {
            assert!(
                search(before.as_bytes(), &needle, piece).unwrap(),
                "pieces of {piece}"
            );
            assert!(
                !search(after.as_bytes(), &needle, piece).unwrap(),
                "pieces of {piece}"
            );
            assert!(
                !search(within.as_bytes(), &needle, piece).unwrap(),
                "pieces of {piece}"
            );
        }
    }
}
