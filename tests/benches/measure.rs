//! The measurements, and this program's own work as a child.
//!
//! Time is taken from just before a process is started to its end; for the
//! original query from before the database is opened to after it is closed, in
//! a process that lives on, so that no start of a process counts against it.
//!
//! Peak memory is `ru_maxrss` of a process that has ended: the most it ever had in
//! memory, the pages of its program file among it. Linux carries the figure over
//! `exec`, so it is never less than what the process had that started it. That is
//! therefore another one of this program, made for the purpose, small, with this
//! one child; its own peak until then is shown as well, and a child's that is not
//! above it is an error and no result.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use opencode_sessions::internals::wire::Listing;
use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{ListRequest, Lister as _, Outcome};
use opencode_sessions::marker_text::MarkerText;
use rusqlite::{Connection, OpenFlags};

use super::generate::{self, Database, Shape};
use super::report;
use super::sizes;

/// The helper of this build.
const LISTER: &str = env!("CARGO_BIN_EXE_opencode-lister");
pub(crate) const SESSIONS: &str = env!("CARGO_BIN_EXE_opencode-sessions");

/// What this is a helper to replace: the whole content, read for every listing.
pub(crate) const ORIGINAL: &str = "
SELECT s.id, s.directory, s.title, s.time_created, s.time_updated, p.worktree,
  (EXISTS (SELECT 1 FROM part x WHERE x.session_id = s.id
     AND x.data LIKE '%<freshell-session-metadata origin=3-views%')
   OR EXISTS (SELECT 1 FROM message x WHERE x.session_id = s.id
     AND x.data LIKE '%<freshell-session-metadata origin=3-views%')) AS marked
FROM session s LEFT JOIN project p ON p.id = s.project_id
WHERE s.parent_id IS NULL AND s.time_archived IS NULL
ORDER BY s.time_updated DESC";

/// A way to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Original,
    /// The helper by `ProcessLister`, as a program would.
    Launched {
        marker: bool,
    },
    /// The helper run with its output read, and nothing of the launcher's.
    Direct {
        marker: bool,
    },
}

/// How long it took each time, shortest first.
#[derive(Debug, Default)]
pub(crate) struct Times(pub(crate) Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, took: Duration) {
        let at = self.0.partition_point(|known| *known <= took);
        self.0.insert(at, took);
    }

    pub(crate) fn min(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        let middle = |at: usize| self.0.get(at).copied().unwrap_or_default();
        let count = self.0.len();
        (middle(count / 2) + middle(count.saturating_sub(1) / 2)) / 2
    }

    /// The smallest time that so many percent do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100);
        let at = rank.saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// The most memory a process ever used, in KiB.
#[derive(Debug)]
pub(crate) struct Peak {
    pub(crate) way: Way,
    pub(crate) database: String,
    pub(crate) kib: u64,
    /// What the process that started it had.
    pub(crate) floor_kib: u64,
}

/// Memory of a process that lists, in KiB; `None` where the system does not tell.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) marker: bool,
    pub(crate) listings: u64,
    pub(crate) kib: Option<(u64, u64)>,
}

/// Runs of each process whose peak memory is asked for; the highest counts.
const PEAK_RUNS: usize = 3;

/// Makes a database, in a child.
pub(crate) fn generate(shape: &Shape, directory: &Path) -> Result<()> {
    let numbers =
        [shape.mib, shape.sessions, shape.parts, shape.markup].map(|number| number.to_string());
    let status = this_program("generate")?
        .args(numbers)
        .arg(directory)
        .status()?;
    ensure!(status.success(), "the database was not made: {status}");
    Ok(())
}

/// The database of this shape, made where there is none yet.
pub(crate) fn made(shape: &Shape, directory: &Path) -> Result<Database> {
    let database = Database::of(shape, directory);
    if !database.path.exists() {
        report::making(&database);
        generate(shape, directory)?;
    }
    report::database(&database)?;
    Ok(database)
}

/// Where the databases are kept.
pub(crate) fn directory(keep: Option<&Path>) -> PathBuf {
    match keep {
        // Cargo starts this in the package's directory.
        Some(keep) => match std::env::var_os("BENCH_CALLED_FROM") {
            Some(called_from) => Path::new(&called_from).join(keep),
            None => keep.to_owned(),
        },
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench"),
    }
}

/// One listing, or one original query.
pub(crate) fn once(way: Way, database: &Database, original: &mut Original) -> Result<Duration> {
    match way {
        Way::Original => original.query(),
        Way::Launched { marker } => {
            let request = request(&database.path, marker);
            let lister = ProcessLister::at(LISTER);
            let started = Instant::now();
            let outcome = lister.list(&request);
            let took = started.elapsed();
            listing(outcome)?;
            Ok(took)
        }
        Way::Direct { marker } => direct(&database.path, marker),
    }
}

/// The listing without the marker while no OpenCode runs: each time the helper
/// must recover the log first.
pub(crate) fn recovering(database: &Database, runs: u64) -> Result<Times> {
    let lister = ProcessLister::at(LISTER);
    let request = request(&database.path, false);
    let mut times = Times::default();
    for _ in 0..runs {
        let started = Instant::now();
        listing(lister.list(&request))?;
        times.add(started.elapsed());
    }
    Ok(times)
}

/// Fails unless the helper says what the original query says. A child does it:
/// it needs memory.
pub(crate) fn compare(database: &Database) -> Result<()> {
    let status = this_program("compare")?
        .arg(&database.path)
        .arg(database.shape.sessions.to_string())
        .status()?;
    ensure!(
        status.success(),
        "the helper and the original query disagree about {}",
        database.path.display()
    );
    Ok(())
}

fn compare_answers(db: &Path, sessions: usize) -> Result<()> {
    let expected = original(db)?;
    ensure!(
        expected.len() == sessions,
        "the original query finds {} sessions, made were {sessions}",
        expected.len()
    );
    let marked = expected.iter().filter(|(_, marked)| *marked).count();
    ensure!(marked == 1, "{marked} sessions are marked, not 1");
    for marker in [true, false] {
        let request = request(db, marker);
        let listing = listing(ProcessLister::at(LISTER).list(&request))?;
        ensure!(
            listing.rows.len() == expected.len(),
            "the helper lists {} sessions, the original query {}",
            listing.rows.len(),
            expected.len()
        );
        for (got, (id, marked)) in listing.sessions().zip(&expected) {
            let wanted = marker.then_some(*marked);
            ensure!(
                got.id.as_str() == id && got.marked == wanted,
                "the helper lists {} with the mark {:?} where the original query has {id} with \
                 {wanted:?}",
                got.id.as_str(),
                got.marked
            );
        }
    }
    Ok(())
}

/// The peak memory of one way to list.
pub(crate) fn peak(way: Way, database: &Database) -> Result<Peak> {
    let shape = database.shape;
    let name = format!("{} MiB, {} sessions", shape.mib, shape.sessions);
    let mut highest = (0, 0);
    for _ in 0..PEAK_RUNS {
        let what = match way {
            Way::Original => "original",
            Way::Launched { marker } => with_or_without(marker),
            Way::Direct { .. } => bail!("the helper's peak is taken with its launcher"),
        };
        let (floor, kib) = two_numbers(this_program("peak")?.arg(what).arg(&database.path))?;
        ensure!(
            kib > floor,
            "the peak of {kib} KiB may be that of the process that started it ({floor} KiB)"
        );
        highest = highest.max((kib, floor));
    }
    Ok(Peak {
        way,
        database: name,
        kib: highest.0,
        floor_kib: highest.1,
    })
}

/// The memory of a process before and after it lists many times.
pub(crate) fn caller(database: &Database, marker: bool) -> Result<Memory> {
    // With the marker each takes long, and the rows it gets are the same.
    let listings = if marker { 20 } else { 100 };
    let _open = hold(database)?;
    let mut command = this_program("caller")?;
    command
        .args([with_or_without(marker), &listings.to_string()])
        .arg(&database.path);
    let (before, after) = two_numbers(&mut command)?;
    Ok(Memory {
        marker,
        listings,
        kib: (before > 0).then_some((before, after)),
    })
}

/// Keeps a database open as a running OpenCode does, until it is dropped.
pub(crate) fn hold(database: &Database) -> Result<Talk> {
    let mut talk = Talk::with(this_program("hold")?.arg(&database.path))?;
    talk.hear()?;
    Ok(talk)
}

/// The process that runs the original query whenever it is told to.
pub(crate) struct Original(Talk);

impl Original {
    pub(crate) fn start(database: &Database) -> Result<Self> {
        Ok(Self(Talk::with(
            this_program("original")?.arg(&database.path),
        )?))
    }

    pub(crate) fn query(&mut self) -> Result<Duration> {
        self.0.say()?;
        Ok(Duration::from_nanos(self.0.hear()?.trim().parse()?))
    }
}

/// A child that answers a line with a line, and ends when its input does.
pub(crate) struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Talk {
    pub(crate) fn with(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(stdout),
            child,
        })
    }

    pub(crate) fn say(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("no input")?;
        Ok(stdin.write_all(b"\n")?)
    }

    pub(crate) fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "a child of the benchmark died");
        Ok(line)
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// What the arguments ask this program to do as a child, with what follows.
pub(crate) fn job(words: &[String]) -> Option<(&str, &[String])> {
    let (first, rest) = words.split_first()?;
    Some((first.strip_prefix(JOB)?, rest))
}

/// Does it.
pub(crate) fn work(job: &str, words: &[String]) -> Result<()> {
    match (job, words) {
        ("generate", [mib, sessions, parts, markup, directory]) => {
            let shape = Shape {
                mib: mib.parse()?,
                sessions: sessions.parse()?,
                parts: parts.parse()?,
                markup: markup.parse()?,
            };
            generate::generate(&shape, directory.as_ref())
        }
        ("grow", [base, to, mib]) => sizes::grow(base.as_ref(), to.as_ref(), mib.parse()?),
        ("hold", [db]) => hold_open(db.as_ref()),
        ("original", [db]) => answer_originals(db.as_ref()),
        ("compare", [db, sessions]) => compare_answers(db.as_ref(), sessions.parse()?),
        ("original-processor", [db]) => {
            original(db.as_ref())?;
            let usage = usage_of(libc::RUSAGE_SELF)?;
            let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
            println!("{} 0", micros(usage.ru_utime) + micros(usage.ru_stime));
            Ok(())
        }
        ("peak-of-run", [db, arguments @ ..]) => {
            let floor = own_peak()?;
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            run(db.as_ref(), &arguments)?;
            println!("{floor} {}", peak_of(libc::RUSAGE_CHILDREN)?);
            Ok(())
        }
        ("large-cell", [db, bytes]) => large_cell(db.as_ref(), bytes.parse()?),
        ("original-once", [db]) => original(db.as_ref()).map(drop),
        ("peak", [what, db]) => print_peak(what, db.as_ref()),
        ("caller", [what, listings, db]) => print_callers_memory(
            what == with_or_without(true),
            listings.parse()?,
            db.as_ref(),
        ),
        _ => bail!("{job} is no work of this program"),
    }
}

const JOB: &str = "__";

pub(crate) fn this_program(job: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(format!("{JOB}{job}"));
    Ok(command)
}

fn with_or_without(marker: bool) -> &'static str {
    if marker { "marker" } else { "no-marker" }
}

/// The two numbers that a child prints.
fn two_numbers(command: &mut Command) -> Result<(u64, u64)> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(
        output.status.success(),
        "a child of the benchmark failed: {}",
        output.status
    );
    let text = String::from_utf8(output.stdout)?;
    let (first, second) = text.trim().split_once(' ').context("no two numbers")?;
    Ok((first.parse()?, second.parse()?))
}

fn request(db: &Path, marker: bool) -> ListRequest {
    ListRequest::of(db)
        .marker(marker.then(MarkerText::default))
        .deadline(Duration::from_secs(600))
}

fn listing(outcome: Outcome) -> Result<Listing> {
    match outcome {
        Outcome::Complete(listing) => Ok(listing),
        failed => bail!("the helper failed: {failed}"),
    }
}

/// The id of the session that a listing has last.
pub(crate) fn last_listed(database: &Database) -> Result<String> {
    let (_, output) = run(&database.path, &["--no-marker"])?;
    let lines = output.split(|byte| *byte == b'\n').rev();
    let sessions = lines.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    let mut ids = sessions.filter_map(|line| line["id"].as_str().map(str::to_owned));
    ids.next().context("no session")
}

/// The main program looks up one id.
pub(crate) fn look_up(database: &Database, what: &str, id: &str) -> Result<Duration> {
    let mut command = Command::new(SESSIONS);
    command.args([what, id, "--db"]).arg(&database.path);
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = started.elapsed();
    ensure!(output.status.success(), "{what} failed: {output:?}");
    Ok(took)
}

fn direct(db: &Path, marker: bool) -> Result<Duration> {
    let arguments: &[&str] = if marker { &[] } else { &["--no-marker"] };
    Ok(run(db, arguments)?.0)
}

/// The helper run with its output read, and nothing of the launcher's: how long it
/// took, and what it said.
pub(crate) fn run(db: &Path, arguments: &[&str]) -> Result<(Duration, Vec<u8>)> {
    let mut command = Command::new(LISTER);
    command.arg("--db").arg(db).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut output = Vec::with_capacity(1 << 20);
    let started = Instant::now();
    let mut child = command.spawn()?;
    let mut stdout = child.stdout.take().context("no output")?;
    stdout.read_to_end(&mut output)?;
    let status = child.wait()?;
    let took = started.elapsed();
    ensure!(status.success(), "the helper failed: {status}");
    Ok((took, output))
}

/// The peak memory of the helper with these arguments, in KiB, and what the
/// process had that started it.
pub(crate) fn peak_of_run(db: &Path, arguments: &[&str]) -> Result<(u64, u64)> {
    let mut command = this_program("peak-of-run")?;
    let (floor, kib) = two_numbers(command.arg(db).args(arguments))?;
    ensure!(
        kib > floor,
        "the peak of {kib} KiB may be that of the process that started it ({floor} KiB)"
    );
    Ok((kib, floor))
}

/// The time from just before a program is started until it is reaped. Its output is
/// discarded.
pub(crate) fn start_to_end(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null());
    let started = Instant::now();
    let status = command.spawn()?.wait()?;
    let took = started.elapsed();
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(took)
}

/// The processor time of one original query.
pub(crate) fn processor_of_original(database: &Database) -> Result<Duration> {
    let mut command = this_program("original-processor")?;
    let (microseconds, _) = two_numbers(command.arg(&database.path))?;
    Ok(Duration::from_micros(microseconds))
}

/// Adds a part with a text of so many bytes, the marker at its end.
pub(crate) fn insert_large_cell(db: &Path, bytes: usize) -> Result<()> {
    let status = this_program("large-cell")?
        .arg(db)
        .arg(bytes.to_string())
        .status()?;
    ensure!(status.success(), "the large cell was not made: {status}");
    Ok(())
}

fn large_cell(db: &Path, bytes: usize) -> Result<()> {
    let conn = Connection::open(db)?;
    let text = "x".repeat(bytes) + MarkerText::DEFAULT;
    conn.execute(
        "INSERT INTO part (id, message_id, session_id, time_created, time_updated, data) \
         SELECT 'prt_large', id, session_id, 1, 1, ?1 FROM message LIMIT 1",
        [text],
    )?;
    Ok(())
}

/// One original query: opens the database, asks, closes it.
fn original(db: &Path) -> Result<Vec<(String, bool)>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(db, flags)?;
    let sessions = conn
        .prepare(ORIGINAL)?
        .query_map([], |row| {
            // All six are handed over, as in the original.
            for column in 1..6 {
                let _: rusqlite::types::Value = row.get(column)?;
            }
            Ok((row.get(0)?, row.get(6)?))
        })?
        .collect::<Result<_, _>>()?;
    conn.close().map_err(|(_, error)| error)?;
    Ok(sessions)
}

fn answer_originals(db: &Path) -> Result<()> {
    for line in io::stdin().lines() {
        line?;
        let started = Instant::now();
        let sessions = original(db)?;
        let took = started.elapsed();
        drop(sessions);
        println!("{}", took.as_nanos());
    }
    Ok(())
}

fn hold_open(db: &Path) -> Result<()> {
    let conn = Connection::open(db)?;
    conn.set_db_config(
        rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
        true,
    )?;
    conn.query_row("SELECT count(*) FROM project", [], |_| Ok(()))?;
    println!("open");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Starts one process and prints this one's size before that, then the other's
/// peak.
fn print_peak(what: &str, db: &Path) -> Result<()> {
    let mut open = Talk::with(this_program("hold")?.arg(db))?;
    open.hear()?;
    let floor = own_peak()?;
    if what == "original" {
        let status = this_program("original-once")?.arg(db).status()?;
        ensure!(status.success(), "the original query failed: {status}");
    } else {
        let request = request(db, what == with_or_without(true));
        listing(ProcessLister::at(LISTER).list(&request))?;
    }
    // The one that holds the database is not waited for yet, so it does not count.
    let peak = peak_of(libc::RUSAGE_CHILDREN)?;
    println!("{floor} {peak}");
    Ok(())
}

/// Lists so many times and prints this process's memory before and after that:
/// the highest after any of ten listings, since the allocator breathes.
fn print_callers_memory(marker: bool, listings: u64, db: &Path) -> Result<()> {
    const LOOKS: u64 = 10;
    let lister = ProcessLister::at(LISTER);
    let request = request(db, marker);
    let highest_of = |listings| {
        let mut highest = 0;
        for _ in 0..listings {
            listing(lister.list(&request))?;
            highest = resident().unwrap_or(0).max(highest);
        }
        anyhow::Ok(highest)
    };
    highest_of(LOOKS)?;
    let before = highest_of(LOOKS)?;
    highest_of(listings.saturating_sub(LOOKS))?;
    let after = highest_of(LOOKS)?;
    println!("{before} {after}");
    Ok(())
}

/// The memory this process has now, in KiB, where the system tells (Linux).
/// Counted page by page: the figure in `status` may lag.
fn resident() -> Option<u64> {
    kib_of("/proc/self/smaps_rollup", "Rss:")
}

pub(crate) fn kib_of(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// This process's own peak in KiB, where the system tells without what started
/// it (Linux).
fn own_peak() -> Result<u64> {
    match kib_of("/proc/self/status", "VmHWM:") {
        Some(kib) => Ok(kib),
        None => peak_of(libc::RUSAGE_SELF),
    }
}

/// The peak memory of this process, or of its children that have ended, in KiB.
fn peak_of(who: libc::c_int) -> Result<u64> {
    let peak = u64::try_from(usage_of(who)?.ru_maxrss)?;
    // macOS counts bytes.
    Ok(if cfg!(target_os = "macos") {
        peak / 1024
    } else {
        peak
    })
}

fn usage_of(who: libc::c_int) -> Result<libc::rusage> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: getrusage writes a whole rusage to the memory given to it, which is
    // large enough, and it is read only where the call says that it did so.
    #[expect(unsafe_code, reason = "neither std nor rustix tells what was used")]
    Ok(unsafe {
        if libc::getrusage(who, usage.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error().into());
        }
        usage.assume_init()
    })
}
