//! `./scripts/bench fallback`: how often a scan reads everything because it cannot follow the
//! log.
//!
//! Another process writes as OpenCode does, or as a person with a tool does, one pattern
//! after the other. Meanwhile this one lists as the service does: when the files have
//! changed, and at the intervals of `src/service/schedule.rs`, which is private and so
//! is repeated here. A listing is a scan for the marker in this process, which tells why it
//! read everything. What is shown of a scan that read everything is not a failure: what was
//! written can be lost for good when a log is emptied.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use opencode_sessions::internals::marker::{self, Options};
use opencode_sessions::internals::store::{Database as Store, OpenOptions, Opened};
use opencode_sessions::internals::wire::{Scan, ScanMode};
use opencode_sessions::marker_text::MarkerText;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};

use crate::copied::{self, Copied, log_of};
use crate::generate::{Database, USUAL};
use crate::measure::{self, Times};
use crate::report::{self, milliseconds};

/// Measures how often a scan reads everything, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the large database, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4900, value_parser = clap::value_parser!(u64).range(490..=65_536))]
    large: u64,

    /// How long each pattern is written
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3600))]
    writing: u64,

    /// This pattern only
    #[arg(long, value_name = "PATTERN")]
    only: Option<Pattern>,

    /// Keep the databases in this directory [default: in target/tmp]
    #[arg(long, value_name = "PATH")]
    keep: Option<PathBuf>,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// The writer, as a process of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct WriterArgs {
    db: PathBuf,
    pattern: Pattern,
    seconds: u64,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// A commit of some frames twice a second
    Steady,
    /// 600 frames a second: the log is restarted about every 1.5 seconds
    Busy,
    /// Started every 1.5 seconds and ended as OpenCode ends: the log stays
    Ended,
    /// Started every 1.5 seconds and closed: the log is removed
    Closed,
    /// The log is emptied every 1.5 seconds, while it is written
    Emptied,
    /// The log is emptied when nobody has written for a while
    EmptiedAtRest,
    /// Transactions of 2,000 frames, spilled
    Large,
    /// Transactions of 20,000 frames, spilled
    Huge,
    /// VACUUM, and commits between
    Vacuum,
    /// A column, an index or a table more every two seconds, and commits between
    Upgrade,
    /// Nothing for eight seconds, then 1,500 frames at once
    Burst,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let directory = measure::directory(args.keep.as_deref());
    report::machine();
    let usual = measure::made(&USUAL, &directory)?;
    let patterns = match args.only {
        Some(only) => vec![only],
        None => Pattern::value_variants().to_vec(),
    };
    for mib in [USUAL.mib, args.large] {
        let db = copy(&usual, mib)?;
        println!("\n{mib} MiB, {} seconds of each pattern", args.writing);
        for pattern in &patterns {
            let found = list_beside(&db.path, *pattern, args.writing)?;
            found.report(*pattern);
        }
        if args.large == USUAL.mib {
            break;
        }
    }
    Ok(())
}

/// A copy of a database, made as large as this by rows without text.
struct Copy {
    path: PathBuf,
    _place: tempfile::TempDir,
}

fn copy(database: &Database, mib: u64) -> Result<Copy> {
    let place = tempfile::tempdir_in(database.directory().parent().unwrap_or(Path::new(".")))?;
    let path = place.path().join("opencode.db");
    copied::copy(&database.path, &path)?;
    let conn = Connection::open(&path)?;
    conn.execute_batch(
        "PRAGMA journal_mode = delete; PRAGMA synchronous = off; CREATE TABLE bench_filler (x)",
    )?;
    let rows = i64::try_from(mib.saturating_sub(fs::metadata(&path)?.len() >> 20))?;
    conn.execute(
        "WITH n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
         INSERT INTO bench_filler SELECT zeroblob(1044000) FROM n WHERE i > 0",
        [rows],
    )?;
    conn.execute_batch("PRAGMA journal_mode = wal")?;
    drop(conn);
    fs::File::open(&path)?.sync_all()?;
    Ok(Copy {
        path,
        _place: place,
    })
}

/// When the next listing may start: `interval` in `src/service/schedule.rs`.
#[derive(Debug, Default)]
struct Schedule {
    quiet_level: u32,
    last_ended: Option<Instant>,
    not_before: Option<Instant>,
}

impl Schedule {
    fn finish(&mut self, started: Instant, has_changed: bool, scan: &Scan) {
        const MIN: Duration = Duration::from_millis(500);
        const MAX: Duration = Duration::from_secs(5);
        let now = Instant::now();
        let since_last = self.last_ended.map_or(MAX, |last| now - last);
        self.last_ended = Some(now);
        match (has_changed, scan.frames) {
            (true, _) => self.quiet_level /= 2,
            (false, 0) => {}
            (false, _) => self.quiet_level = (self.quiet_level + 1).min(4),
        }
        let until_full = since_last.as_secs_f64() * 500.0 / scan.frames.max(1) as f64;
        let interval = (MIN * (1 << self.quiet_level))
            .min(Duration::from_secs_f64(until_full.clamp(0.0, 5.0)))
            .max((now - started) * 4)
            .clamp(MIN, MAX);
        self.not_before = Some(started + interval);
    }

    fn may_start(&self) -> bool {
        self.not_before.is_none_or(|at| Instant::now() >= at)
    }
}

/// What the watcher sees of the files.
fn stamp(db: &Path) -> Vec<(u64, u64, i64, i64)> {
    let log = log_of(db);
    let stamp = |path: &Path| match fs::metadata(path) {
        Ok(file) => (file.ino(), file.len(), file.mtime(), file.mtime_nsec()),
        Err(_) => (0, 0, 0, 0),
    };
    vec![stamp(db), stamp(&log)]
}

/// The listings beside one pattern.
#[derive(Debug, Default)]
struct Found {
    listings: u64,
    incomplete: u64,
    not_opened: u64,
    modes: BTreeMap<&'static str, Times>,
    frames: u64,
    reasons: BTreeMap<&'static str, u64>,
}

fn list_beside(db: &Path, pattern: Pattern, seconds: u64) -> Result<Found> {
    let place = tempfile::tempdir()?;
    let options = Options {
        marker: Some(MarkerText::default()),
        cache: Some(place.path().join("cache")),
        budget: Some(Duration::from_secs(2)),
        threads: 2,
    };
    // Everything is known when the pattern begins.
    let (mut found, mut sessions) = (Found::default(), 0);
    for _ in 0..100 {
        let (scan, _) = found.list(db, &options, &mut sessions)?;
        if scan.is_some_and(|scan| scan.progress >= 1.0 && scan.mode != ScanMode::Full) {
            break;
        }
    }
    let mut found = Found::default();
    let (mut schedule, mut last_stamp) = (Schedule::default(), stamp(db));
    let pattern_name = pattern.to_possible_value().context("a name")?;
    let mut writer = Command::new(std::env::current_exe()?)
        .arg("fallback-writer")
        .arg(db)
        .args([pattern_name.get_name(), &seconds.to_string()])
        .spawn()?;
    let status = loop {
        let now = stamp(db);
        if now != last_stamp && schedule.may_start() {
            last_stamp = now;
            let started = Instant::now();
            let (scan, has_changed) = found.list(db, &options, &mut sessions)?;
            if let Some(scan) = scan {
                schedule.finish(started, has_changed, &scan);
                // The next listing continues it.
                if scan.progress < 1.0 {
                    last_stamp.clear();
                }
            }
        }
        if let Some(status) = writer.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_millis(10));
    };
    ensure!(status.success(), "the writer failed: {status}");
    Ok(found)
}

impl Found {
    /// Lists. Returns what the scan read, and whether a session has changed.
    fn list(
        &mut self,
        db: &Path,
        options: &Options,
        sessions: &mut i64,
    ) -> Result<(Option<Scan>, bool)> {
        let open = OpenOptions {
            busy_timeout: Duration::from_secs(5),
            heap_limit: None,
            deadline: None,
        };
        let started = Instant::now();
        let Ok(Opened::Ready(database)) = Store::open(db, &open) else {
            // It is being opened or closed by the other.
            self.not_opened += 1;
            return Ok((None, false));
        };
        let scanned = marker::scan(&database, options)?;
        let last: i64 =
            scanned
                .snapshot
                .query_row("SELECT max(time_updated) FROM session", [], |row| {
                    row.get(0)
                })?;
        if let Some(update) = &scanned.cache_update {
            update.save()?;
        }
        self.listings += 1;
        self.frames += scanned.scan.frames;
        self.incomplete += u64::from(scanned.scan.progress < 1.0);
        let times = self.modes.entry(scanned.scan.mode.as_str()).or_default();
        times.add(started.elapsed());
        if let Some(reason) = scanned.full_scan_reason {
            *self.reasons.entry(reason).or_default() += 1;
        }
        let has_changed = std::mem::replace(sessions, last) != last;
        Ok((Some(scanned.scan), has_changed))
    }

    fn report(&self, pattern: Pattern) {
        let name = pattern.to_possible_value();
        let name = name.as_ref().map_or("", |name| name.get_name());
        print!(
            "  {name:<15} {:>4} listings, {:>6} frames",
            self.listings, self.frames
        );
        for mode in ["full", "tail", "unchanged"] {
            let (count, median) = self
                .modes
                .get(mode)
                .map_or((0, Duration::ZERO), |times| (times.0.len(), times.median()));
            print!("; {mode} {count} ({} ms)", milliseconds(median));
        }
        if self.incomplete + self.not_opened > 0 {
            print!(
                "; {} incomplete, {} not opened",
                self.incomplete, self.not_opened
            );
        }
        println!();
        for (reason, count) in &self.reasons {
            println!("      {count:>4}  {reason}");
        }
    }
}

/// Writes this pattern.
pub(crate) fn write(args: &WriterArgs) -> Result<()> {
    let mut writer = Writer {
        conn: connect(&args.db)?,
        db: args.db.clone(),
        commits: 0,
        until: Instant::now() + Duration::from_secs(args.seconds),
    };
    match args.pattern {
        Pattern::Steady => writer.pieces(2.0, None)?,
        Pattern::Busy => writer.pieces(120.0, None)?,
        Pattern::Ended | Pattern::Closed => {
            while writer.has_time() {
                writer.pieces(12.0, Some(Duration::from_millis(1200)))?;
                if args.pattern == Pattern::Ended {
                    let stays = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
                    writer.conn.set_db_config(stays, true)?;
                }
                writer.conn = Connection::open_in_memory()?;
                thread::sleep(Duration::from_millis(300));
                writer.conn = connect(&args.db)?;
            }
        }
        Pattern::Emptied | Pattern::EmptiedAtRest => {
            while writer.has_time() {
                writer.pieces(12.0, Some(Duration::from_millis(1500)))?;
                if args.pattern == Pattern::EmptiedAtRest {
                    thread::sleep(Duration::from_secs(6));
                }
                let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
                writer.conn.query_row(sql, [], |_| Ok(()))?;
                if args.pattern == Pattern::EmptiedAtRest {
                    thread::sleep(Duration::from_secs(6));
                }
            }
        }
        Pattern::Large => writer.transactions(2_000, Duration::from_secs(2))?,
        Pattern::Huge => writer.transactions(20_000, Duration::from_secs(5))?,
        Pattern::Vacuum => {
            writer.pieces(2.0, Some(Duration::from_secs(2)))?;
            writer.conn.execute_batch("VACUUM")?;
            writer.pieces(2.0, None)?;
        }
        Pattern::Upgrade => writer.upgrades()?,
        Pattern::Burst => {
            while writer.has_time() {
                thread::sleep(Duration::from_secs(8));
                writer.pieces(f64::INFINITY, Some(Duration::from_millis(600)))?;
            }
        }
    }
    // OpenCode is still there.
    let stays = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    writer.conn.set_db_config(stays, true)?;
    Ok(())
}

fn connect(db: &Path) -> Result<Connection> {
    let conn = Connection::open(db)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.execute_batch("PRAGMA synchronous = NORMAL")?;
    Ok(conn)
}

struct Writer {
    conn: Connection,
    db: PathBuf,
    commits: i64,
    until: Instant,
}

impl Writer {
    fn has_time(&self) -> bool {
        Instant::now() < self.until
    }

    /// Pieces of messages, so many commits a second, and with every tenth the session.
    fn pieces(&mut self, per_second: f64, how_long: Option<Duration>) -> Result<()> {
        let until = how_long.map_or(self.until, |how_long| Instant::now() + how_long);
        let mut next = Instant::now();
        while Instant::now() < until {
            self.piece()?;
            next += Duration::from_secs_f64(1.0 / per_second);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn piece(&mut self) -> Result<()> {
        self.commits += 1;
        let name = format!("{}-{}", std::process::id(), Copied::now() + self.commits);
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        if self.commits % 10 == 0 {
            self.conn.execute(
                "UPDATE session SET time_updated = ?1 WHERE rowid = 1 + ?2 % 300",
                params![Copied::now(), self.commits],
            )?;
        }
        self.conn.execute(
            "INSERT INTO part (id, message_id, session_id, time_created, time_updated, data)
             SELECT 'prt_fallback_' || ?1, id, session_id, ?2, ?2, ?3 FROM message
             WHERE rowid = 1 + ?4 % 300",
            params![name, Copied::now(), "step ".repeat(200), self.commits],
        )?;
        self.conn.execute_batch("COMMIT")?;
        Ok(())
    }

    /// Transactions of so many frames, which do not fit into the page cache.
    fn transactions(&mut self, frames: u32, every: Duration) -> Result<()> {
        self.conn.execute_batch("PRAGMA cache_size = 200")?;
        while self.has_time() {
            let started = Instant::now();
            let log = log_of(&self.db);
            self.conn.execute_batch("BEGIN IMMEDIATE")?;
            // Of a page and a half each.
            self.conn.execute(
                "WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                 INSERT INTO part (id, message_id, session_id, time_created, time_updated, data)
                 SELECT 'prt_large_' || ?2 || '_' || n.i, m.id, m.session_id, ?2, ?2, ?3
                 FROM n JOIN message m ON m.rowid = 1 + n.i % 300",
                params![frames / 3, Copied::now(), "many words ".repeat(550)],
            )?;
            self.conn.execute_batch("COMMIT")?;
            ensure!(fs::metadata(log)?.len() > 0, "no log");
            thread::sleep(every.saturating_sub(started.elapsed()));
        }
        Ok(())
    }

    fn upgrades(&mut self) -> Result<()> {
        let mut step = 0;
        while self.has_time() {
            self.pieces(4.0, Some(Duration::from_secs(2)))?;
            let n = format!("{}_{step}", std::process::id());
            let sql = match step % 4 {
                0 => format!("ALTER TABLE part ADD COLUMN upgrade_{n} TEXT"),
                1 => format!("CREATE INDEX upgrade_{n} ON session (time_updated)"),
                2 => format!("ALTER TABLE session ADD COLUMN upgrade_{n} TEXT DEFAULT 'x'"),
                _ => format!("CREATE TABLE upgrade_{n} (x); INSERT INTO upgrade_{n} VALUES (1)"),
            };
            if self.conn.execute_batch(&sql).is_err() {
                bail!("cannot upgrade: {sql}");
            }
            step += 1;
        }
        Ok(())
    }
}
