//! Which sessions are marked, against the query that defines it, evaluated by
//! SQLite itself over content made at random.
//!
//! The rounds are the same in every run. A failure names its seed:
//! `SEED=… cargo test --test marker` runs that round alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use opencode_sessions::in_process::InProcessLister;
use opencode_sessions::internals::wire::ScanMode;
use opencode_sessions::lister::{ListRequest, Lister, Outcome};
use opencode_sessions::marker_text::MarkerText;
use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::json;

use crate::support::{self, listing};

const CONTENT: [(&str, &str); 4] = [
    ("part", "data"),
    ("message", "data"),
    ("session_message", "data"),
    ("session_input", "prompt"),
];

/// Bytes above which a cell is read in pieces, and the size of these.
pub(crate) const WHOLE_CELL: usize = 1 << 20;

pub(crate) const PIECE: usize = 256 << 10;

/// xorshift64*, <https://doi.org/10.1145/2845077>.
pub(crate) struct Random(u64);

impl Random {
    /// Neighbouring seeds give unlike sequences.
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// A database in a directory of its own. No connection stays open: the
/// in-process lister would drop its locks.
pub(crate) struct Place {
    pub(crate) _directory: tempfile::TempDir,
    pub(crate) db: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("opencode.db");
        Self {
            _directory: directory,
            db,
        }
    }

    pub(crate) fn open(&self) -> Connection {
        let conn = Connection::open(&self.db).unwrap();
        conn.pragma_update(None, "journal_mode", "wal").unwrap();
        conn.pragma_update(None, "synchronous", "off").unwrap();
        conn
    }
}

/// What the definition says of each session whose id is a text. `%`, `_` and
/// `\` in the marker stand for themselves.
pub(crate) fn oracle(conn: &Connection, marker: &str) -> BTreeMap<String, bool> {
    let mut pattern = String::from("%");
    for c in marker.chars() {
        if "%_\\".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    let any: Vec<_> = CONTENT
        .iter()
        .map(|(table, column)| {
            format!(
                "EXISTS (SELECT 1 FROM {table} x WHERE x.session_id = s.id \
                 AND x.{column} LIKE ?1 ESCAPE '\\')"
            )
        })
        .collect();
    let sql = format!(
        "SELECT s.id, {} FROM session s WHERE typeof(s.id) = 'text' AND octet_length(s.id) < 257",
        any.join(" OR ")
    );
    conn.prepare(&sql)
        .unwrap()
        .query_map([pattern], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// What the library says, within this process.
pub(crate) fn in_process(db: &Path, marker: &str) -> BTreeMap<String, bool> {
    let outcome = InProcessLister.list(
        &ListRequest::of(db)
            .marker(Some(MarkerText::new(marker).unwrap()))
            .children(true)
            .archived(true)
            .deadline(Duration::from_secs(60)),
    );
    let Outcome::Complete(listing) = outcome else {
        panic!("{outcome}");
    };
    assert_eq!(listing.end.scan.mode, ScanMode::Full);
    listing
        .sessions()
        .map(|session| (session.id.into(), session.marked.unwrap()))
        .collect()
}

/// The helper asked with `--request-stdin`.
fn by_request(db: &Path, marker: &str) -> BTreeMap<String, bool> {
    let mut child = support::command(support::lister())
        .arg("--db")
        .arg(db)
        .args(["--children", "--archived", "--request-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let request = json!({"type": "list", "marker": marker});
    writeln!(child.stdin.take().unwrap(), "{request}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let mut lines = support::lines(&output);
    assert_eq!(lines.pop().unwrap()["type"], "end");
    support::marks(&lines[1..])
}

/// The helper asked with `--marker`.
pub(crate) fn by_argument(db: &Path, marker: &str) -> BTreeMap<String, bool> {
    let argument = format!("--marker={marker}");
    let (sessions, end) = listing(db, &["--children", "--archived", &argument]);
    assert_eq!(end["scan"]["mode"], "full");
    support::marks(&sessions)
}

/// Texts that a `Needle` searches for in different ways, and those that mean
/// something to LIKE, to SQL, to JSON or to a shell.
const MARKERS: [&str; 14] = [
    MarkerText::DEFAULT,
    "letters-and=3-runs<here",
    "OnlyLettersInThisMarker",
    "eeeeeeeeeeeeeeee",
    "1234567890123456",
    "1.23456789012345",
    "-1234567890.1234",
    "100%_of\\the_marker%",
    "%%%%____\\\\\\\\%_%_",
    "================",
    "it's a \"marker\"; --",
    "{\"k\":[\"\\u003c\"]} $(x) `y`",
    "=3-=3-=3-=3-=3-=3-x",
    "abababababababababac",
];

fn random_marker(random: &mut Random) -> String {
    match random.below(8) {
        0..6 => random.pick(&MARKERS).to_owned(),
        6 => (0..16 + random.below(30))
            .map(|_| char::from(0x20 + u8::try_from(random.below(95)).unwrap()))
            .collect(),
        // As long as can be, of few different characters.
        _ => (0..200)
            .map(|_| *random.pick(&[&'a', &'B', &'%', &'=']))
            .collect(),
    }
}

/// The marker, or something very like it.
fn near(random: &mut Random, marker: &str) -> Vec<u8> {
    let mut text = marker.as_bytes().to_vec();
    let at = random.below(text.len());
    match random.below(16) {
        0..3 => {}
        3 => text.make_ascii_uppercase(),
        4 => text.make_ascii_lowercase(),
        5..7 => {
            for byte in &mut text {
                if random.once_in(2) && byte.is_ascii_alphabetic() {
                    *byte ^= 0x20;
                }
            }
        }
        7 => drop(text.remove(0)),
        8 => drop(text.pop()),
        9 => drop(text.remove(at)),
        10 => text.insert(at, 0),
        11 => text[at] = 0,
        // For what is no letter this is another character.
        12 => text[at] ^= 0x20,
        13 => text[at] = b'x',
        // What a wildcard would stand for.
        14 => {
            let expanded = marker.replace('_', "x").replace('%', "abc");
            text = expanded.replace('\\', "").into_bytes();
        }
        // The same letters for people, not for LIKE.
        _ => {
            let other = marker.replace('k', "\u{212a}").replace('e', "\u{435}");
            text = other.replace('s', "\u{17f}").into_bytes();
        }
    }
    text
}

fn filler(random: &mut Random, marker: &str) -> Vec<u8> {
    match random.below(9) {
        0..3 => Vec::new(),
        3 => b"{\"type\":\"text\",\"text\":\"".to_vec(),
        4 => "é 日本 🚀".as_bytes().to_vec(),
        5 => b"\xff\xc3\xf0\x9f\xed\xa0".to_vec(),
        6 => b"abc\0".to_vec(),
        // The start of a marker, over and over.
        7 => marker.as_bytes()[..random.below(marker.len())].repeat(random.below(4)),
        _ => vec![b'x'; random.below(300)],
    }
}

/// A content cell, and whether it is to be a TEXT.
pub(crate) fn content(random: &mut Random, marker: &str) -> (Sql, bool) {
    let number = marker.parse::<i64>().unwrap_or(1_234_567_890_123_456);
    match random.below(20) {
        0 => (Sql::Null, false),
        1 => (Sql::Integer(number), false),
        2 => (Sql::Integer(number.wrapping_mul(10).wrapping_add(7)), false),
        3 => (Sql::Real(marker.parse().unwrap_or(0.5)), false),
        4 => (Sql::Blob(filler(random, marker)), true),
        // What only LIKE tells from the marker, and the marker where LIKE stops.
        5 => {
            let wild = marker.replace(['_', '\\'], "x").replace('%', "abc");
            let cell = format!("{wild}\0{marker}");
            (Sql::Blob(cell.into_bytes()), true)
        }
        kind => {
            let mut cell = filler(random, marker);
            cell.extend(near(random, marker));
            cell.extend(filler(random, marker));
            (Sql::Blob(cell), kind < 15)
        }
    }
}

/// Ids that could be confused with each other, and values that name no session.
pub(crate) fn session_id(random: &mut Random) -> (Sql, bool) {
    match random.below(14) {
        0 => (Sql::Null, false),
        1 => (Sql::Integer(42), false),
        2 => (Sql::Real(4.5), false),
        3 => (Sql::Blob(b"ses_a".to_vec()), false),
        4 => (Sql::Text("SES_A".to_owned()), false),
        5 => (Sql::Text("ses_a ".to_owned()), false),
        6 => (Sql::Blob(b"ses_a\0".to_vec()), true),
        7 => (Sql::Blob(b"ses_\xff".to_vec()), true),
        8 => (Sql::Text("ses_nobody".to_owned()), false),
        9 => (Sql::Text("x".repeat(300)), false),
        _ => (Sql::Text((*random.pick(&IDS)).to_owned()), false),
    }
}

const IDS: [&str; 10] = [
    "ses_a",
    "SES_B",
    "ses_b",
    "42",
    "4.5",
    "042",
    "é",
    "ses c",
    "it's",
    "ses_<freshell-session-metadata origin=3-views",
];

const TYPES: [&str; 7] = ["text", "text", "", "blob", "integer", "numeric", "real"];

/// Tables of random declared types, and the sessions.
fn create(conn: &Connection, random: &mut Random) {
    let mut sql = String::new();
    for table in CONTENT.iter().map(|(table, _)| table).chain(&["session"]) {
        write!(sql, "DROP TABLE IF EXISTS {table};").unwrap();
    }
    // Any id is stored as the text it is.
    let id = random.pick(&["text PRIMARY KEY", "text", "", "blob"]);
    write!(
        sql,
        "CREATE TABLE session (id {id}, directory text DEFAULT '/w');"
    )
    .unwrap();
    for (table, column) in CONTENT {
        let (id, data) = (random.pick(&TYPES), random.pick(&TYPES));
        // In either order, with rows that can be found by their rowid or not,
        // and with an index that the pass must not go by.
        let mut columns = if random.once_in(2) {
            format!("session_id {id}, {column} {data}")
        } else {
            format!("{column} {data}, session_id {id}")
        };
        if random.once_in(5) {
            columns += ", rowid, _rowid_, oid";
        }
        write!(sql, "CREATE TABLE {table} ({columns});").unwrap();
        if random.once_in(2) {
            write!(sql, "CREATE INDEX {table}_i ON {table} (session_id);").unwrap();
        }
    }
    conn.execute_batch(&sql).unwrap();
    let mut insert = conn
        .prepare("INSERT INTO session (id) VALUES (?1)")
        .unwrap();
    for id in IDS {
        insert.execute([id]).unwrap();
    }
    insert.execute(["x".repeat(300)]).unwrap();
    insert.execute([42]).unwrap_or_default();
    insert.execute([rusqlite::types::Null]).unwrap();
}

fn insert(conn: &Connection, table: &str, id: &(Sql, bool), cell: &(Sql, bool)) {
    let column = if table == "session_input" {
        "prompt"
    } else {
        "data"
    };
    let place = |text: bool, at: u8| {
        if text {
            format!("CAST(?{at} AS TEXT)")
        } else {
            format!("?{at}")
        }
    };
    let sql = format!(
        "INSERT INTO {table} (session_id, {column}) VALUES ({}, {})",
        place(id.1, 1),
        place(cell.1, 2)
    );
    conn.prepare(&sql)
        .unwrap()
        .execute((&id.0, &cell.0))
        .unwrap();
}

/// Fills the database at random; the marker to look for, and what the
/// definition says.
fn fill(place: &Place, seed: u64) -> (String, BTreeMap<String, bool>) {
    let random = &mut Random::new(seed);
    let conn = place.open();
    conn.execute_batch("BEGIN").unwrap();
    create(&conn, random);
    let marker = random_marker(random);
    for _ in 0..random.below(24) {
        let table = CONTENT[random.below(4)].0;
        let id = session_id(random);
        let cell = content(random, &marker);
        insert(&conn, table, &id, &cell);
    }
    conn.execute_batch("COMMIT").unwrap();
    let expected = oracle(&conn, &marker);
    (marker, expected)
}

/// As [`fill`], with cells of about a mebibyte and more that hold the marker, or
/// what is nearly one, where one piece ends and the next begins.
fn fill_large(place: &Place, seed: u64) -> (String, BTreeMap<String, bool>) {
    let random = &mut Random::new(seed);
    let conn = place.open();
    conn.execute_batch("BEGIN").unwrap();
    create(&conn, random);
    let marker = random_marker(random);
    for _ in 0..3 {
        let near = near(random, &marker);
        let around = 2 * near.len();
        let size = match random.below(4) {
            0 => WHOLE_CELL - 1 + random.below(3),
            1 => WHOLE_CELL + 1 + random.below(around),
            _ => 5 * PIECE + random.below(PIECE),
        };
        let start = match random.below(6) {
            0 => 0,
            1 => size - near.len(),
            2 => size - near.len() - random.below(2),
            // The first piece can be longer than the others by a marker less one.
            _ => (1 + random.below(4)) * PIECE + random.below(2 * around) - around,
        }
        .min(size - near.len());
        let byte = *random.pick(&[&b'x', &marker.as_bytes()[0], &b'=', &0xff]);
        let mut cell = vec![byte; size];
        cell[start..start + near.len()].copy_from_slice(&near);
        if random.once_in(3) {
            let at = random.below(size);
            cell[at] = 0;
        }
        let table = CONTENT[random.below(4)].0;
        let id = Sql::Text((*random.pick(&IDS)).to_owned());
        insert(
            &conn,
            table,
            &(id, false),
            &(Sql::Blob(cell), random.once_in(2)),
        );
    }
    conn.execute_batch("COMMIT").unwrap();
    let expected = oracle(&conn, &marker);
    (marker, expected)
}

/// The seeds of a test: `count` of them from `first`, or the one asked for.
fn seeds(first: u64, count: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (first..first + count).collect(),
    }
}

/// How often each answer was expected: a test of which one never is tests nothing.
#[derive(Default)]
struct Expected {
    marked: usize,
    unmarked: usize,
}

impl Expected {
    fn count(&mut self, expected: &BTreeMap<String, bool>) {
        let marked = expected.values().filter(|marked| **marked).count();
        self.marked += marked;
        self.unmarked += expected.len() - marked;
    }
}

/// Lists what `fill` makes of each seed, against the definition. Of one seed that was asked for,
/// nothing is expected to be there often.
#[track_caller]
fn assert_marked_as_defined(
    seeds: &[u64],
    fill: impl Fn(&Place, u64) -> (String, BTreeMap<String, bool>),
    least: &Expected,
) {
    let place = Place::new();
    let mut counted = Expected::default();
    for &seed in seeds {
        let (marker, expected) = fill(&place, seed);
        counted.count(&expected);
        assert_eq!(
            in_process(&place.db, &marker),
            expected,
            "SEED={seed}, marker {marker:?}"
        );
    }
    if seeds.len() > 1 {
        assert!(counted.marked > least.marked, "{}", counted.marked);
        assert!(counted.unmarked > least.unmarked, "{}", counted.unmarked);
    }
}

#[test]
fn random_content_is_marked_as_defined() {
    let _limit = support::limit(120);
    let least = Expected {
        marked: 500,
        unmarked: 2000,
    };
    assert_marked_as_defined(&seeds(1, 600), fill, &least);
}

#[test]
fn large_random_content_is_marked_as_defined() {
    let _limit = support::limit(120);
    let least = Expected {
        marked: 30,
        unmarked: 0,
    };
    assert_marked_as_defined(&seeds(1000, 60), fill_large, &least);
}

#[test]
fn helper_marks_the_same_by_request_and_argument() {
    let _limit = support::limit(120);
    let place = Place::new();
    for seed in seeds(2000, 25) {
        let (marker, expected) = fill(&place, seed);
        let message = format!("SEED={seed}, marker {marker:?}");
        assert_eq!(by_argument(&place.db, &marker), expected, "{message}");
        assert_eq!(by_request(&place.db, &marker), expected, "{message}");
    }
    for seed in seeds(3000, 2) {
        let (marker, expected) = fill_large(&place, seed);
        assert_eq!(by_argument(&place.db, &marker), expected, "SEED={seed}");
    }
}
