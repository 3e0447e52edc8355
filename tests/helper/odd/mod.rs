//! Databases with odd schemas and odd rows, each out of one number.

mod cells;
mod random;
mod tables;

pub(crate) use random::Random;

use rusqlite::Connection;

/// Fills a database. The same number makes the same database.
pub(crate) fn fill(conn: &Connection, random: &mut Random) {
    let encoding = match random.one_in(12) {
        true => *random.pick(&["UTF-16le", "UTF-16be"]),
        false => "UTF-8",
    };
    let page_size = *random.pick(&[512, 1024, 4096]);
    conn.execute_batch(&format!(
        "PRAGMA encoding = '{encoding}'; PRAGMA page_size = {page_size};"
    ))
    .unwrap();
    for statement in tables::statements(random) {
        // Some are refused: two indexes of a name, a constraint, a column twice.
        let _ = conn.execute_batch(&statement);
    }
    tables::insert_rows(conn, random);
}
