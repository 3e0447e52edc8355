//! `./scripts/bench budget`: listings whose time does not suffice for all content.
//!
//! The helper's whole process, launched as a program would, or run directly where its
//! memory is measured. What is asked: a copy in rollback mode is read once; a large
//! database with a deadline that is shorter than its scan is listed each time, and is
//! known after finitely many listings, at rest and while somebody writes so much that the
//! log restarts again and again; many sessions need little memory and no temporary file.
//! A missed target is shown and no failure; exit status 1 means that something did not
//! work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{ListRequest, Lister, Outcome, ScanCache};
use rusqlite::Connection;

use crate::copied::{Copied, log_of};
use crate::generate::{Shape, USUAL};
use crate::measure;
use crate::report::{self, mebibytes, milliseconds, target};

/// Measures listings with little time and prints the figures beside the targets.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the copy in rollback mode, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1400, value_parser = clap::value_parser!(u64).range(100..=65_536))]
    copy: u64,

    /// Size of the large database, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4900, value_parser = clap::value_parser!(u64).range(490..=65_536))]
    large: u64,

    /// Sessions of the database with many
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=200_000))]
    sessions: u64,

    /// Keep the databases in this directory [default: in target/tmp]
    #[arg(long, value_name = "PATH")]
    keep: Option<PathBuf>,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// A deadline that no scan of the large database keeps.
const DEADLINE: Duration = Duration::from_millis(150);

/// How often the log restarts beside the listings.
const RESTART_EVERY: Duration = Duration::from_millis(1500);

/// After so many listings a scan is said not to end.
const MOST_LISTINGS: usize = 5000;

/// The helper's peak memory, in KiB.
const PEAK_KIB: u64 = 24 << 10;

pub(crate) fn run(args: &Args) -> Result<()> {
    let directory = measure::directory(args.keep.as_deref());
    report::machine();
    let of_size = |mib| Shape {
        mib,
        sessions: USUAL.sessions,
        parts: mib * USUAL.parts / USUAL.mib,
        markup: USUAL.markup,
    };
    rollback_mode(&measure::made(&of_size(args.copy), &directory)?.path)?;
    let large = measure::made(&of_size(args.large), &directory)?;
    report::page_cache(&large);
    let copied = Copied::of(&large)?;
    let mut rows = vec![[
        format!("deadline {} ms, {} MiB", DEADLINE.as_millis(), args.large),
        "listings".to_owned(),
        "longest ms".to_owned(),
        "target".to_owned(),
    ]];
    rows.push(until_known("at rest", &copied.path, Duration::ZERO)?);
    for (what, pause) in [
        ("the log restarts, one after the other", Duration::ZERO),
        ("the log restarts, every 500 ms", Duration::from_millis(500)),
    ] {
        let writer = Restarting::start(&copied.path);
        rows.push(until_known(what, &copied.path, pause)?);
        let restarts = writer.stop()?;
        println!("{what}: {restarts} restarts of the log meanwhile");
    }
    println!();
    report::table(&rows);
    many_sessions(args.sessions)
}

/// A listing by the launcher with a cache: how long it took, and how much is known.
fn listing(db: &Path, cache: &Path, deadline: Duration) -> Result<(Duration, f64)> {
    let mut request = ListRequest::of(db);
    request.deadline = deadline;
    request.scan_budget = Some(Duration::from_secs(2));
    request.scan_cache = Some(ScanCache::At(cache.to_owned()));
    let lister = ProcessLister::at(env!("CARGO_BIN_EXE_opencode-lister"));
    let started = Instant::now();
    match lister.list(&request) {
        Outcome::Complete(listing) => Ok((started.elapsed(), listing.end.scan.progress)),
        failed => bail!("a listing failed: {failed}"),
    }
}

/// A copy that `VACUUM INTO` makes, which is in rollback mode.
fn rollback_mode(database: &Path) -> Result<()> {
    let place = tempfile::tempdir_in(database.parent().context("a directory")?)?;
    let copy = place.path().join("copy.db");
    let name = copy.to_str().context("a path in UTF-8")?;
    Connection::open(database)?.execute("VACUUM INTO ?1", [name])?;
    let mib = std::fs::metadata(&copy)?.len() >> 20;
    // A file that changed just now could change again and look the same.
    thread::sleep(Duration::from_secs(3));
    let cache = place.path().join("cache");
    let mut rows = vec![[
        format!("copy in rollback mode, {mib} MiB"),
        "ms".to_owned(),
        "known %".to_owned(),
        "target".to_owned(),
    ]];
    for n in 1..=10 {
        let (took, known) = listing(&copy, &cache, Duration::from_secs(15))?;
        let target = match n {
            1 => target("within its budget", took <= Duration::from_millis(2500)),
            2 => target("at most 10 ms", took <= Duration::from_millis(10)),
            _ => String::new(),
        };
        let known = format!("{:.0}", known * 100.0);
        rows.push([format!("listing {n}"), milliseconds(took), known, target]);
    }
    println!();
    report::table(&rows);
    Ok(())
}

/// Lists with an empty cache until all is known.
fn until_known(what: &str, db: &Path, pause: Duration) -> Result<[String; 4]> {
    let place = tempfile::tempdir()?;
    let cache = place.path().join("cache");
    let (mut listings, mut longest, mut failed) = (0, Duration::ZERO, 0);
    let mut is_known = false;
    while !is_known && listings < MOST_LISTINGS {
        listings += 1;
        match listing(db, &cache, DEADLINE) {
            Ok((took, known)) => {
                longest = longest.max(took);
                is_known = known >= 1.0;
            }
            Err(error) => {
                failed += 1;
                println!("{what}, listing {listings}: {error}");
            }
        }
        thread::sleep(pause);
    }
    let ends = if is_known {
        "known after"
    } else {
        "not known after"
    };
    let each_time = format!("{ends} {listings}, {failed} failed");
    Ok([
        what.to_owned(),
        listings.to_string(),
        milliseconds(longest),
        target(&each_time, is_known && failed == 0),
    ])
}

/// Somebody who writes as many frames as make the log restart so often.
struct Restarting {
    stop: Arc<AtomicBool>,
    restarts: Arc<AtomicU64>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Restarting {
    fn start(db: &Path) -> Self {
        let (stop, restarts) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (told, counted, db) = (Arc::clone(&stop), Arc::clone(&restarts), db.to_owned());
        let thread = thread::spawn(move || write(&db, &told, &counted));
        Self {
            stop,
            restarts,
            thread,
        }
    }

    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(result) => result?,
            Err(_) => bail!("the writer panicked"),
        }
        Ok(self.restarts.load(Ordering::Relaxed))
    }
}

fn write(db: &Path, stop: &AtomicBool, restarts: &AtomicU64) -> Result<()> {
    let conn = Connection::open(db)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.execute_batch("PRAGMA synchronous = NORMAL")?;
    let session: String = conn.query_row("SELECT id FROM session LIMIT 1", [], |row| row.get(0))?;
    let log = log_of(db);
    // A thousand frames are written, then all of them are in the file.
    let pause = RESTART_EVERY / 1000 * 4;
    let mut salt = [0; 4];
    for n in 0_i64.. {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        conn.execute(
            "UPDATE session SET title = ?2, time_updated = time_updated + 1 WHERE id = ?1",
            (&session, format!("busy {n}")),
        )?;
        conn.execute(
            "INSERT INTO part (id, message_id, session_id, time_created, time_updated, data) \
             SELECT 'prt_busy_' || ?2 || random(), id, session_id, 1, 1, ?3 FROM message \
             WHERE session_id = ?1 LIMIT 1",
            (&session, n, "{\"type\":\"step-start\"}".repeat(150)),
        )?;
        let mut now = [0; 4];
        let file = std::fs::File::open(&log)?;
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut now, 16)?;
        restarts.fetch_add(u64::from(now != salt), Ordering::Relaxed);
        salt = now;
        thread::sleep(pause);
    }
    Ok(())
}

/// The helper's memory where there are many sessions, and no place for a temporary file.
fn many_sessions(sessions: u64) -> Result<()> {
    let place = tempfile::tempdir()?;
    let db = place.path().join("opencode.db");
    let conn = Connection::open(&db)?;
    conn.execute_batch(
        "PRAGMA journal_mode = wal; PRAGMA synchronous = off;
         CREATE TABLE session (id text PRIMARY KEY, directory text, title text, parent_id text,
           time_created integer, time_updated integer, time_archived integer)",
    )?;
    conn.execute(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
         INSERT INTO session SELECT 'ses_' || lower(hex(randomblob(13))), '/home/me/shop',
           'Session number ' || n, NULL, n, abs(random() % 1000000), NULL FROM n",
        [i64::try_from(sessions)?],
    )?;
    let (kib, floor) = measure::peak_of_run(&db, &[])?;
    let (took, output) = measure::run(&db, &[])?;
    let listed = output.iter().filter(|byte| **byte == b'\n').count() as u64 - 2;
    ensure!(listed == sessions, "{listed} of {sessions} were listed");
    println!();
    report::table(&[
        [
            "many sessions, by the helper alone".to_owned(),
            "ms".to_owned(),
            "peak MiB".to_owned(),
            "starter's MiB".to_owned(),
            "target".to_owned(),
        ],
        [
            format!("{sessions} sessions"),
            milliseconds(took),
            mebibytes(kib),
            mebibytes(floor),
            target("at most 24 MiB", kib <= PEAK_KIB),
        ],
    ]);
    Ok(())
}
