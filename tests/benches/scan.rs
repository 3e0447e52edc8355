//! `./scripts/bench scan`: what looking for the marker costs.
//!
//! Everything is the helper's whole process, from its start to its end, run with
//! the arguments that the service would give it; only the processor time of a
//! minute is that of a service and its helpers. The databases are those of the other
//! benchmarks (`generate`), and one of 5 GB. Those that are written to are copies.
//! Rounds take turns, as in the benchmark of listings. A missed target is shown
//! and no failure; exit status 1 means that something did not work.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::io::{Errno, ReadWriteFlags};
use serde_json::Value;
use tempfile::TempDir;

use crate::copied::{Copied, log_of};
use crate::generate::{Database, SMALL, Shape, USUAL};
use crate::measure::{self, Times, Way};
use crate::report::{self, mebibytes, milliseconds, target};
use crate::serving::Serving;

/// Measures looking for the marker and prints the figures beside the targets.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the large database, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4900, value_parser = clap::value_parser!(u64).range(490..=65_536))]
    large: u64,

    /// Rounds that count, at least 5
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u64).range(5..=1000))]
    runs: u64,

    /// How long somebody writes while the service runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    writing: u64,

    /// Keep the databases in this directory [default: in target/tmp]
    #[arg(long, value_name = "PATH")]
    keep: Option<PathBuf>,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// New frames of which a listing is to be measured.
pub(crate) const FRAMES: u64 = 200;

/// Commits a second of a writer that writes much.
const COMMITS_A_SECOND: u32 = 60;

/// Frames a second of OpenCode at a human pace.
const HUMAN: f64 = 10.0;

/// The original query ran so often.
pub(crate) const ORIGINAL_EVERY: Duration = Duration::from_secs(7);

/// Bytes of one large cell.
const LARGE_CELL: usize = 400 << 20;

/// The helper's peak memory, in KiB.
const PEAK_KIB: u64 = 24 << 10;

pub(crate) fn run(args: &Args) -> Result<()> {
    let directory = measure::directory(args.keep.as_deref());
    report::machine();
    let usual = measure::made(&USUAL, &directory)?;
    let large = Shape {
        mib: args.large,
        sessions: USUAL.sessions,
        parts: args.large * USUAL.parts / USUAL.mib,
        markup: USUAL.markup,
    };
    let large = measure::made(&large, &directory)?;
    let small = measure::made(&SMALL, &directory)?;
    report::page_cache(&large);

    let everything = everything(&usual, args.runs)?;
    report_everything(&usual, &everything);
    let original = everything.original.median();
    {
        let (mut usual, mut large) = (Writer::to(&usual)?, Writer::to(&large)?);
        let changes = changes(&mut usual, &mut large, args.runs)?;
        report_changes(&changes, original);
        let log = log_beside_a_writer(&mut large)?;
        report_log(&log);
        let cold = cold(&large)?;
        report_cold(&cold);
        report_memory(&memory(&usual, &large, &Writer::to(&small)?)?);
    }
    report_minute(&minute(&usual, Duration::from_secs(args.writing))?);
    Ok(())
}

/// A place for a scan cache.
pub(crate) struct Cache {
    path: PathBuf,
    _place: TempDir,
}

impl Cache {
    pub(crate) fn new() -> Result<Self> {
        let place = tempfile::tempdir()?;
        Ok(Self {
            path: place.path().join("cache"),
            _place: place,
        })
    }

    pub(crate) fn arguments(&self) -> Result<[&str; 4]> {
        let path = self.path.to_str().context("a path in UTF-8")?;
        Ok(["--scan-budget", "2000", "--scan-cache", path])
    }
}

/// What a helper said of its scan.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) took: Duration,
    pub(crate) mode: String,
    pub(crate) frames: u64,
    bytes: u64,
    pub(crate) progress: f64,
}

pub(crate) fn scan(db: &Path, arguments: &[&str]) -> Result<Scanned> {
    let (took, output) = measure::run(db, arguments)?;
    let end = output.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    let end: Value = serde_json::from_slice(end.context("no output")?)?;
    ensure!(end["type"] == "end", "the helper failed: {end}");
    let scan = &end["scan"];
    Ok(Scanned {
        took,
        mode: scan["mode"].as_str().context("no mode")?.to_owned(),
        frames: scan["frames"].as_u64().context("no frames")?,
        bytes: scan["bytes"].as_u64().context("no bytes")?,
        progress: scan["progress"].as_f64().context("no progress")?,
    })
}

/// Listings that read everything.
#[derive(Debug, Default)]
struct Everything {
    original: Times,
    full: Times,
    raw: Times,
}

fn everything(database: &Database, runs: u64) -> Result<Everything> {
    let _open = measure::hold(database)?;
    measure::compare(database)?;
    report::agreed();
    let mut original = measure::Original::start(database)?;
    let mut all = Everything::default();
    for round in 0..=runs {
        let took = [
            measure::once(Way::Original, database, &mut original)?,
            scan(&database.path, &["--threads", "2"])?.took,
            read_raw(&database.path)?,
        ];
        if round > 0 {
            for (times, took) in [&mut all.original, &mut all.full, &mut all.raw]
                .into_iter()
                .zip(took)
            {
                times.add(took);
            }
        }
    }
    Ok(all)
}

/// Reads a file's bytes, and does nothing with them: two threads, 256 KiB at a
/// time, each to the start of a page.
pub(crate) fn read_raw(path: &Path) -> Result<Duration> {
    const PIECE: usize = 256 << 10;
    const PAGE: usize = 4096;
    let file = File::open(path)?;
    let pieces = file.metadata()?.len().div_ceil(PIECE as u64);
    let next = AtomicU64::new(0);
    let read = || {
        let mut memory = vec![0; PIECE + PAGE];
        let start = memory.as_ptr().align_offset(PAGE).min(PAGE);
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                return anyhow::Ok(());
            }
            file.read_at(&mut memory[start..][..PIECE], piece * PIECE as u64)?;
        }
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let other = scope.spawn(read);
        read()?;
        other.join().ok().context("a thread that reads")?
    })?;
    Ok(started.elapsed())
}

fn report_everything(database: &Database, all: &Everything) {
    let median = |times: &Times| times.median().as_secs_f64();
    let faster = median(&all.original) / median(&all.full);
    let slower = median(&all.full) / median(&all.raw);
    let row = |name: &str, times: &Times, target: String| {
        [
            name.to_owned(),
            milliseconds(times.median()),
            milliseconds(times.min()),
            target,
        ]
    };
    println!();
    report::table(&[
        [
            format!("everything, {} MiB", database.shape.mib),
            "median ms".to_owned(),
            "min ms".to_owned(),
            "target".to_owned(),
        ],
        row(
            "original query, in its process",
            &all.original,
            String::new(),
        ),
        row(
            "full scan, 2 threads, the helper's whole process",
            &all.full,
            format!(
                "{}, {}",
                target(
                    &format!("{faster:.1} times faster than the original query, at least 3.5"),
                    faster >= 3.5
                ),
                target(
                    &format!("{slower:.1} times as long as reading, at most 4"),
                    slower <= 4.0
                ),
            ),
        ),
        row("reading its bytes, 2 threads", &all.raw, String::new()),
    ]);
}

/// A copy with somebody who writes to it.
pub(crate) struct Writer {
    mib: u64,
    pub(crate) copied: Copied,
    sessions: Vec<String>,
    commits: u64,
    /// What one commit writes, as far as it is known.
    frames_a_commit: f64,
}

impl Writer {
    pub(crate) fn to(database: &Database) -> Result<Self> {
        let copied = Copied::of(database)?;
        let mut writer = Self {
            mib: database.shape.mib,
            sessions: copied.sessions()?,
            copied,
            commits: 0,
            frames_a_commit: 0.0,
        };
        writer.frames_a_commit = writer.frames_of(Self::commit)?;
        Ok(writer)
    }

    /// How many frames it writes, on average.
    fn frames_of(&mut self, write: impl Fn(&mut Self) -> Result<()>) -> Result<f64> {
        const TIMES: u32 = 20;
        let cache = Cache::new()?;
        let arguments = cache.arguments()?;
        // The first scans learn everything, and one after the log began anew may.
        for _ in 0..100 {
            for _ in 0..TIMES {
                write(self)?;
            }
            let scanned = scan(&self.copied.path, &arguments)?;
            if scanned.mode == "tail" {
                return Ok(scanned.frames as f64 / f64::from(TIMES));
            }
        }
        bail!("what is written is not in the log")
    }

    fn commit(&mut self) -> Result<()> {
        let session = &self.sessions[self.commits as usize % self.sessions.len()];
        self.commits += 1;
        let title = format!("scan {}", self.commits);
        self.copied.commit(session, &title)?;
        Ok(())
    }

    /// A turn writes pieces of a message, and with every tenth the session.
    fn piece(&mut self) -> Result<()> {
        if self.commits.is_multiple_of(10) {
            return self.commit();
        }
        let session = &self.sessions[self.commits as usize / 10 % self.sessions.len()];
        self.commits += 1;
        let name = format!("piece {}", self.commits);
        self.copied.insert_part(session, &name)
    }

    pub(crate) fn write(&mut self, frames: u64) -> Result<()> {
        for _ in 0..(frames as f64 / self.frames_a_commit).ceil() as u64 {
            self.commit()?;
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        log_of(&self.copied.path)
    }
}

/// Listings with a cache.
#[derive(Debug, Default)]
struct OfOne {
    mib: u64,
    tail: Times,
    frames: Vec<u64>,
    full: u64,
    unchanged: Times,
}

struct Changes {
    usual: OfOne,
    large: OfOne,
}

fn changes(usual: &mut Writer, large: &mut Writer, runs: u64) -> Result<Changes> {
    let caches = [Cache::new()?, Cache::new()?];
    let mut writers = [usual, large];
    let mut all = writers.each_ref().map(|writer| OfOne {
        mib: writer.mib,
        ..OfOne::default()
    });
    for (writer, cache) in writers.iter().zip(&caches) {
        while scan(&writer.copied.path, &cache.arguments()?)?.progress < 1.0 {}
    }
    for round in 0..=runs {
        for ((writer, cache), all) in writers.iter_mut().zip(&caches).zip(&mut all) {
            writer.write(FRAMES)?;
            let arguments = cache.arguments()?;
            let tail = scan(&writer.copied.path, &arguments)?;
            let unchanged = scan(&writer.copied.path, &arguments)?;
            ensure!(
                unchanged.mode == "unchanged",
                "nothing was written, and the scan was {unchanged:?}"
            );
            if round == 0 {
                continue;
            }
            all.unchanged.add(unchanged.took);
            if tail.mode == "tail" {
                all.tail.add(tail.took);
                all.frames.push(tail.frames);
            } else {
                all.full += 1;
            }
        }
    }
    let [usual, large] = all;
    Ok(Changes { usual, large })
}

fn report_changes(changes: &Changes, original: Duration) {
    let Changes { usual, large } = changes;
    let median = |times: &Times| times.median().as_secs_f64();
    let faster = original.as_secs_f64() / median(&usual.tail);
    let longer = median(&large.tail) / median(&usual.tail);
    let row = |name: String, times: &Times, target: String| {
        [
            name,
            milliseconds(times.median()),
            milliseconds(times.min()),
            target,
        ]
    };
    let tail = |of: &OfOne| {
        let (least, most) = (of.frames.iter().min(), of.frames.iter().max());
        format!(
            "after {} to {} new frames, {} MiB ({} of {} were tail scans)",
            least.unwrap_or(&0),
            most.unwrap_or(&0),
            of.mib,
            of.frames.len(),
            of.frames.len() as u64 + of.full,
        )
    };
    println!();
    report::table(&[
        ["what is new", "median ms", "min ms", "target"].map(str::to_owned),
        row(
            tail(usual),
            &usual.tail,
            format!(
                "{}, {}",
                target(
                    "at most 6 ms",
                    usual.tail.median() <= Duration::from_millis(6)
                ),
                target(
                    &format!("{faster:.0} times faster than the original query, at least 70"),
                    faster >= 70.0
                ),
            ),
        ),
        row(
            tail(large),
            &large.tail,
            target(
                &format!("{longer:.2} times as long, at most 1.3"),
                longer <= 1.3,
            ),
        ),
        row(
            format!("nothing, {} MiB", usual.mib),
            &usual.unchanged,
            target(
                "at most 4 ms",
                usual.unchanged.median() <= Duration::from_millis(4),
            ),
        ),
        row(
            format!("nothing, {} MiB", large.mib),
            &large.unchanged,
            String::new(),
        ),
    ]);
}

/// The log of somebody who writes much, in bytes, and the listings meanwhile.
struct Log {
    mib: u64,
    alone: u64,
    scanned: u64,
    scans: Times,
}

fn log_beside_a_writer(large: &mut Writer) -> Result<Log> {
    let path = large.copied.path.clone();
    // It begins where every log of this writer has been as long as it gets.
    large.write(2000)?;
    let alone = longest_log(large, Duration::from_secs(5))?;
    let (scanned, scans) = thread::scope(|scope| {
        let until = Instant::now() + Duration::from_secs(5);
        let scanning = scope.spawn(move || {
            let mut scans = Times::default();
            while Instant::now() < until {
                scans.add(scan(&path, &["--threads", "2"])?.took);
            }
            anyhow::Ok(scans)
        });
        let longest = longest_log(large, Duration::from_secs(6));
        let scans = scanning.join().ok().context("the listings")?;
        anyhow::Ok((longest?, scans?))
    })?;
    Ok(Log {
        mib: large.mib,
        alone,
        scanned,
        scans,
    })
}

/// Commits for so long, and looks how long the log is.
fn longest_log(writer: &mut Writer, how_long: Duration) -> Result<u64> {
    let started = Instant::now();
    let mut longest = 0;
    for number in 1.. {
        writer.commit()?;
        longest = longest.max(fs::metadata(writer.log())?.len());
        let next = Duration::from_secs(1) / COMMITS_A_SECOND * number;
        if next >= how_long {
            break;
        }
        thread::sleep(next.saturating_sub(started.elapsed()));
    }
    Ok(longest)
}

fn report_log(log: &Log) {
    let times = log.scanned as f64 / log.alone as f64;
    let row = |name: String, bytes: u64, target: String| [name, mebibytes(bytes >> 10), target];
    println!();
    report::table(&[
        [
            format!("log, {COMMITS_A_SECOND} commits a second, {} MiB", log.mib),
            "longest MiB".to_owned(),
            "target".to_owned(),
        ],
        row("alone".to_owned(), log.alone, String::new()),
        row(
            format!(
                "with one full scan after the other ({}, of {} ms)",
                log.scans.0.len(),
                milliseconds(log.scans.median())
            ),
            log.scanned,
            target(
                &format!("{times:.2} times as long, at most 1.2"),
                times <= 1.2,
            ),
        ),
    ]);
}

/// Listings of a database of which nothing is in memory, until all is known.
struct Cold {
    mib: u64,
    listings: Vec<Scanned>,
}

fn cold(large: &Writer) -> Result<Cold> {
    let path = &large.copied.path;
    let file = File::open(path)?;
    // What is not written to the disk yet stays in memory.
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let cached = cached(&file)?;
    ensure!(
        cached < 0.05,
        "{:.0} % of the file stay in memory",
        100.0 * cached
    );
    let cache = Cache::new()?;
    let mut listings = Vec::new();
    loop {
        let scanned = scan(path, &cache.arguments()?)?;
        let is_complete = scanned.progress >= 1.0;
        listings.push(scanned);
        if is_complete {
            return Ok(Cold {
                mib: large.mib,
                listings,
            });
        }
        ensure!(listings.len() < 1000, "the scan does not end");
    }
}

/// What part of a file is in memory, of some of its pages.
fn cached(file: &File) -> Result<f64> {
    const LOOKS: u64 = 200;
    let apart = file.metadata()?.len() / LOOKS;
    let (mut page, mut found) = ([0; 4096], 0);
    for at in (0..LOOKS).map(|look| look * apart) {
        let into = &mut [IoSliceMut::new(&mut page)];
        match rustix::io::preadv2(file, into, at, ReadWriteFlags::NOWAIT) {
            Ok(_) => found += 1,
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(f64::from(found) / LOOKS as f64)
}

fn report_cold(cold: &Cold) {
    let mut rows = vec![[
        format!("nothing in the page cache, {} MiB", cold.mib),
        "ms".to_owned(),
        "read MiB".to_owned(),
        "known %".to_owned(),
        "target".to_owned(),
    ]];
    for (number, scanned) in cold.listings.iter().enumerate() {
        let most = Duration::from_millis(2500);
        let target = if number == 0 {
            target("at most 2500 ms", scanned.took <= most)
        } else {
            String::new()
        };
        rows.push([
            format!("listing {}, budget 2000 ms", number + 1),
            milliseconds(scanned.took),
            mebibytes(scanned.bytes >> 10),
            format!("{:.0}", 100.0 * scanned.progress),
            target,
        ]);
    }
    println!();
    report::table(&rows);
}

/// The most memory of a helper, in KiB, and of what started it.
struct Peak {
    name: String,
    kib: u64,
    floor: u64,
}

fn memory(usual: &Writer, large: &Writer, small: &Writer) -> Result<Vec<Peak>> {
    let mut peaks = Vec::new();
    let mut peak = |name: String, writer: &Writer, arguments: &[&str]| {
        let (kib, floor) = measure::peak_of_run(&writer.copied.path, arguments)?;
        peaks.push(Peak { name, kib, floor });
        anyhow::Ok(())
    };
    for writer in [usual, large] {
        let cache = Cache::new()?;
        let arguments = cache.arguments()?;
        let mib = writer.mib;
        peak(format!("full scan, {mib} MiB"), writer, &arguments)?;
        peak(format!("nothing new, {mib} MiB"), writer, &arguments)?;
    }
    let cache = Cache::new()?;
    let arguments = cache.arguments()?;
    let path = &small.copied.path;
    scan(path, &arguments)?;
    measure::insert_large_cell(path, LARGE_CELL)?;
    let mib = LARGE_CELL >> 20;
    peak(
        format!("a new cell of {mib} MiB, marked"),
        small,
        &arguments,
    )?;
    small
        .copied
        .conn
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    peak(
        format!("full scan with a cell of {mib} MiB, marked"),
        small,
        &[],
    )?;
    Ok(peaks)
}

fn report_memory(peaks: &[Peak]) {
    let heading = [
        "peak memory of the helper",
        "MiB",
        "starter's MiB",
        "target",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    for peak in peaks {
        rows.push([
            peak.name.clone(),
            mebibytes(peak.kib),
            mebibytes(peak.floor),
            target("at most 24 MiB", peak.kib <= PEAK_KIB),
        ]);
    }
    println!();
    report::table(&rows);
}

/// A service beside OpenCode at a human pace.
pub(crate) struct Minute {
    how_long: Duration,
    commits: u32,
    listings: u64,
    main: Duration,
    helpers: Duration,
    original: Duration,
}

pub(crate) fn minute(usual: &Database, how_long: Duration) -> Result<Minute> {
    let mut writer = Writer::to(usual)?;
    let apart = Duration::from_secs_f64(writer.frames_of(Writer::piece)? / HUMAN);
    let (mut serving, _) = Serving::start(&writer.copied.path)?;
    // The first listing, which reads everything, is not of this minute.
    thread::sleep(Duration::from_secs(4));
    let used = |serving: &Serving| {
        let (main, helpers) = (serving.processor_time(), serving.helpers_processor_time());
        main.zip(helpers).context("this system does not tell")
    };
    let listings = |serving: &mut Serving| {
        let status = serving.status()?;
        status["listings"].as_u64().context("no count")
    };
    let (before, listed_before) = (used(&serving)?, listings(&mut serving)?);
    let started = Instant::now();
    let mut pieces = 0;
    while started.elapsed() < how_long {
        writer.piece()?;
        pieces += 1;
        thread::sleep((apart * pieces).saturating_sub(started.elapsed()));
    }
    let (after, listed) = (used(&serving)?, listings(&mut serving)?);
    let original = (0..3)
        .map(|_| measure::processor_of_original(usual))
        .collect::<Result<Vec<_>>>()?;
    Ok(Minute {
        how_long,
        commits: pieces,
        listings: listed - listed_before,
        main: after.0 - before.0,
        helpers: after.1 - before.1,
        original: original.into_iter().min().unwrap_or_default(),
    })
}

impl Minute {
    /// How often it fits into a minute.
    fn a_minute(&self) -> f64 {
        60.0 / self.how_long.as_secs_f64()
    }

    /// Listings a minute.
    pub(crate) fn listings(&self) -> f64 {
        self.listings as f64 * self.a_minute()
    }

    /// The processor time a minute of the main process.
    pub(crate) fn of_main(&self) -> Duration {
        self.main.mul_f64(self.a_minute())
    }

    /// The processor time a minute of the main process and its helpers.
    pub(crate) fn of_all(&self) -> Duration {
        (self.main + self.helpers).mul_f64(self.a_minute())
    }

    /// The processor time a minute of the original query, run every 7 s.
    pub(crate) fn of_original(&self) -> Duration {
        every_seven_seconds(self.original)
    }
}

/// The processor time a minute of what takes so long and runs every 7 s.
pub(crate) fn every_seven_seconds(once: Duration) -> Duration {
    once.mul_f64(60.0 / ORIGINAL_EVERY.as_secs_f64())
}

fn report_minute(minute: &Minute) {
    let (ours, original) = (minute.of_all(), minute.of_original());
    let part = ours.as_secs_f64() / original.as_secs_f64();
    let row = |name: String, time: Duration, target: String| [name, milliseconds(time), target];
    println!();
    report::table(&[
        [
            format!(
                "processor time a minute, {:.0} frames a second in {:.1} commits",
                HUMAN,
                f64::from(minute.commits) / minute.how_long.as_secs_f64()
            ),
            "ms".to_owned(),
            "target".to_owned(),
        ],
        row(
            format!("the original query every {} s", ORIGINAL_EVERY.as_secs()),
            original,
            String::new(),
        ),
        row(
            format!(
                "the service and its helpers ({:.0} listings)",
                minute.listings()
            ),
            ours,
            target(&format!("{part:.2} of it, at most a tenth"), part <= 0.1),
        ),
        row(
            "of that the main process".to_owned(),
            minute.of_main(),
            String::new(),
        ),
    ]);
}
