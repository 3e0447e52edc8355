//! `./scripts/bench`: what a listing costs, beside the query it replaces.
//!
//! It makes databases in the shape of OpenCode's own (`generate`), keeps one
//! open as a running OpenCode does, and takes turns: the original query, the
//! helper with and without the marker, through the launcher and run directly.
//! One round of all of them is not counted (it warms the page cache), then each
//! round runs every one of them once, so that a busy moment of the machine hits
//! all alike. What is shown are the medians and minima of the rounds (`report`).
//!
//! This process only starts others and reads clocks. Whatever needs memory (the
//! generator, the original query, a caller that lists a hundred times) is this
//! program again, as a child with a hidden first argument (`measure`).
//!
//! Before anything is measured the answers are compared: ids, order and marks
//! of the helper must be those of the original query. A missed target is shown
//! and no failure; exit status 1 means that something did not work.

use std::path::PathBuf;

use anyhow::Result;

use crate::generate::{Database, SMALL, Shape, USUAL};
use crate::measure::{self, Memory, Peak, Times, Way};
use crate::report;

/// Measures listings on a made database and prints them beside the original query.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the database, in MiB
    #[arg(long, value_name = "MIB", default_value_t = USUAL.mib, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    size: u64,

    /// Root sessions that are not archived [default: 343 for each 490 MiB]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=150_000))]
    sessions: Option<u64>,

    /// Parts, the pieces of messages [default: 82,000 for each 490 MiB]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    parts: Option<u64>,

    /// Bytes of text for each `<`, at which the original query stops: the fewer, the slower it is
    #[arg(long, value_name = "BYTES", default_value_t = 300, value_parser = clap::value_parser!(u64).range(20..=100_000))]
    markup: u64,

    /// Rounds that count, at least 5
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u64).range(5..=1000))]
    runs: u64,

    /// Keep the databases in this directory [default: in target/tmp]
    #[arg(long, value_name = "PATH")]
    keep: Option<PathBuf>,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn shape(&self) -> Shape {
        let share = |of_the_usual: u64| (self.size * of_the_usual).div_ceil(USUAL.mib);
        Shape {
            mib: self.size,
            sessions: self.sessions.unwrap_or_else(|| share(USUAL.sessions)),
            parts: self.parts.unwrap_or_else(|| share(USUAL.parts)),
            markup: self.markup,
        }
    }
}

/// So many sessions that a listing of them does not fit into the memory allowed.
const MANY: Shape = Shape {
    mib: 128,
    sessions: 50_000,
    parts: 60_000,
    markup: 300,
};

/// Ways that are measured in each round, the original query first.
const WAYS: [Way; 5] = [
    Way::Original,
    Way::Launched { marker: true },
    Way::Launched { marker: false },
    Way::Direct { marker: true },
    Way::Direct { marker: false },
];

pub(crate) fn run(args: &Args) -> Result<()> {
    let shape = args.shape();
    report::machine();
    let directory = measure::directory(args.keep.as_deref());
    let database = measure::made(&shape, &directory)?;
    let small = measure::made(&SMALL, &directory)?;
    let many = measure::made(&MANY, &directory)?;
    report::page_cache(&database);

    for database in [&database, &small, &many] {
        let _open = measure::hold(database)?;
        measure::compare(database)?;
    }
    report::agreed();

    let times = times(&database, args.runs)?;
    let recovering = measure::recovering(&database, args.runs)?;
    report::times(&database, &times, &recovering, args.runs);
    report::look_ups(&look_ups(&database, args.runs)?);
    let peaks = peaks(&database, &small, &many)?;
    let callers = callers(&database)?;
    report::memory(&peaks, &callers);
    Ok(())
}

fn times(database: &Database, runs: u64) -> Result<Vec<(Way, Times)>> {
    let _open = measure::hold(database)?;
    let mut original = measure::Original::start(database)?;
    let mut all: Vec<_> = WAYS.map(|way| (way, Times::default())).into();
    for round in 0..=runs {
        for (way, times) in &mut all {
            let took = measure::once(*way, database, &mut original)?;
            if round > 0 {
                times.add(took);
            }
        }
    }
    Ok(all)
}

/// `opencode-sessions get` and `roots` of one id, from the start of the program to its
/// end, in turn.
fn look_ups(database: &Database, runs: u64) -> Result<[(&'static str, Times); 2]> {
    let _open = measure::hold(database)?;
    let id = measure::last_listed(database)?;
    let mut all = ["get", "roots"].map(|what| (what, Times::default()));
    for round in 0..=runs {
        for (what, times) in &mut all {
            let took = measure::look_up(database, what, &id)?;
            if round > 0 {
                times.add(took);
            }
        }
    }
    Ok(all)
}

fn peaks(main: &Database, small: &Database, many: &Database) -> Result<Vec<Peak>> {
    let launched = |marker| Way::Launched { marker };
    [
        (Way::Original, main),
        (launched(true), main),
        (launched(false), main),
        (launched(true), small),
        (launched(false), small),
        (launched(true), many),
        (launched(false), many),
    ]
    .into_iter()
    .map(|(way, database)| measure::peak(way, database))
    .collect()
}

fn callers(database: &Database) -> Result<Vec<Memory>> {
    [true, false]
        .into_iter()
        .map(|marker| measure::caller(database, marker))
        .collect()
}
