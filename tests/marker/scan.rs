//! The scan against the definition, while anything happens to the database.
//!
//! Writers are processes of their own, and write at random: between listings and
//! during them, on a disk that may be bad, and are killed at random. After each listing with a cache the
//! literal query is asked in the very transaction that the listing was read in.
//!
//! It can fail. Each of these was made once, by hand, and was caught:
//!
//! * whole markers are looked for on pages, not halves;
//! * what is left of the generation before a restart of the log is not read;
//! * after a restart the place is compared loosely (not the frame's checksum);
//! * overflow pages are not led back to their rows;
//! * frames past the snapshot are read too;
//! * the end of the log is taken from its file, not from what is published;
//! * pages that were read at once end the search for owners, though the log was read
//!   before;
//! * the log and the wal-index are looked for beside a link;
//! * the published end of a log is believed though SQLite does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use opencode_sessions::internals::marker::{self, MarkedSessions, Options};
use opencode_sessions::internals::store::{Database, OpenOptions, Opened};
use opencode_sessions::internals::wire::ScanMode;
use opencode_sessions::marker_text::MarkerText;
use rusqlite::Connection;

use crate::support::{self, preload};

/// A process that writes; it does not survive the test.
struct Writer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Writer {
    fn start(db: &Path, seed: u64, disk: Option<&Path>) -> Self {
        let mut command = Command::new(support::example("scan-writer"));
        command.arg(db).arg(seed.to_string());
        if let Some(disk) = disk {
            command.env("LD_PRELOAD", disk);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn tell(&mut self, what: &str) {
        let _ = writeln!(self.stdin, "{what}");
    }

    fn wait(&mut self) {
        let mut line = String::new();
        let _ = self.stdout.read_line(&mut line);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A database, its writers, and what the scans of it remember.
struct Episode {
    directory: tempfile::TempDir,
    /// The path by which it is listed: its own, or one through links.
    path: PathBuf,
    /// What sets the clock of other helpers.
    clock: Option<PathBuf>,
    /// A wal-index of some earlier time is in the directory.
    has_old_index: bool,
    writers: Vec<Writer>,
    random: Rng,
    seed: u64,
    /// What makes the writers' disk a bad one.
    disk: Option<PathBuf>,
}

/// Small ones mostly: more happens on fewer bytes.
const PAGE_SIZES: [u32; 16] = [
    512, 512, 512, 512, 512, 512, 1024, 1024, 1024, 1024, 2048, 2048, 4096, 4096, 8192, 65536,
];

impl Episode {
    fn new(seed: u64, bad_disk: Option<&Path>, clock: Option<&Path>) -> Self {
        let mut random = Rng::with_seed(seed);
        let directory = tempfile::tempdir().unwrap();
        let mut episode = Self {
            path: path_to(&directory, &mut random),
            clock: clock.map(PathBuf::from),
            has_old_index: false,
            writers: Vec::new(),
            seed,
            directory,
            random: Rng::with_seed(seed),
            disk: bad_disk
                .filter(|_| random.u32(0..3) == 0)
                .map(PathBuf::from),
        };
        episode.make();
        for _ in 0..random.usize(1..3) {
            episode.start_writer();
        }
        episode
    }

    fn db(&self) -> PathBuf {
        self.directory.path().join("opencode.db")
    }

    fn make(&mut self) {
        let page_size = PAGE_SIZES[self.random.usize(0..PAGE_SIZES.len())];
        let vacuum = ["none", "none", "none", "full", "incremental"][self.random.usize(0..5)];
        // Some databases are in rollback mode, and stay in it or do not.
        let mode = if self.random.u32(0..6) == 0 {
            "delete"
        } else {
            "wal"
        };
        make_in(&self.db(), page_size, vacuum, mode);
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn start_writer(&mut self) {
        let writer = Writer::start(&self.db(), self.random.u64(..), self.disk.as_deref());
        self.writers.push(writer);
    }

    /// What happens before a listing; true where writers go on during it.
    fn happen(&mut self) -> bool {
        match self.random.u32(0..40) {
            0 => {
                // Killed at any moment, and another begins.
                let at = self.random.usize(0..self.writers.len());
                self.writers[at].tell("go");
                std::thread::sleep(Duration::from_micros(self.random.u64(0..3000)));
                drop(self.writers.swap_remove(at));
                self.start_writer();
            }
            1 => self.all_killed(|_| {}),
            2 => self.all_killed(Self::crash_image),
            3 => self.all_killed(|episode| {
                let _ = fs::remove_file(episode.beside("-shm"));
            }),
            4 => self.all_killed(Self::replace),
            5 => self.switch_mode(),
            _ => {}
        }
        if self.random.u32(0..3) == 0 {
            for writer in &mut self.writers {
                writer.tell("go");
            }
            return true;
        }
        for at in 0..self.writers.len() {
            let things = self.random.u32(0..6);
            self.writers[at].tell(&things.to_string());
            self.writers[at].wait();
        }
        false
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.db().into_os_string();
        name.push(suffix);
        name.into()
    }

    fn all_killed(&mut self, then: impl FnOnce(&mut Self)) {
        let count = self.writers.len();
        for writer in &mut self.writers {
            writer.tell("go");
        }
        std::thread::sleep(Duration::from_micros(self.random.u64(0..3000)));
        self.writers.clear();
        then(self);
        for _ in 0..count {
            self.start_writer();
        }
    }

    /// The files as they lie there, in other files: what a crash leaves.
    fn crash_image(&mut self) {
        let _ = fs::remove_file(self.beside("-shm"));
        for suffix in ["", "-wal", "-journal"] {
            let (from, to) = (self.beside(suffix), self.beside(&format!("{suffix}-copy")));
            if from.exists() {
                fs::copy(&from, &to).unwrap();
                fs::rename(&to, &from).unwrap();
            }
        }
    }

    /// Another database is in its place: what was there at an earlier time, or a
    /// new one.
    fn replace(&mut self) {
        let kept = self.directory.path().join("kept");
        let restores = kept.exists();
        if !restores {
            fs::create_dir(&kept).unwrap();
        }
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let here = self.beside(suffix);
            let there = kept.join(here.file_name().unwrap());
            if restores {
                let _ = fs::remove_file(&here);
                let _ = fs::rename(there, &here);
            } else if suffix == "-shm" {
                let _ = fs::remove_file(&here);
            } else if fs::copy(&here, there).is_ok() {
                fs::remove_file(&here).unwrap();
            }
        }
        if restores {
            let _ = fs::remove_dir_all(&kept);
        } else {
            self.make();
        }
    }

    /// From the log to a rollback journal, or back; as far as nobody has it open.
    fn switch_mode(&mut self) {
        self.all_killed(|episode| {
            if let Ok(conn) = Connection::open(episode.db()) {
                let mode = ["delete", "wal", "wal"][episode.random.usize(0..3)];
                let _ = conn.pragma_update(None, "journal_mode", mode);
            }
        });
    }

    /// Another helper with the same cache, whose clock may be days away, and whose
    /// budget may end at any moment. It is killed at one, or done when this is over.
    fn another_helper(&mut self) -> Option<Child> {
        let mut command = Command::new(support::lister());
        command
            .arg("--db")
            .arg(&self.path)
            .arg("--scan-cache")
            .arg(self.cache())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if self.random.bool() {
            command.arg(format!("--scan-budget={}", self.random.u32(1..8)));
        }
        if let Some(clock) = self.clock.as_ref().filter(|_| self.random.bool()) {
            let days = self.directory.path().join("days");
            let seconds = self.random.i64(-3..4) * 86_400;
            fs::write(&days, format!("{seconds}\n")).unwrap();
            command.env("LD_PRELOAD", clock).env("SET_CLOCK", days);
        }
        command.spawn().ok()
    }

    /// A copy of the files that cannot be written to, with a wal-index of an earlier
    /// time, is listed, and then compared with the definition. It remembers in a cache of
    /// its own. Nobody writes meanwhile: files that were copied one after the other while
    /// somebody wrote are no database.
    fn verify_frozen(&mut self, modes: &mut BTreeMap<&'static str, u64>) {
        let frozen = self.directory.path().join("frozen");
        let _ = fs::create_dir(&frozen);
        for suffix in ["", "-wal", "-journal"] {
            let copy = frozen.join(format!("opencode.db{suffix}"));
            let _ = fs::remove_file(&copy);
            let _ = fs::copy(self.beside(suffix), copy);
        }
        if self.has_old_index {
            let old = self.directory.path().join("old-index");
            fs::copy(old, frozen.join("opencode.db-shm")).unwrap();
        }
        let script = "mount --bind . . && cd \"$PWD\" && mount -o remount,bind,ro . || exit 99
            \"$0\" --db opencode.db --scan-cache \"$1\" >/dev/null
            exec \"$0\" verify --db opencode.db --scan-cache \"$1\"";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(support::lister())
            .arg(self.directory.path().join("frozen-cache"))
            .current_dir(&frozen)
            .output();
        let Ok(output) = output
            .as_ref()
            .map(|output| (output.status.code(), &output.stdout))
        else {
            return;
        };
        let said = String::from_utf8_lossy(output.1);
        if said.contains("differs") {
            let kept = self.keep();
            panic!(
                "seed {}: frozen: {said}; the files are in {kept}",
                self.seed
            );
        }
        *modes
            .entry(match output.0 {
                Some(0) => "frozen, the same",
                // Not without mounts of one's own.
                Some(1 | 99) if !said.contains("database:") => "frozen, not mounted",
                _ => "frozen, not read",
            })
            .or_default() += 1;
    }

    /// How long a scan may take: as long as it likes, or not even one piece.
    fn budget(&mut self) -> Option<Duration> {
        match self.random.u32(0..4) {
            0 => Some(Duration::from_millis(1)),
            1 => Some(Duration::from_micros(self.random.u64(0..6000))),
            _ => None,
        }
    }

    /// One listing with the cache, and the definition in the same transaction.
    fn list(&mut self, modes: &mut BTreeMap<&'static str, u64>) {
        let mut other = match self.random.u32(0..12) {
            0 => self.another_helper(),
            _ => None,
        };
        self.list_beside(modes);
        if let Some(other) = &mut other {
            *modes.entry("another helper").or_default() += 1;
            if self.random.u32(0..4) == 0 {
                let _ = other.kill();
            }
            let _ = other.wait();
        }
    }

    fn list_beside(&mut self, modes: &mut BTreeMap<&'static str, u64>) {
        let budget = self.budget();
        let options = Options {
            marker: Some(MarkerText::default()),
            cache: Some(self.cache()),
            budget,
            threads: 2,
        };
        let deadline = (self.random.u32(0..8) == 0)
            .then(|| Instant::now() + Duration::from_micros(self.random.u64(0..8000)));
        let open = OpenOptions {
            busy_timeout: Duration::from_secs(5),
            heap_limit: None,
            deadline,
        };
        // A writer was killed in the middle of something exclusive, or holds it.
        let Ok(opened) = Database::open(&self.path, &open) else {
            return *modes.entry("not opened").or_default() += 1;
        };
        let Opened::Ready(database) = opened else {
            return *modes.entry("young").or_default() += 1;
        };
        let Ok(found) = marker::scan(&database, &options) else {
            return *modes.entry("failed").or_default() += 1;
        };
        *modes.entry(found.scan.mode.as_str()).or_default() += 1;
        if let Some(why) = found.full_scan_reason {
            *modes.entry(why).or_default() += 1;
        }
        let MarkedSessions::Known {
            marked,
            is_complete,
        } = &found.marked_sessions
        else {
            panic!("it was asked for");
        };
        let marked: BTreeSet<_> = marked.iter().cloned().collect();
        let expected = match oracle(&found.snapshot) {
            Ok(expected) => expected,
            Err(error) => {
                if deadline.is_none() {
                    let kept = self.keep();
                    panic!("seed {}: {error}; the files are in {kept}", self.seed);
                }
                return *modes.entry("no time for the definition").or_default() += 1;
            }
        };
        // A writer that was killed left a journal that another one had to roll back.
        let rolled_back = |why: &String| why.contains("readonly");
        let is_degraded = found.degraded.is_some();
        if let Some(why) = found.degraded.as_ref().filter(|why| !rolled_back(why)) {
            assert!(deadline.is_some(), "seed {}: {why}", self.seed);
        }
        if !is_complete {
            *modes.entry("incomplete").or_default() += 1;
        }
        let is_right = if *is_complete {
            marked == expected
        } else {
            // Nothing is said that is not known.
            let has_limits = budget.is_some() || deadline.is_some();
            assert!(has_limits || is_degraded, "seed {}", self.seed);
            marked.is_subset(&expected)
        };
        if !is_right {
            let kept = self.keep();
            panic!(
                "seed {}: {:?} ({}) by a {} scan of {} frames, {:?} by the definition; the files are in {}",
                self.seed,
                marked,
                if *is_complete {
                    "complete"
                } else {
                    "incomplete"
                },
                found.scan.mode.as_str(),
                found.scan.frames,
                expected,
                kept
            );
        }
        if found.scan.mode == ScanMode::Tail {
            *modes.entry("tail frames").or_default() += found.scan.frames;
        }
        if let Some(cache_update) = &found.cache_update {
            cache_update.save().unwrap();
        }
    }

    /// Keeps the files for a person to look at.
    fn keep(&self) -> String {
        let kept = self.directory.path().with_extension("kept");
        let mut copy = Command::new("cp");
        let _ = copy
            .arg("-r")
            .arg(self.directory.path())
            .arg(&kept)
            .status();
        kept.display().to_string()
    }

    fn step(&mut self, modes: &mut BTreeMap<&'static str, u64>) {
        let busy = self.happen();
        self.list(modes);
        if busy {
            for writer in &mut self.writers {
                writer.tell("0");
                writer.wait();
            }
        }
        match self.random.u32(0..100) {
            0 => self.verify_frozen(modes),
            1..4 => {
                let old = self.directory.path().join("old-index");
                self.has_old_index |= fs::copy(self.beside("-shm"), old).is_ok();
            }
            _ => {}
        }
    }
}

/// So many that mostly one row alone marks one.
pub(crate) const SESSIONS: u32 = 60;

/// A path to the database of a directory: its own, or one through links, beside which
/// lie the log and the wal-index of a database that died.
fn path_to(directory: &tempfile::TempDir, random: &mut Rng) -> PathBuf {
    use std::os::unix::fs::symlink;
    let place = directory.path();
    let db = place.join("opencode.db");
    match random.u32(0..4) {
        0 => {
            let link = place.join("links/link.db");
            fs::create_dir(place.join("links")).unwrap();
            symlink("../opencode.db", &link).unwrap();
            dead_files_beside(&link);
            link
        }
        1 => {
            fs::create_dir(place.join("links")).unwrap();
            symlink(place, place.join("links/directory")).unwrap();
            place.join("links/directory/links/../opencode.db")
        }
        _ => db,
    }
}

/// A log and a wal-index as a killed program leaves them, of some other database.
fn dead_files_beside(link: &Path) {
    let other = tempfile::tempdir().unwrap();
    let db = other.path().join("other.db");
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE x (y); INSERT INTO x VALUES (1)")
        .unwrap();
    for suffix in ["-wal", "-shm"] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        fs::copy(with(&db), with(link)).unwrap();
    }
}

/// The tables of the newest OpenCode, as far as they matter.
pub(crate) fn make(db: &Path, page_size: u32, vacuum: &str) {
    make_in(db, page_size, vacuum, "wal");
}

fn make_in(db: &Path, page_size: u32, vacuum: &str, mode: &str) {
    let conn = Connection::open(db).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {vacuum}; PRAGMA journal_mode = {mode};
         CREATE TABLE session (id TEXT PRIMARY KEY, directory TEXT, time_updated INTEGER);
         CREATE TABLE part (id INTEGER PRIMARY KEY, session_id TEXT, data TEXT);
         CREATE TABLE message (session_id TEXT, time_created INTEGER, data TEXT);
         CREATE TABLE session_message (id TEXT, session_id TEXT, type TEXT, seq INTEGER, data TEXT);
         CREATE TABLE session_input (id TEXT PRIMARY KEY, session_id TEXT, prompt TEXT);
         CREATE INDEX part_session ON part (session_id);"
    ))
    .unwrap();
    for n in 0..SESSIONS {
        conn.execute("INSERT INTO session VALUES ('s' || ?1, '/x', ?1)", [n])
            .unwrap();
    }
}

/// The definition.
fn oracle(conn: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let any: Vec<_> = [
        ("part", "data"),
        ("message", "data"),
        ("session_message", "data"),
        ("session_input", "prompt"),
    ]
    .iter()
    .map(|(table, text)| {
        format!("EXISTS (SELECT 1 FROM {table} x WHERE x.session_id = s.id AND x.{text} LIKE ?1)")
    })
    .collect();
    let sql = format!("SELECT s.id FROM session s WHERE {}", any.join(" OR "));
    let mut statement = conn.prepare(&sql)?;
    let rows = statement.query_map([format!("%{}%", MarkerText::DEFAULT)], |row| row.get(0))?;
    rows.collect()
}

/// So many listings of databases from this seed on.
fn rounds(listings: u64, mut seed: u64, until: Option<Instant>) -> BTreeMap<&'static str, u64> {
    #[cfg(target_os = "linux")]
    let bad_disk = Some(preload::Library::of("bad_disk.c"));
    #[cfg(target_os = "linux")]
    let bad_disk = bad_disk.as_ref().map(preload::Library::path);
    #[cfg(target_os = "linux")]
    let clock = Some(preload::Library::of("set_clock.c"));
    #[cfg(target_os = "linux")]
    let clock = clock.as_ref().map(preload::Library::path);
    #[cfg(not(target_os = "linux"))]
    let (bad_disk, clock) = (None::<PathBuf>, None::<PathBuf>);
    let mut modes = BTreeMap::new();
    let mut done = 0;
    while done < listings && until.is_none_or(|until| Instant::now() < until) {
        let mut episode = Episode::new(seed, bad_disk.as_deref(), clock.as_deref());
        for _ in 0..200.min(listings - done) {
            episode.step(&mut modes);
            done += 1;
        }
        seed += 1;
    }
    modes.insert("listings", done);
    modes
}

fn seed() -> u64 {
    let set = std::env::var("SCAN_SEED").ok();
    let seed = set.map_or_else(|| fastrand::u64(..1 << 48), |seed| seed.parse().unwrap());
    println!("SCAN_SEED={seed}");
    seed
}

#[test]
fn every_cached_listing_equals_the_definition() {
    let _limit = support::limit(300);
    let seed = seed();
    let mut modes = BTreeMap::new();
    // Two side by side: each waits for its writers most of the time.
    std::thread::scope(|scope| {
        let halves = [seed, seed + 1_000].map(|seed| scope.spawn(move || rounds(450, seed, None)));
        for half in halves {
            for (mode, count) in half.join().unwrap() {
                *modes.entry(mode).or_insert(0) += count;
            }
        }
    });
    println!("{modes:#?}");
    // It went the ways that it is to test.
    for mode in ["full", "tail", "unchanged", "incomplete", "another helper"] {
        assert!(
            modes.get(mode).is_some_and(|count| *count > 10),
            "{mode}: {modes:?}"
        );
    }
}

#[test]
#[ignore = "takes as long as it is told: run by ./scripts/soak scan"]
fn soak_cached_listings_equal_the_definition() {
    let minutes: u64 = std::env::var("SCAN_MINUTES").unwrap().parse().unwrap();
    let _limit = support::limit(minutes * 60 + 300);
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let (first, mut all) = (seed(), BTreeMap::new());
    // Shown as it goes, as often as a person would look.
    for round in 0.. {
        for (mode, count) in rounds(5_000, first + 1_000 * round, Some(until)) {
            *all.entry(mode).or_insert(0) += count;
        }
        println!("{all:#?}");
        if Instant::now() >= until {
            return;
        }
    }
}
