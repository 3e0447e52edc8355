//! `./scripts/bench`: every goal of speed, with what it is measured beside, in one run.
//!
//! What is compared takes turns (A, B, A, B …), so that a busy moment hits all alike; shown are
//! medians and minima. A missed goal is shown and no failure; exit status 1 means that something
//! did not work.

mod listings;
mod serviced;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::generate::{Database, SMALL, Shape, USUAL};
use crate::measure::{self, Times};
use crate::peers::Peer;
use crate::report::{self, hundredths, milliseconds};
use crate::scan::every_seven_seconds;
use crate::service::{self, MANY, REFRESHES};
use crate::sizes;
use listings::{Listings, OpenCodeLists};
use serviced::{Lists, OneChanged};

/// Measures every goal of speed, beside its peers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds that count, at least 3
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=1000))]
    runs: u64,

    /// Commits whose way to the change event is measured
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=340))]
    commits: u64,

    /// How long somebody writes while the service runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    writing: u64,

    /// Small databases and few rounds: does every part run? Its figures mean nothing
    #[arg(long)]
    quick: bool,

    /// Keep the databases in this directory [default: in target/tmp]
    #[arg(long, value_name = "PATH")]
    keep: Option<PathBuf>,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much is measured.
struct Extent {
    usual: Shape,
    grown_mib: u64,
    hollow_mib: u64,
    many: Shape,
    runs: u64,
    commits: u64,
    writing: Duration,
    /// Sessions changed one after the other.
    changes: u64,
    memory_runs: usize,
    refreshes: u64,
}

impl Extent {
    fn of(args: &Args) -> Self {
        if args.quick {
            return Self {
                usual: SMALL,
                grown_mib: 48,
                hollow_mib: 96,
                many: Shape {
                    sessions: 1_000,
                    ..SMALL
                },
                runs: 3,
                commits: 5,
                writing: Duration::from_secs(5),
                changes: 5,
                memory_runs: 2,
                refreshes: 2,
            };
        }
        Self {
            usual: USUAL,
            grown_mib: 10 * USUAL.mib,
            hollow_mib: 12 << 10,
            many: MANY,
            runs: args.runs,
            commits: args.commits,
            writing: Duration::from_secs(args.writing),
            changes: 40,
            memory_runs: 5,
            refreshes: REFRESHES,
        }
    }
}

/// The databases of the rounds, which nobody writes to.
struct Databases {
    usual: Database,
    grown: Database,
    hollow: Database,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let extent = Extent::of(args);
    let directory = measure::directory(args.keep.as_deref());
    report::machine();
    if args.quick {
        println!("QUICK      small databases, few rounds: the figures mean nothing");
    }
    let many = measure::made(&extent.many, &directory)?;
    let small = measure::made(&SMALL, &directory)?;
    let usual = measure::made(&extent.usual, &directory)?;
    let databases = Databases {
        grown: sizes::grown(&usual, extent.grown_mib)?,
        hollow: sizes::hollow(&usual, extent.hollow_mib)?,
        usual,
    };
    println!(
        "           That of {} MiB is sparse: {} MiB of it are free pages, holes in the file, \
         which a listing with nothing new does not read",
        extent.hollow_mib,
        extent.hollow_mib - extent.usual.mib
    );
    report::page_cache(&databases.usual);

    let mut goals = Goals::default();
    let listings = listings::rounds(&databases, &directory, extent.runs)?;
    goals.nothing_new(&databases, &listings);
    goals.tail_and_full(&listings);
    goals.one_changed(&serviced::one_changed(&many, extent.changes)?);
    let minute = crate::scan::minute(&databases.usual, extent.writing)?;
    let part = minute.of_all().as_secs_f64() / minute.of_original().as_secs_f64();
    goals.add(
        "a minute at 10 frames a second",
        format!(
            "{part:.3} of the original query's processor time, {} of {} ms",
            milliseconds(minute.of_all()),
            milliseconds(minute.of_original())
        ),
        "a tenth",
        part <= 0.1,
    );
    goals.commits(&service::commits(&small, extent.commits)?);
    goals.memory(&many, &extent)?;
    goals.lists(&serviced::lists(&many, extent.runs)?);
    let opencode = listings::opencode(extent.runs.min(5))?;

    println!();
    goals.print();
    println!();
    print_peers(&listings, &opencode, &minute);
    Ok(())
}

/// The lines of the table.
#[derive(Default)]
struct Goals(Vec<[String; 4]>);

impl Goals {
    fn add(&mut self, goal: &str, figure: String, limit: &str, is_reached: bool) {
        let reached = if is_reached { "reached" } else { "MISSED" };
        self.0.push([
            goal.to_owned(),
            figure,
            limit.to_owned(),
            reached.to_owned(),
        ]);
    }

    fn print(&self) {
        let heading = ["goal", "figure", "at most", ""].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(heading)
            .chain(self.0.iter().cloned())
            .collect();
        report::left_table(&rows);
        let missed = self.0.iter().filter(|row| row[3] == "MISSED").count();
        println!("{missed} of {} missed", self.0.len());
    }

    fn time(&mut self, goal: &str, times: &Times, most: Duration) {
        self.add(
            goal,
            median_and_minimum(times),
            &format!("{} ms", most.as_secs_f64() * 1000.0),
            times.median() <= most,
        );
    }

    fn nothing_new(&mut self, databases: &Databases, listings: &Listings) {
        let most = Duration::from_micros(2500);
        let (mut medians, mut minima) = (Vec::new(), Vec::new());
        for (mib, times) in &listings.nothing_new {
            let goal = format!(
                "nothing new, {} sessions, {mib} MiB",
                databases.usual.shape.sessions
            );
            self.time(&goal, times, most);
            medians.push(times.median().as_secs_f64());
            minima.push(times.min().as_secs_f64());
        }
        let apart = |times: &[f64]| {
            let longest = times.iter().copied().fold(0.0, f64::max);
            longest / times.iter().copied().fold(f64::MAX, f64::min)
        };
        let ratio = apart(&medians);
        self.add(
            "nothing new, flat over these sizes",
            format!(
                "{ratio:.2} times between their medians, {:.2} between their minima",
                apart(&minima)
            ),
            "1.2 times",
            ratio <= 1.2,
        );
    }

    fn tail_and_full(&mut self, listings: &Listings) {
        let median = |times: &Times| times.median().as_secs_f64();
        let goal = format!(
            "tail of {} to {} frames ({} of {} were tail scans)",
            listings.frames.iter().min().unwrap_or(&0),
            listings.frames.iter().max().unwrap_or(&0),
            listings.tail.count(),
            listings.tail.count() as u64 + listings.not_tail,
        );
        self.time(&goal, &listings.tail, Duration::from_micros(3500));
        let faster = median(&listings.original) / median(&listings.tail);
        self.add(
            "the original query beside it",
            format!("{faster:.0} times as long"),
            "(at least 60 times)",
            faster >= 60.0,
        );
        let slower = median(&listings.full) / median(&listings.read);
        self.add(
            "full scan, 2 threads",
            format!(
                "{slower:.2} times reading the bytes with 2 threads, {} of {} ms",
                milliseconds(listings.full.median()),
                milliseconds(listings.read.median())
            ),
            "1.4 times",
            slower <= 1.4,
        );
    }

    fn one_changed(&mut self, one: &OneChanged) {
        let OneChanged {
            sessions,
            changes,
            listings,
            helper,
            main,
            bytes,
            bytes_unchanged,
            line,
        } = one;
        let of = format!("{sessions} sessions, one changed");
        self.add(
            &format!("{of}: helper, launch to end"),
            format!("{} ms, median of all listings", hundredths(*helper)),
            "25 ms",
            *helper <= Duration::from_millis(25),
        );
        if let Some(main) = main {
            self.add(
                &format!("{of}: main process"),
                format!(
                    "{:.2} ms of processor time a listing ({listings} listings of {changes} changes)",
                    main.as_secs_f64() * 1000.0
                ),
                "1 ms",
                *main <= Duration::from_millis(1),
            );
        }
        // What a listing sends however little has changed: its first and its last line.
        let always = (*bytes_unchanged).min(1024);
        let most = line + 40;
        self.add(
            &format!("{of}: bytes from the helper"),
            format!(
                "{bytes} a listing, {bytes_unchanged} if nothing has changed: {} for the change",
                bytes.saturating_sub(always)
            ),
            &format!("{most}, the line and 40"),
            bytes.saturating_sub(always) <= most && *bytes_unchanged <= 1024,
        );
    }

    fn commits(&mut self, times: &Times) {
        for (percent, most) in [(50, 40), (99, 150)] {
            let time = times.percentile(percent);
            self.add(
                &format!("commit to change event, p{percent}"),
                format!("{} ms of {} commits", milliseconds(time), times.count()),
                &format!("{most} ms"),
                time <= Duration::from_millis(most),
            );
        }
    }

    fn memory(&mut self, many: &Database, extent: &Extent) -> Result<()> {
        const MOST_KIB: u64 = 14 << 10;
        let mut runs = Vec::new();
        for _ in 0..extent.memory_runs {
            let with_many = service::memory(many, extent.refreshes)?;
            runs.extend(with_many.last.map(|resident| resident.now));
        }
        let figures: Vec<_> = runs.iter().map(|kib| report::mebibytes(*kib)).collect();
        self.add(
            &format!(
                "main process, {} sessions, after {} refreshes",
                many.shape.sessions, extent.refreshes
            ),
            match figures.is_empty() {
                true => "unknown on this system".to_owned(),
                false => format!("{} MiB", figures.join(", ")),
            },
            "14 MiB, every run",
            !runs.is_empty() && runs.iter().all(|kib| *kib <= MOST_KIB),
        );
        Ok(())
    }

    fn lists(&mut self, lists: &Lists) {
        let of = format!("list of {} sessions", lists.sessions);
        self.time(
            &format!("{of} through the service"),
            &lists.through_service,
            Duration::from_millis(60),
        );
        self.time(
            &format!("{of} by itself"),
            &lists.by_itself,
            Duration::from_millis(120),
        );
    }
}

fn median_and_minimum(times: &Times) -> String {
    format!(
        "{} ms (minimum {})",
        hundredths(times.median()),
        hundredths(times.min())
    )
}

/// What the goals were measured beside.
fn print_peers(listings: &Listings, opencode: &Peer<OpenCodeLists>, minute: &crate::scan::Minute) {
    let mut rows =
        vec![["peers", "median ms", "min ms", "processor ms a minute"].map(str::to_owned)];
    let mut skipped = Vec::new();
    let mut row = |name: &str, times: &Times, a_minute: Option<Duration>| {
        rows.push([
            name.to_owned(),
            hundredths(times.median()),
            hundredths(times.min()),
            a_minute.map_or(String::new(), milliseconds),
        ]);
    };
    row("reading the bytes, 2 threads", &listings.read, None);
    row("`cat` of the file", &listings.cat, None);
    row("full scan, 2 threads", &listings.full, None);
    row(
        "original query, SQLite of this build, in its process",
        &listings.original,
        Some(minute.of_original()),
    );
    match &listings.node {
        Peer::Present(node) => row(
            &format!(
                "original query, SQLite of Node {}, in a worker",
                node.version
            ),
            &node.times,
            Some(every_seven_seconds(node.processor.median())),
        ),
        Peer::Skipped(why) => skipped.push(format!("the original query in Node: {why}")),
    }
    if let Some((_, times)) = listings.nothing_new.first() {
        row("nothing new", times, Some(minute.of_all()));
    }
    for (name, peer) in &listings.smallest {
        match peer {
            Peer::Present(times) => row(name, times, None),
            Peer::Skipped(why) => skipped.push(format!("{name}: {why}")),
        }
    }
    match opencode {
        Peer::Present(lists) => {
            row("`opencode session list`, 19 sessions", &lists.theirs, None);
            row("`opencode-sessions list` of the same", &lists.ours, None);
        }
        Peer::Skipped(why) => skipped.push(format!("opencode session list: {why}")),
    }
    report::table(&rows);
    println!(
        "processor time a minute: the original query every 7 s; for nothing new, the service and \
         its {:.0} listings while 10 frames a second are written, {} ms of it the main process",
        minute.listings(),
        milliseconds(minute.of_main())
    );
    for why in skipped {
        println!("SKIPPED: {why}");
    }
}

/// Where small programs are made.
fn place_for_programs(directory: &Path) -> Result<&Path> {
    std::fs::create_dir_all(directory)?;
    Ok(directory)
}
