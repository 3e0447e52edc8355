//! `./scripts/bench scale`: how time and memory grow with sessions, bytes and sources.
//!
//! The helper is run by itself, its whole process; databases of one axis take turns. Memory of
//! the main process is that of a service that has listed everything and is at rest. The result
//! is a table, and a picture of it (`plot`); with `--guide` both replace those of the guide.

mod plot;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::copied::Copied;
use crate::generate::{Database, SMALL, Shape, USUAL};
use crate::measure::{self, Times};
use crate::report::{self, hundredths, mebibytes};
use crate::scan::{Cache, scan};
use crate::service::{self, SETTLED};
use crate::serving::Serving;
use crate::sizes;
use plot::{Axis, Panel, Series};

/// Measures how time and memory grow.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds that count, at least 3
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u64).range(3..=1000))]
    runs: u64,

    /// Write the picture and the table to `src/guide`
    #[arg(long, conflicts_with = "quick")]
    guide: bool,

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

/// Runs whose peak memory is asked for; the highest counts.
const PEAK_RUNS: usize = 3;

/// After so long a first search has failed.
const PATIENCE: Duration = Duration::from_secs(180);

/// What is measured.
struct Extent {
    sessions: &'static [u64],
    generated_mib: &'static [u64],
    /// They grow from the last generated one.
    grown_mib: &'static [u64],
    /// Sparse, with the rows of the last generated one.
    hollow_mib: u64,
    sources: &'static [usize],
    runs: u64,
}

impl Extent {
    fn of(args: &Args) -> Self {
        if args.quick {
            return Self {
                sessions: &[100, 1_000],
                generated_mib: &[4, 16],
                grown_mib: &[48],
                hollow_mib: 96,
                sources: &[1, 3],
                runs: 3,
            };
        }
        Self {
            sessions: &[100, 1_000, 10_000, 50_000, 200_000],
            generated_mib: &[16, 128, USUAL.mib],
            grown_mib: &[2_000, 10 * USUAL.mib],
            hollow_mib: 12 << 10,
            sources: &[1, 5, 10, 25, 50],
            runs: args.runs,
        }
    }
}

/// So many sessions with little text: 10,000 are those of the other benchmarks.
fn of_sessions(sessions: u64) -> Shape {
    Shape {
        mib: 16 + sessions * 32 / 10_000,
        sessions,
        parts: (sessions * 6 / 5).max(SMALL.parts),
        markup: USUAL.markup,
    }
}

/// The usual sessions with so much text.
fn of_size(mib: u64) -> Shape {
    Shape {
        mib,
        parts: (mib * USUAL.parts / USUAL.mib).max(SMALL.parts.min(100 * mib)),
        ..USUAL
    }
}

/// One of several sources.
const OF_MANY: Shape = Shape {
    mib: 4,
    sessions: 100,
    parts: 700,
    markup: 300,
};

pub(crate) fn run(args: &Args) -> Result<()> {
    let extent = Extent::of(args);
    let directory = measure::directory(args.keep.as_deref());
    report::machine();
    let load = format!("load {} before", report::load().unwrap_or(f64::NAN));
    if args.quick {
        println!("QUICK      small databases, few rounds: the figures mean nothing");
    }
    let sessions = sessions(&extent, &directory)?;
    let bytes = bytes(&extent, &directory)?;
    let of_many = measure::made(&OF_MANY, &directory)?;
    let sources = sources(&of_many, extent.sources, extent.runs)?;

    let text = text(&sessions, &bytes, &sources);
    println!("\n{text}");
    let now = jiff::Timestamp::now().to_string();
    let today = now.split('T').next().unwrap_or_default();
    let measured = format!("{today}, {}, {load}", report::machine_kind());
    let picture = plot::draw(&panels(&sessions, &bytes, &sources), &measured)?;
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
    let at = match args.guide {
        true => guide.join("scale.svg"),
        false => directory.join("scale.svg"),
    };
    fs::write(&at, picture)?;
    println!("picture    {}", at.display());
    if args.guide {
        let page = guide.join("speed.md");
        let table = format!("{measured}\n\n{text}");
        fs::write(&page, with_table(&fs::read_to_string(&page)?, &table)?)?;
        println!("table      {}", page.display());
    }
    Ok(())
}

/// The page with this text in its block of plain text.
fn with_table(page: &str, table: &str) -> Result<String> {
    const BEGIN: &str = "\n```text\n";
    let (before, rest) = page.split_once(BEGIN).context("the page has no block")?;
    let (_, after) = rest.split_once("```").context("the block has no end")?;
    Ok(format!("{before}{BEGIN}{}\n```{after}", table.trim_end()))
}

/// A database of one size, and what was measured of it.
struct Sized {
    name: String,
    /// Sessions, or MiB.
    size: u64,
    without_marker: Times,
    nothing_new: Times,
    full: Times,
    /// Peaks of the helper, in KiB.
    peak_nothing_new: u64,
    peak_full: u64,
    /// Memory of the main process, in KiB.
    main: Option<u64>,
}

fn sessions(extent: &Extent, directory: &Path) -> Result<Vec<Sized>> {
    let mut databases = Vec::new();
    for count in extent.sessions {
        let database = measure::made(&of_sessions(*count), directory)?;
        databases.push((format!("{count} sessions"), *count, database));
    }
    measured(databases, extent.runs, u64::MAX)
}

fn bytes(extent: &Extent, directory: &Path) -> Result<Vec<Sized>> {
    let named = |database: Database| {
        (
            format!("{} MiB", database.shape.mib),
            database.shape.mib,
            database,
        )
    };
    let mut databases = Vec::new();
    for mib in extent.generated_mib {
        let shape = match *mib {
            mib if mib == SMALL.mib => SMALL,
            mib => of_size(mib),
        };
        databases.push(named(measure::made(&shape, directory)?));
    }
    let (_, _, base) = databases.last().context("no database")?;
    let mut larger = Vec::new();
    for mib in extent.grown_mib {
        larger.push(named(sizes::grown(base, *mib)?));
    }
    let (_, mib, hollow) = named(sizes::hollow(base, extent.hollow_mib)?);
    larger.push((format!("{mib} MiB, sparse"), mib, hollow));
    databases.extend(larger);
    measured(databases, extent.runs, extent.hollow_mib)
}

/// Of databases from this size on no full scan counts: their bytes are not real.
fn measured(databases: Vec<(String, u64, Database)>, runs: u64, hollow: u64) -> Result<Vec<Sized>> {
    let mut all = Vec::new();
    for (name, size, database) in databases {
        let cache = Cache::new()?;
        let open = measure::hold(&database)?;
        while scan(&database.path, &cache.arguments()?)?.progress < 1.0 {}
        let sized = Sized {
            name,
            size,
            without_marker: Times::default(),
            nothing_new: Times::default(),
            full: Times::default(),
            peak_nothing_new: 0,
            peak_full: 0,
            main: None,
        };
        all.push((sized, database, cache, open));
    }
    for round in 0..=runs {
        for (sized, database, cache, _) in &mut all {
            let (without_marker, _) = measure::run(&database.path, &["--no-marker"])?;
            let nothing_new = scan(&database.path, &cache.arguments()?)?;
            ensure!(
                nothing_new.mode == "unchanged",
                "nothing is new: {nothing_new:?}"
            );
            let full = match sized.size < hollow {
                true => Some(scan(&database.path, &[])?.took),
                false => None,
            };
            if round > 0 {
                sized.without_marker.add(without_marker);
                sized.nothing_new.add(nothing_new.took);
                full.into_iter().for_each(|took| sized.full.add(took));
            }
        }
    }
    let mut result = Vec::new();
    for (mut sized, database, cache, _open) in all {
        for _ in 0..PEAK_RUNS {
            let (kib, _) = measure::peak_of_run(&database.path, &cache.arguments()?)?;
            sized.peak_nothing_new = sized.peak_nothing_new.max(kib);
            if sized.full.count() > 0 {
                let (kib, _) = measure::peak_of_run(&database.path, &[])?;
                sized.peak_full = sized.peak_full.max(kib);
            }
        }
        sized.main = main_at_rest(&database)?;
        result.push(sized);
    }
    Ok(result)
}

/// The memory of a service that knows everything of a database, in KiB.
fn main_at_rest(database: &Database) -> Result<Option<u64>> {
    let (mut serving, _) = Serving::start(&database.path)?;
    let until = Instant::now() + PATIENCE;
    loop {
        let status = serving.status()?;
        let progress = status["sources"][0]["scan"]["progress"].as_f64();
        if progress.is_some_and(|progress| progress >= 1.0) {
            break;
        }
        ensure!(Instant::now() < until, "the search does not end: {status}");
        thread::sleep(Duration::from_millis(200));
    }
    // The snapshot is written meanwhile.
    thread::sleep(SETTLED);
    Ok(serving.resident().map(|resident| resident.now))
}

/// A service with so many sources.
struct Sources {
    count: usize,
    one_changed: Times,
    all_changed: Times,
    main: Option<u64>,
    threads_and_files: Option<(u64, usize)>,
}

fn sources(of_many: &Database, counts: &[usize], runs: u64) -> Result<Vec<Sources>> {
    let most = counts.iter().max().context("no source")?;
    let databases = service::copies(of_many, *most)?;
    thread::sleep(SETTLED);
    let mut all = Vec::new();
    for count in counts {
        let used = &databases[..*count];
        let paths: Vec<_> = used.iter().map(|copied| copied.path.as_path()).collect();
        let (mut serving, _) = Serving::of(&paths)?;
        thread::sleep(SETTLED);
        let (mut one_changed, mut all_changed) = (Times::default(), Times::default());
        // One after the other, since a file that has just changed is listed once more: those of
        // all sources would be part of the next refresh after the change of one.
        for round in 0..=runs {
            let took = refresh_after(&used[..1], &mut serving, &format!("{count}, one {round}"))?;
            if round > 0 {
                one_changed.add(took);
            }
        }
        for round in 0..=runs {
            let took = refresh_after(used, &mut serving, &format!("{count}, all {round}"))?;
            if round > 0 {
                all_changed.add(took);
            }
        }
        thread::sleep(SETTLED);
        all.push(Sources {
            count: *count,
            one_changed,
            all_changed,
            main: serving.resident().map(|resident| resident.now),
            threads_and_files: serving.threads_and_files(),
        });
    }
    Ok(all)
}

/// A session of each of these changes. How long it takes from the first of these commits
/// until a refresh has read them.
fn refresh_after(changed: &[Copied], serving: &mut Serving, title: &str) -> Result<Duration> {
    let mut sessions = Vec::new();
    for copied in changed {
        sessions.push(copied.sessions()?.swap_remove(0));
    }
    let started = Instant::now();
    for (copied, session) in changed.iter().zip(&sessions) {
        copied.commit(session, title)?;
    }
    serving.refresh()?;
    let took = started.elapsed();
    // What the change itself brought about comes to rest.
    thread::sleep(Duration::from_millis(500));
    Ok(took)
}

fn or_nothing(times: &Times) -> String {
    match times.count() {
        0 => "-".to_owned(),
        _ => hundredths(times.median()),
    }
}

fn kib(kib: Option<u64>) -> String {
    kib.filter(|kib| *kib > 0).map_or("-".to_owned(), mebibytes)
}

/// The tables.
fn text(sessions: &[Sized], bytes: &[Sized], sources: &[Sources]) -> String {
    let sized = |heading: &str, all: &[Sized]| {
        let numbers = [
            "no marker",
            "nothing new",
            "full scan",
            "MiB, nothing new",
            "MiB, full scan",
            "MiB, main",
        ];
        let mut rows = vec![
            [heading]
                .into_iter()
                .chain(numbers)
                .map(str::to_owned)
                .collect(),
        ];
        rows.extend(all.iter().map(|one| {
            vec![
                one.name.clone(),
                or_nothing(&one.without_marker),
                or_nothing(&one.nothing_new),
                or_nothing(&one.full),
                kib(Some(one.peak_nothing_new)),
                kib(Some(one.peak_full)),
                kib(one.main),
            ]
        }));
        rows
    };
    let heading = [
        "sources",
        "one changed",
        "all changed",
        "MiB, main",
        "threads",
        "open files",
    ];
    let mut of_sources = vec![heading.map(str::to_owned).to_vec()];
    of_sources.extend(sources.iter().map(|one| {
        let (threads, files) = one.threads_and_files.unwrap_or_default();
        vec![
            format!("{} of {} sessions", one.count, OF_MANY.sessions),
            or_nothing(&one.one_changed),
            or_nothing(&one.all_changed),
            kib(one.main),
            threads.to_string(),
            files.to_string(),
        ]
    }));
    format!(
        "{}\n{}\n{}",
        numbers(&sized("ms, median", sessions)),
        numbers(&sized(
            &format!("ms, median; {} sessions", USUAL.sessions),
            bytes
        )),
        numbers(&of_sources)
    )
}

/// A table whose first column is words, and the others numbers.
fn numbers(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text += &match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

fn panels(sessions: &[Sized], bytes: &[Sized], sources: &[Sources]) -> Vec<Panel> {
    let ms = |times: &Times| times.median().as_secs_f64() * 1000.0;
    let mib = |kib: u64| kib as f64 / 1024.0;
    let points = |all: &[Sized], y: &dyn Fn(&Sized) -> f64| {
        let points = all.iter().map(|one| (one.size as f64, y(one)));
        points.filter(|(_, y)| *y > 0.0).collect::<Vec<_>>()
    };
    let times = |all: &[Sized]| {
        vec![
            Series::new("no marker", points(all, &|one| ms(&one.without_marker))),
            Series::new("nothing new", points(all, &|one| ms(&one.nothing_new))),
            Series::new("full scan", points(all, &|one| ms(&one.full))),
        ]
    };
    let memory = |all: &[Sized]| {
        vec![
            Series::new(
                "main process",
                points(all, &|one| mib(one.main.unwrap_or(0))),
            ),
            Series::new(
                "helper, nothing new",
                points(all, &|one| mib(one.peak_nothing_new)),
            ),
            Series::new("helper, full scan", points(all, &|one| mib(one.peak_full))),
        ]
    };
    let of_sources = |y: &dyn Fn(&Sources) -> f64| {
        sources
            .iter()
            .map(|one| (one.count as f64, y(one)))
            .collect::<Vec<_>>()
    };
    let panel = |title: &str, axis, unit, series| Panel {
        title: title.to_owned(),
        axis,
        unit,
        series,
    };
    vec![
        panel(
            "A listing, over sessions",
            Axis::Sessions,
            "ms",
            times(sessions),
        ),
        panel(
            "Memory, over sessions",
            Axis::Sessions,
            "MiB",
            memory(sessions),
        ),
        panel(
            "A listing, over the size of the file",
            Axis::Mebibytes,
            "ms",
            times(bytes),
        ),
        panel(
            "Memory, over the size of the file",
            Axis::Mebibytes,
            "MiB",
            memory(bytes),
        ),
        panel(
            "A refresh of the service, over sources",
            Axis::Sources,
            "ms",
            vec![
                Series::new("one changed", of_sources(&|one| ms(&one.one_changed))),
                Series::new("all changed", of_sources(&|one| ms(&one.all_changed))),
            ],
        ),
        panel(
            "Memory, over sources",
            Axis::Sources,
            "MiB",
            vec![Series::new(
                "main process",
                of_sources(&|one| mib(one.main.unwrap_or(0))),
            )],
        ),
    ]
}
