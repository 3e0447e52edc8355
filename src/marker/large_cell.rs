//! Searches a large cell in pieces. Base64 attachments make cells of hundreds of
//! megabytes, and memory use must not depend on their size.

use std::io::Read;

use rusqlite::{Connection, MAIN_DB};

use super::Needle;
use crate::store::StoreError;

/// How many bytes are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Returns the result of `column LIKE '%marker%'` for one cell of a UTF-8 database, which
/// is read with incremental blob I/O. The cell must be a TEXT or a BLOB.
pub(super) fn contains_marker(
    conn: &Connection,
    table: &str,
    column: &str,
    rowid: i64,
    needle: &Needle,
) -> Result<bool, StoreError> {
    let cell = conn.blob_open(MAIN_DB, table, column, rowid, true)?;
    Ok(search(cell, needle, PIECE_BYTES)?)
}

fn search(mut cell: impl Read, needle: &Needle, piece_bytes: usize) -> std::io::Result<bool> {
    // The end of each piece is kept in front of the next one, so that a marker across the
    // boundary is found.
    let mut window = vec![0; needle.len() - 1 + piece_bytes];
    let mut kept = 0;
    loop {
        let read_bytes = cell.read(&mut window[kept..])?;
        let filled = &window[..kept + read_bytes];
        // LIKE stops at a NUL. The kept bytes contain none.
        let text = memchr::memchr(0, filled).map_or(filled, |nul| &filled[..nul]);
        if needle.is_in(text) {
            return Ok(true);
        }
        if read_bytes == 0 || text.len() < filled.len() {
            return Ok(false);
        }
        let keep = filled.len().min(needle.len() - 1);
        let end = filled.len();
        window.copy_within(end - keep..end, 0);
        kept = keep;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker_text::MarkerText;

    #[test]
    fn search_result_does_not_depend_on_piece_size() {
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
    fn search_stops_at_nul_for_every_piece_size() {
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
