//! Writes to a database as nobody would: the other side of the test of the scan.
//!
//! `scan-writer DB SEED`, then lines on standard input: a number does so many
//! things and answers `done`; `go` does things until the next line. What a
//! statement fails with does not matter: another writer may hold the lock, a row
//! may be gone, and a disk may be bad (`bad_disk.c`).

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "it is a test's, and writes to the test's database"
)]

use std::io::{BufRead, Seek, SeekFrom, Write};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use fastrand::Rng;
use rusqlite::{Connection, MAIN_DB};

/// So many that mostly one row alone marks one.
const SESSIONS: u32 = 60;

const MARKER: &str = "<freshell-session-metadata origin=3-views";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (db, seed) = (arguments.next().unwrap(), arguments.next().unwrap());
    let (to, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            to.send(line).unwrap();
        }
    });
    let mut writer = Writer::open(db, Rng::with_seed(seed.parse().unwrap()));
    if writer.random.u32(0..4) == 0 {
        writer.commit_much();
    }
    writer.obey(&lines);
}

struct Writer {
    db: String,
    conn: Connection,
    random: Rng,
    page_size: usize,
    /// How many of a hundred things it mostly does.
    calm: u32,
}

impl Writer {
    fn open(db: String, mut random: Rng) -> Self {
        let conn = connect(&db, &mut random);
        let checkpoints_seldom = random.bool();
        let page_size = conn
            .pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))
            .unwrap_or(4096);
        Self {
            db,
            conn,
            random,
            page_size: usize::try_from(page_size).unwrap(),
            calm: if checkpoints_seldom { 61 } else { 93 },
        }
    }

    fn obey(&mut self, lines: &Receiver<String>) {
        while let Ok(line) = lines.recv() {
            if line == "go" {
                while let Err(TryRecvError::Empty) = lines.try_recv() {
                    self.one();
                }
            } else {
                for _ in 0..line.parse::<u32>().unwrap() {
                    self.one();
                }
            }
            println!("done");
            std::io::stdout().flush().unwrap();
        }
    }

    /// So often that the number of commits says more than the log does.
    fn commit_much(&mut self) {
        for n in 0..4200 {
            let sql = "UPDATE session SET time_updated = ?1 WHERE id = 's0'";
            let _ = self.conn.execute(sql, [n]);
        }
    }

    fn run(&self, sql: &str) {
        let _ = self.conn.execute_batch(sql);
    }

    /// One thing, of all that can happen to a database.
    fn one(&mut self) {
        // Most of the time nothing that a tail scan cannot follow.
        let most = if self.random.u32(0..8) == 0 {
            100
        } else {
            self.calm
        };
        match self.random.u32(0..most) {
            0..30 => self.change(),
            30..42 => self.transaction(),
            42..52 => self.edit_in_place(),
            52..58 => self.give_pages_away(),
            58..61 => self.move_text(),
            61..67 => self.blob(),
            67..75 => {
                let mode = self.pick(&["PASSIVE", "FULL", "RESTART", "TRUNCATE"]);
                self.run(&format!("PRAGMA wal_checkpoint({mode})"));
            }
            75..79 => {
                let pages = self.pick(&["0", "1", "3", "10", "40", "1000"]);
                self.run(&format!("PRAGMA wal_autocheckpoint = {pages}"));
            }
            79..81 => {
                let limit = match self.random.bool() {
                    true => self
                        .pick(&["-1", "0", "2000", "20000", "100000"])
                        .to_owned(),
                    // The end of a frame.
                    false => {
                        let frames = self.random.usize(1..60);
                        (32 + frames * (24 + self.page_size)).to_string()
                    }
                };
                self.run(&format!("PRAGMA journal_size_limit = {limit}"));
            }
            81..83 => self.run("PRAGMA incremental_vacuum(3)"),
            83..84 => {
                let (table, _) = self.table();
                self.run(&format!("DELETE FROM {table}"));
            }
            84..93 => {
                let (table, _) = self.table();
                self.run(&format!(
                    "UPDATE {table} SET session_id = 's' || (abs(random()) % {SESSIONS}) WHERE rowid IN (SELECT rowid FROM {table} ORDER BY random() LIMIT 3)"
                ));
            }
            93..95 => self.run("VACUUM"),
            95..97 => self.change_schema(),
            // From here on nothing can follow.
            97..99 => self.rebuild(),
            _ => {
                // Where nobody else has it open, the log is removed.
                if self.random.bool() {
                    self.conn = Connection::open_in_memory().unwrap();
                }
                self.conn = connect(&self.db, &mut self.random);
            }
        }
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.random.usize(0..from.len())]
    }

    /// A table, and its column with what was said.
    fn table(&mut self) -> (&'static str, &'static str) {
        match self.random.u32(0..7) {
            0..4 => ("part", "data"),
            4 => ("message", "data"),
            5 => ("session_message", "data"),
            _ => ("session_input", "prompt"),
        }
    }

    fn rowid(&mut self, table: &str) -> i64 {
        self.conn
            .query_row(
                &format!("SELECT rowid FROM {table} ORDER BY random() LIMIT 1"),
                [],
                |row| row.get(0),
            )
            .unwrap_or(1)
    }

    fn length(&mut self) -> usize {
        let page = self.page_size;
        // Rows of many pages, where those are small.
        let most = if page > 4096 { 2 } else { 12 };
        match self.random.u32(0..10) {
            0..4 => self.random.usize(0..page.min(4096)),
            4..7 => self.random.usize(0..most.min(4) * page),
            7..9 => self.random.usize(0..40),
            _ => self.random.usize(0..most * page),
        }
    }

    /// Filler, and often the marker, a half of it, or what is nearly it.
    fn text(&mut self, length: usize) -> String {
        let filler = self.pick(&["x", "lorem < ipsum =3- ", "=3-view", "<freshell-session-"]);
        let mut text: String = filler.chars().cycle().take(length).collect();
        for _ in 0..self.random.usize(0..3) {
            let at = self.random.usize(0..=text.len());
            let marker = self.piece();
            text.insert_str(at, &marker);
        }
        text
    }

    fn piece(&mut self) -> String {
        let cut = self.random.usize(1..MARKER.len());
        let piece = match self.random.u32(0..8) {
            0..3 => MARKER.to_owned(),
            3 => MARKER[..cut].to_owned(),
            4 => MARKER[cut..].to_owned(),
            5 => format!("{}\0{}", &MARKER[..cut], &MARKER[cut..]),
            6 => format!("{}{}", &MARKER[..20], &MARKER[21..]),
            _ => format!("{}x{}", &MARKER[..cut], &MARKER[cut..]),
        };
        match self.random.u32(0..4) {
            0 => piece.to_uppercase(),
            1 => piece.replace('s', "S"),
            _ => piece,
        }
    }

    fn change(&mut self) {
        let (table, column) = self.table();
        let length = self.length();
        let text = self.text(length);
        let session = format!("s{}", self.random.u32(0..SESSIONS));
        let rowid = self.rowid(table);
        let _ = match self.random.u32(0..10) {
            0..4 => self.conn.execute(
                &format!("INSERT INTO {table} (session_id, {column}) VALUES (?1, ?2)"),
                (session, text),
            ),
            4 => {
                let rowid = match self.random.u32(0..4) {
                    0 => -self.random.i64(0..100),
                    1 => i64::MAX - self.random.i64(0..3),
                    2 => i64::MIN + self.random.i64(0..3),
                    _ => self.random.i64(0..60),
                };
                self.conn.execute(
                    &format!("INSERT OR REPLACE INTO {table} (rowid, session_id, {column}) VALUES (?1, ?2, ?3)"),
                    (rowid, session, text),
                )
            }
            5 => self.conn.execute(
                &format!(
                    "INSERT INTO {table} (session_id, {column}) VALUES (?1, CAST(?2 AS BLOB))"
                ),
                (session, text),
            ),
            6..8 => self.conn.execute(
                &format!("UPDATE {table} SET {column} = ?2 WHERE rowid = ?1"),
                (rowid, text),
            ),
            _ => self
                .conn
                .execute(&format!("DELETE FROM {table} WHERE rowid = ?1"), [rowid]),
        };
    }

    /// Of the same size, so that only the pages that differ are written: a marker
    /// is completed or broken across the end of a page.
    fn edit_in_place(&mut self) {
        let (table, column) = self.table();
        let rowid = self.rowid(table);
        let piece = self.piece();
        let near = self.page_size * self.random.usize(0..5) + self.random.usize(0..60);
        let at = if self.random.bool() {
            near
        } else {
            self.random.usize(1..self.page_size)
        };
        let _ = self.conn.execute(
            &format!(
                "UPDATE {table} \
                 SET {column} = substr({column}, 1, ?2) || ?3 || substr({column}, ?2 + 1 + length(?3)) \
                 WHERE rowid = ?1 AND typeof({column}) = 'text' AND length({column}) >= ?2 + length(?3)"
            ),
            (rowid, i64::try_from(at).unwrap(), piece),
        );
    }

    fn blob(&mut self) {
        let (table, column) = self.table();
        let rowid = self.rowid(table);
        let piece = self.piece();
        let at = self.random.u64(0..3 * self.page_size as u64);
        if let Ok(mut blob) = self.conn.blob_open(MAIN_DB, table, column, rowid, false)
            && blob.seek(SeekFrom::Start(at)).is_ok()
        {
            let _ = blob.write(piece.as_bytes());
        }
    }

    /// Several changes at once: committed, rolled back, or in part.
    fn transaction(&mut self) {
        self.run(self.pick_static(&[
            "PRAGMA cache_size = 1",
            "PRAGMA cache_size = 5",
            "PRAGMA cache_size = 500",
        ]));
        self.run("PRAGMA cache_spill = 1; BEGIN IMMEDIATE");
        for _ in 0..self.random.u32(1..12) {
            match self.random.u32(0..12) {
                0 => self.run("SAVEPOINT one"),
                1 => self.run("ROLLBACK TO one"),
                2 => self.run("RELEASE one"),
                3 | 4 => self.edit_in_place(),
                5 => self.steal(),
                _ => self.change(),
            }
            if self.random.u32(0..30) == 0 {
                // Held for a moment, with frames that are not committed.
                std::thread::sleep(Duration::from_millis(self.random.u64(0..4)));
            }
        }
        let end = self.pick(&["COMMIT", "COMMIT", "ROLLBACK"]);
        self.run(end);
        self.run("ROLLBACK");
    }

    fn pick_static(&self, from: &[&'static str]) -> &'static str {
        from[usize::try_from(self.conn.last_insert_rowid().unsigned_abs() % 3).unwrap_or(0)
            % from.len()]
    }

    /// A row's pages go to another one.
    fn steal(&mut self) {
        let (table, column) = self.table();
        let rowid = self.rowid(table);
        let length = self.length();
        let text = self.text(length);
        let _ = self
            .conn
            .execute(&format!("DELETE FROM {table} WHERE rowid = ?1"), [rowid]);
        let _ = self.conn.execute(
            &format!("INSERT INTO {table} (session_id, {column}) VALUES ('s' || (abs(random()) % {SESSIONS}), ?1)"),
            [text],
        );
    }

    /// A row is marked where it lies, on an overflow page alone, and committed; then
    /// a transaction takes its pages away, and may not be committed.
    fn give_pages_away(&mut self) {
        let (table, column) = self.table();
        let long = i64::try_from(3 * self.page_size).unwrap();
        let row = self.conn.query_row(
            &format!(
                "SELECT rowid, length({column}) FROM {table} WHERE typeof({column}) = 'text' \
                 AND length({column}) > ?1 ORDER BY random() LIMIT 1"
            ),
            [long],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
        );
        let Ok((rowid, length)) = row else {
            return self.edit_in_place();
        };
        let at = self.random.i64(long / 3..length - 41);
        let _ = self.conn.execute(
            &format!(
                "UPDATE {table} \
                 SET {column} = substr({column}, 1, ?2) || ?3 || substr({column}, ?2 + 1 + length(?3)) \
                 WHERE rowid = ?1"
            ),
            (rowid, at, MARKER),
        );
        self.run("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN IMMEDIATE");
        let _ = self
            .conn
            .execute(&format!("DELETE FROM {table} WHERE rowid = ?1"), [rowid]);
        for _ in 0..self.random.u32(1..4) {
            let text = "y".repeat(usize::try_from(length).unwrap());
            let _ = self.conn.execute(
                &format!("INSERT INTO {table} (session_id, {column}) VALUES ('s' || (abs(random()) % {SESSIONS}), ?1)"),
                [text],
            );
        }
        let end = self.pick(&["COMMIT", "ROLLBACK", "ROLLBACK"]);
        self.run(end);
        self.run("ROLLBACK");
        if self.random.bool() {
            self.change();
        }
    }

    /// An upgrade: of the content tables nothing is written, or all of it.
    fn change_schema(&mut self) {
        let (table, column) = self.table();
        let n = self.random.u32(0..3);
        match self.random.u32(0..9) {
            0 => self.run(&format!("CREATE INDEX index_{n} ON {table} (session_id)")),
            1 => self.run(&format!("DROP INDEX index_{n}")),
            2 => self.run(&format!(
                "CREATE TABLE made_{n} (x); INSERT INTO made_{n} VALUES (1)"
            )),
            3 => self.run(&format!("DROP TABLE made_{n}")),
            4 => self.run(&format!(
                "ALTER TABLE session ADD COLUMN made_{n} TEXT DEFAULT 'x'"
            )),
            5 => self.run(&format!("ALTER TABLE {table} DROP COLUMN more")),
            // Another column becomes the content, and may not be by the next listing.
            6 | 7 => self.run(&format!(
                "BEGIN IMMEDIATE; ALTER TABLE {table} RENAME COLUMN {column} TO swapped; \
                 ALTER TABLE {table} RENAME COLUMN more TO {column}; \
                 ALTER TABLE {table} RENAME COLUMN swapped TO more; COMMIT"
            )),
            // The same b-tree by another name for a moment, and written by that.
            _ => {
                let text: String = self
                    .text(60)
                    .bytes()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                let meanwhile = match self.random.bool() {
                    true => format!(
                        "CREATE TABLE {table} (id INTEGER PRIMARY KEY, session_id TEXT, {column} TEXT); \
                         INSERT INTO {table} SELECT rowid, session_id, {column} FROM away LIMIT 3; \
                         DROP TABLE {table};"
                    ),
                    false => String::new(),
                };
                self.run(&format!(
                    "BEGIN IMMEDIATE; ALTER TABLE {table} RENAME TO away; \
                     UPDATE away SET {column} = CAST(X'{text}' AS TEXT) WHERE rowid % 5 = 0; \
                     {meanwhile} ALTER TABLE away RENAME TO {table}; COMMIT"
                ));
            }
        }
        // Where one of them failed.
        self.run("ROLLBACK");
    }

    /// The table under its name is another one, or has a column more.
    fn rebuild(&mut self) {
        let (table, column) = self.table();
        let n = self.random.u32(0..1_000_000);
        if self.random.bool() {
            return self.swap(table, column);
        }
        if self.random.bool() {
            self.run(&format!(
                "BEGIN IMMEDIATE; CREATE TABLE new_{n} (id INTEGER PRIMARY KEY, session_id TEXT, {column} TEXT); \
                 INSERT INTO new_{n} SELECT rowid, session_id, {column} FROM {table}; \
                 DROP TABLE {table}; ALTER TABLE new_{n} RENAME TO {table}; COMMIT"
            ));
            self.run("ROLLBACK");
        } else {
            self.run(&format!(
                "ALTER TABLE {table} ADD COLUMN c{n} TEXT DEFAULT '{MARKER}'"
            ));
        }
    }

    /// Another table takes its name, with rows that were written at some other time:
    /// not one of its pages is.
    fn swap(&mut self, table: &str, column: &str) {
        self.run(&format!(
            "CREATE TABLE IF NOT EXISTS spare_{table} (id INTEGER PRIMARY KEY, session_id TEXT, {column} TEXT)"
        ));
        if self.random.u32(0..3) > 0 {
            let length = self.length();
            let text = self.text(length);
            let _ = self.conn.execute(
                &format!(
                    "INSERT INTO spare_{table} (session_id, {column}) \
                     VALUES ('s' || (abs(random()) % {SESSIONS}), ?1)"
                ),
                [text],
            );
        } else {
            self.run(&format!(
                "BEGIN IMMEDIATE; ALTER TABLE {table} RENAME TO swapped; \
                 ALTER TABLE spare_{table} RENAME TO {table}; \
                 ALTER TABLE swapped RENAME TO spare_{table}; COMMIT"
            ));
            // Where one of them failed.
            self.run("ROLLBACK");
        }
    }

    /// A text moves from one column to another, and back at some other time: of a row
    /// with overflow pages only the page with its record's header is written.
    fn move_text(&mut self) {
        let (table, column) = self.table();
        self.run(&format!("ALTER TABLE {table} ADD COLUMN more TEXT"));
        let (set, which) = match self.random.u32(0..8) {
            0 => (format!("{column} = more"), "1".to_owned()),
            1 => (
                format!("more = substr({column}, 30), {column} = substr({column}, 1, 29)"),
                "1".to_owned(),
            ),
            2..5 => (
                format!("more = {column}, {column} = ''"),
                format!("length({column}) > {}", 2 * self.page_size),
            ),
            _ => (
                format!("{column} = more, more = ''"),
                format!("length(more) > 0 AND {column} = ''"),
            ),
        };
        let _ = self.conn.execute(
            &format!(
                "UPDATE {table} SET {set} WHERE rowid = \
                 (SELECT rowid FROM {table} WHERE {which} ORDER BY random() LIMIT 1)"
            ),
            [],
        );
    }
}

fn connect(db: &str, random: &mut Rng) -> Connection {
    let conn = Connection::open(db).unwrap();
    let _ = conn.busy_timeout(Duration::from_millis(random.u64(0..30)));
    // A commit waits for a sync before it is published, if that is not a true one.
    let is_bad_disk = std::env::var_os("LD_PRELOAD").is_some();
    let synchronous = if is_bad_disk && random.bool() {
        "full"
    } else {
        "off"
    };
    let _ = conn.pragma_update(None, "synchronous", synchronous);
    conn
}
