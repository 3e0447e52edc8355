//! How much work a listing does: each frame of the log is read once, and where nothing is new
//! the log is not opened and the cache is not written.

use std::cell::RefCell;
use std::{fs, io};

use opencode_sessions::internals::marker::wal::{Log, ReadAt, Step};
use rusqlite::Connection;

use crate::support;
use crate::wal::Written;

/// A log that notes which bytes are read.
struct Counted<'a> {
    bytes: &'a [u8],
    reads: RefCell<Vec<(u64, u64)>>,
}

impl ReadAt for Counted<'_> {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let count = self.bytes.read_at(buffer, at)?;
        self.reads.borrow_mut().push((at, at + count as u64));
        Ok(count)
    }
}

impl Counted<'_> {
    /// How often the page image of each frame was read, of so many.
    fn reads_of_images(&self, page_size: u64, frames: u64) -> Vec<usize> {
        let image = |frame| 32 + frame * (24 + page_size) + 24;
        let has = |frame, &(from, to): &(u64, u64)| from <= image(frame) && image(frame) < to;
        (0..frames)
            .map(|frame| {
                let reads = self.reads.borrow();
                reads.iter().filter(|read| has(frame, read)).count()
            })
            .collect()
    }
}

/// Also those of the generation before a restart of the log, of which only reading shows
/// where it ends.
#[test]
fn each_frame_of_the_log_is_read_once() {
    let _limit = support::limit(60);
    for page_size in [512, 4096, 65536] {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("x.db");
        let conn = Connection::open(&db).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA page_size = {page_size}; PRAGMA journal_mode = wal;
             PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x)"
        ))
        .unwrap();
        let insert = |rows: u32| {
            conn.execute(
                "WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                 INSERT INTO t SELECT zeroblob(100000) FROM n",
                [rows],
            )
            .unwrap();
        };
        let restart = || {
            let sql = "PRAGMA wal_checkpoint(RESTART)";
            conn.query_row(sql, [], |_| Ok(())).unwrap();
        };
        let now = || {
            Written::of(
                fs::read(directory.path().join("x.db-wal")).unwrap(),
                page_size,
            )
        };
        // A long generation, so that the file goes on behind what is read.
        insert(60);
        restart();
        insert(5);
        let from = now().place(now().newest());
        // Transactions of many pieces.
        insert(1);
        insert(20);
        insert(9);
        let end = now().newest();
        restart();
        insert(1);
        insert(2);
        let log = now();
        let to = log.place(log.newest());
        assert!(to.frames < from.frames);
        let counted = Counted {
            bytes: &log.bytes,
            reads: RefCell::default(),
        };
        let mut frames = 0;
        let each = |step: Step<'_>| frames += u64::from(matches!(step, Step::Frame(..)));
        let read = Log::new(&counted, page_size).read(None, from, to, each, || false);
        assert_eq!(read.unwrap().unwrap().frames, frames);
        let reads = counted.reads_of_images(page_size as u64, log.frames() as u64);
        let first = usize::try_from(from.frames).unwrap();
        assert!(
            reads[..log.newest()].iter().all(|count| *count == 1),
            "{reads:?}"
        );
        assert!(
            reads[log.newest()..first].iter().all(|count| *count == 0),
            "{reads:?}"
        );
        assert!(
            reads[first..end].iter().all(|count| *count == 1),
            "{reads:?}"
        );
        // Behind its end, the rest of the piece that showed the end.
        assert!(reads[end..].iter().all(|count| *count <= 1), "{reads:?}");
    }
}

/// The system calls that a listing makes, as a library before the C library counts them.
#[cfg(target_os = "linux")]
mod calls {
    use std::fs;

    use crate::history::{Database, MARKER};
    use crate::support::{self, preload::Library};

    /// How many of these calls for this file a listing makes, and how it found the marks.
    /// With `clock`, it is made a minute from now.
    fn calls(
        (library, clock): (&Library, Option<&Library>),
        made: &Database,
        (call, path): (&str, &str),
    ) -> (usize, String) {
        let log = library.beside("log");
        let _ = fs::remove_file(&log);
        let mut preload = library.path().into_os_string();
        if let Some(clock) = clock {
            fs::write(clock.beside("seconds"), "60\n").unwrap();
            preload.push(":");
            preload.push(clock.path());
        }
        let output = support::command(support::lister())
            .arg("--db")
            .arg(&made.db)
            .arg(made.cache())
            .env("LD_PRELOAD", preload)
            .env("SET_CLOCK", clock.unwrap_or(library).beside("seconds"))
            .env("FAIL_CALL", call)
            .env("FAIL_PATH", path)
            .env("FAIL_ERRNO", "0")
            .env("FAIL_LOG", &log)
            .output()
            .unwrap();
        let (_, scan) = crate::history::marks_of(&output);
        let count = fs::read_to_string(&log).map_or(0, |log| log.lines().count());
        (count, scan["mode"].as_str().unwrap().to_owned())
    }

    #[test]
    fn unchanged_listing_opens_no_log_and_writes_no_cache() {
        let _limit = support::limit(60);
        let library = Library::of("failing_calls.c");
        let made = Database::new(4096);
        made.part(1, "s1", MARKER);
        assert_eq!(made.scan(), "full");
        // SQLite opens the log, once.
        let counted = (&library, None);
        let opened = |made: &_| calls(counted, made, ("open", "opencode.db-wal"));
        let written = |made: &_| calls(counted, made, ("temporary", "*.unfinished-"));
        made.messages(1, "a");
        assert_eq!(opened(&made), (2, "tail".to_owned()));
        assert_eq!(opened(&made), (1, "unchanged".to_owned()));
        made.messages(1, "b");
        assert_eq!(written(&made), (1, "tail".to_owned()));
        for _ in 0..2 {
            assert_eq!(written(&made), (0, "unchanged".to_owned()));
        }
        let before = fs::read(made.directory.path().join("cache")).unwrap();
        assert_eq!(made.scan(), "unchanged");
        let after = fs::read(made.directory.path().join("cache")).unwrap();
        assert!(before == after);
    }

    /// Also where there is no log, and the stamp of the file says that nothing is new.
    #[test]
    fn unchanged_listing_without_a_log_writes_no_cache() {
        let _limit = support::limit(60);
        let libraries = ["failing_calls.c", "set_clock.c"].map(Library::of);
        let made = Database::new(4096);
        made.part(1, "s1", MARKER);
        made.run("PRAGMA journal_mode = delete");
        let counted = (&libraries[0], Some(&libraries[1]));
        let written = || calls(counted, &made, ("temporary", "*.unfinished-"));
        assert_eq!(written(), (1, "full".to_owned()));
        for _ in 0..2 {
            assert_eq!(written(), (0, "unchanged".to_owned()));
        }
    }
}
