//! `./scripts/bench service`: what the service costs, and how soon it tells.
//!
//! Each measurement starts the real program (`serve --stdio`, `serving`) with a
//! state directory of its own, and keeps the database open beside it as a running
//! OpenCode does. Databases that are written to are copies. What is random comes
//! from one seed. A missed target is shown and no failure; exit status 1 means
//! that something did not work.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::copied::Copied;
use crate::generate::{Database, SMALL, Shape, USUAL};
use crate::measure::{self, Times};
use crate::report::{self, mebibytes, milliseconds, target};
use crate::serving::{Resident, Serving};

/// Measures a running service and prints its figures beside the targets.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Commits whose way to the change event is measured
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=340))]
    commits: u64,

    /// How long it is watched doing nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle: u64,

    /// How long status is asked for while listings run
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    asking: u64,

    /// Keep the databases in this directory [default: in target/tmp]
    #[arg(long, value_name = "PATH")]
    keep: Option<PathBuf>,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// Many sessions of little text.
pub(crate) const MANY: Shape = Shape {
    mib: 48,
    sessions: 10_000,
    parts: 12_000,
    markup: 300,
};

/// One of several sources.
const ONE_OF_MANY: Shape = Shape {
    mib: 16,
    sessions: 500,
    parts: 2_700,
    markup: 300,
};

/// So many sources.
const SOURCES: usize = 20;

/// Between two commits, in milliseconds.
const APART: std::ops::Range<u64> = 300..1700;

/// A file that changed in the last two seconds is listed once more, since it may have changed
/// again within the same tick of its clock (src/stamp.rs). Idle begins after that.
pub(crate) const SETTLED: Duration = Duration::from_secs(4);

/// After so long nothing more is looked for that was written before.
const LATE: Duration = Duration::from_secs(33);

/// Refreshes after which memory is looked at again.
pub(crate) const REFRESHES: u64 = 20;

pub(crate) fn run(args: &Args) -> Result<()> {
    let directory = measure::directory(args.keep.as_deref());
    report::machine();
    let small = measure::made(&SMALL, &directory)?;
    let many = measure::made(&MANY, &directory)?;
    let of_many = measure::made(&ONE_OF_MANY, &directory)?;
    let large = measure::made(&USUAL, &directory)?;
    report::page_cache(&large);

    let commits = commits(&small, args.commits)?;
    let answers = answers(&large, Duration::from_secs(args.asking))?;
    report_times(&commits, &answers);
    report_sources(&sources(&of_many, args.commits)?);
    report_idle(&idle(&small, Duration::from_secs(args.idle))?);
    report_memory(&memory(&many, REFRESHES)?);
    Ok(())
}

/// A service whose database is written to: from the begin of each commit to the event
/// that tells of it.
struct Told<'a> {
    database: &'a Copied,
    sessions: Vec<String>,
    serving: Serving,
    waiting: BTreeMap<String, Instant>,
    times: Times,
}

impl<'a> Told<'a> {
    /// Of these sources the first is written to.
    fn of(databases: &'a [Copied]) -> Result<Self> {
        let paths: Vec<_> = databases.iter().map(|one| one.path.as_path()).collect();
        let database = databases.first().context("no database")?;
        Ok(Self {
            database,
            sessions: database.sessions()?,
            serving: Serving::of(&paths)?.0,
            waiting: BTreeMap::new(),
            times: Times::default(),
        })
    }

    fn commit(&mut self, number: u64) -> Result<()> {
        let at = usize::try_from(number)? % self.sessions.len();
        let title = format!("commit {number}");
        let began = self.database.commit(&self.sessions[at], &title)?;
        self.waiting.insert(title, began);
        for (at, event) in self.serving.events_so_far("change")? {
            self.take(at, &event);
        }
        Ok(())
    }

    fn take(&mut self, at: Instant, event: &Value) {
        let upserted = event["upserted"].as_array().into_iter().flatten();
        for title in upserted.filter_map(|session| session["title"].as_str()) {
            if let Some(began) = self.waiting.remove(title) {
                self.times.add(Instant::duration_since(&at, began));
            }
        }
    }

    fn end(mut self) -> Result<Times> {
        while !self.waiting.is_empty() {
            let (at, event) = self.serving.event("change")?;
            self.take(at, &event);
        }
        Ok(self.times)
    }
}

pub(crate) fn commits(small: &Database, count: u64) -> Result<Times> {
    let database = [Copied::of(small)?];
    let mut told = Told::of(&database)?;
    let mut random = fastrand::Rng::with_seed(3);
    for number in 0..count {
        thread::sleep(Duration::from_millis(random.u64(APART)));
        told.commit(number)?;
    }
    told.end()
}

/// The same with one source and with many, in turn.
struct OneAndMany {
    one: Times,
    many: Times,
}

fn sources(of_many: &Database, count: u64) -> Result<OneAndMany> {
    let alone = [Copied::of(of_many)?];
    let together = copies(of_many, SOURCES)?;
    thread::sleep(SETTLED);
    let (mut one, mut many) = (Told::of(&alone)?, Told::of(&together)?);
    let mut random = fastrand::Rng::with_seed(4);
    for number in 0..count {
        for told in [&mut one, &mut many] {
            thread::sleep(Duration::from_millis(random.u64(APART) / 2));
            told.commit(number)?;
        }
    }
    Ok(OneAndMany {
        one: one.end()?,
        many: many.end()?,
    })
}

/// Copies of a database, each with sessions of its own.
pub(crate) fn copies(of: &Database, count: usize) -> Result<Vec<Copied>> {
    let mut copies = Vec::new();
    for number in 0..count {
        let copied = Copied::of(of)?;
        copied.conn.execute_batch(&format!(
            "PRAGMA foreign_keys = off;
             UPDATE session SET id = id || '_{number}', parent_id = parent_id || '_{number}';
             UPDATE message SET session_id = session_id || '_{number}'"
        ))?;
        copies.push(copied);
    }
    Ok(copies)
}

/// Answers to `status` on the socket, asked for a millisecond after the one
/// before, while standard input asks for one refresh after the other.
struct Answers {
    /// Those that came while a listing ran.
    while_listing: Times,
    others: Times,
    listings: u64,
    listing_ms: f64,
}

fn answers(large: &Database, how_long: Duration) -> Result<Answers> {
    let _open = measure::hold(large)?;
    let (mut serving, _) = Serving::start(&large.path)?;
    let mut connected = serving.connect()?;
    let before = serving.status()?["listings"].as_u64();
    let done = AtomicBool::new(false);
    let (mut while_listing, mut others) = (Times::default(), Times::default());
    thread::scope(|scope| {
        let refreshing = scope.spawn(|| {
            let file = File::options().append(true).open(&large.path)?;
            while !done.load(Ordering::Relaxed) {
                // Else it knows that there is nothing to list.
                file.set_modified(SystemTime::now())?;
                serving.refresh()?;
            }
            anyhow::Ok(())
        });
        let mut asking = || {
            let until = Instant::now() + how_long;
            // The first answer comes after what a reader gets at first.
            connected.status()?;
            while Instant::now() < until {
                let (took, listing) = connected.status()?;
                let times = if listing {
                    &mut while_listing
                } else {
                    &mut others
                };
                times.add(took);
                thread::sleep(Duration::from_millis(1));
            }
            anyhow::Ok(())
        };
        let asked = asking();
        done.store(true, Ordering::Relaxed);
        let refreshed = refreshing.join();
        asked?;
        refreshed.ok().context("the refreshing thread")?
    })?;
    let status = serving.status()?;
    ensure!(while_listing.count() > 0, "no listing ran");
    Ok(Answers {
        while_listing,
        others,
        listings: status["listings"].as_u64().unwrap_or(0) - before.unwrap_or(0),
        listing_ms: status["latency"]["p50"].as_f64().unwrap_or(0.0),
    })
}

/// A service that nothing happens to.
struct Idle {
    how_long: Duration,
    spawns: u64,
    processor: Option<Duration>,
}

fn idle(small: &Database, how_long: Duration) -> Result<Idle> {
    let database = Copied::of(small)?;
    let (mut serving, _) = Serving::start(&database.path)?;
    // The snapshot is written meanwhile, and commits that come late are looked for.
    thread::sleep(LATE);
    let spawns = |status: &Value| status["spawns"].as_u64().context("no count");
    let (before, used_before) = (spawns(&serving.status()?)?, serving.processor_time());
    thread::sleep(how_long);
    let (used_after, after) = (serving.processor_time(), spawns(&serving.status()?)?);
    Ok(Idle {
        how_long,
        spawns: after - before,
        processor: used_after
            .zip(used_before)
            .map(|(after, before)| after - before),
    })
}

/// Memory with many sessions.
pub(crate) struct WithMany {
    sessions: usize,
    /// The bytes of one in an event.
    session_bytes: usize,
    first: Option<Resident>,
    pub(crate) last: Option<Resident>,
}

pub(crate) fn memory(many: &Database, refreshes: u64) -> Result<WithMany> {
    let database = Copied::of(many)?;
    let sessions = database.sessions()?;
    let (mut serving, line) = Serving::start(&database.path)?;
    // The snapshot is written meanwhile.
    thread::sleep(Duration::from_secs(1));
    let first = serving.resident();
    for (number, session) in (0..refreshes).zip(&sessions) {
        database.commit(session, &format!("refresh {number}"))?;
        serving.refresh()?;
        // Over the time of several snapshots.
        thread::sleep(Duration::from_millis(500));
    }
    Ok(WithMany {
        sessions: sessions.len(),
        session_bytes: line / sessions.len(),
        first,
        last: serving.resident(),
    })
}

/// The columns of [`times_row`].
const TIMES: [&str; 7] = [
    "time", "count", "min ms", "p50 ms", "p99 ms", "max ms", "target",
];

fn times_row(name: String, times: &Times, target: String) -> [String; 7] {
    [
        name,
        times.count().to_string(),
        milliseconds(times.min()),
        milliseconds(times.percentile(50)),
        milliseconds(times.percentile(99)),
        milliseconds(times.percentile(100)),
        target,
    ]
}

fn report_times(commits: &Times, answers: &Answers) {
    let at_most = |what: &str, time: Duration, most: u64| {
        let reached = time <= Duration::from_millis(most);
        target(&format!("{what} at most {most} ms"), reached)
    };
    let of_commits = [
        at_most("p50", commits.percentile(50), 150),
        at_most("p99", commits.percentile(99), 700),
    ];
    let of_answers = at_most("p99", answers.while_listing.percentile(99), 5);
    println!();
    report::table(&[
        TIMES.map(str::to_owned),
        times_row(
            "commit to change event, 343 sessions".to_owned(),
            commits,
            of_commits.join(", "),
        ),
        times_row(
            format!(
                "status while 490 MiB are listed ({} listings of {:.0} ms)",
                answers.listings, answers.listing_ms
            ),
            &answers.while_listing,
            of_answers,
        ),
        times_row(
            "status between these listings".to_owned(),
            &answers.others,
            String::new(),
        ),
    ]);
}

fn report_sources(times: &OneAndMany) {
    let ratio = times.many.percentile(50).as_secs_f64() / times.one.percentile(50).as_secs_f64();
    let sessions = ONE_OF_MANY.sessions;
    println!();
    report::table(&[
        TIMES.map(str::to_owned),
        times_row(
            format!("commit to change event, one source of {sessions} sessions"),
            &times.one,
            String::new(),
        ),
        times_row(
            format!("the same, {SOURCES} sources of {sessions} sessions"),
            &times.many,
            target(&format!("p50 {ratio:.2} of that of one"), ratio < 1.2),
        ),
    ]);
}

fn report_idle(idle: &Idle) {
    let row = |name: &str, value: String, target| [name.to_owned(), value, target];
    let heading = format!("idle for {} s", idle.how_long.as_secs());
    let processor = match idle.processor {
        Some(used) => {
            let percent = 100.0 * used.as_secs_f64() / idle.how_long.as_secs_f64();
            row(
                "processor time of the main process",
                format!("{percent:.3} % ({} ms)", used.as_millis()),
                target("below 0.1 %", percent < 0.1),
            )
        }
        None => row(
            "processor time of the main process",
            "unknown".to_owned(),
            String::new(),
        ),
    };
    println!();
    report::table(&[
        row(&heading, String::new(), "target".to_owned()),
        row(
            "helpers launched",
            idle.spawns.to_string(),
            target("0", idle.spawns == 0),
        ),
        processor,
    ]);
}

fn report_memory(memory: &WithMany) {
    const MOST_KIB: u64 = 16 << 10;
    let row = |name: String, resident: Option<Resident>| match resident {
        Some(resident) => [
            name,
            mebibytes(resident.now),
            mebibytes(resident.anonymous),
            mebibytes(resident.peak),
            target("at most 16 MiB now", resident.now <= MOST_KIB)
                + ", "
                + &target("peak", resident.peak <= MOST_KIB),
        ],
        None => {
            let unknown = || "unknown".to_owned();
            [name, unknown(), unknown(), unknown(), String::new()]
        }
    };
    let heading = format!(
        "memory, {} sessions of {} bytes in JSON",
        memory.sessions, memory.session_bytes
    );
    let numbers = ["now MiB", "without program MiB", "peak MiB", "target"].map(str::to_owned);
    let [now, anonymous, peak, target] = numbers;
    println!();
    report::table(&[
        [heading, now, anonymous, peak, target],
        row("after the first listing".to_owned(), memory.first),
        row(
            format!("after {REFRESHES} refreshes with a change each"),
            memory.last,
        ),
    ]);
}
