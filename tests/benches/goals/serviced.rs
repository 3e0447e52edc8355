//! A service with many sessions: what a listing costs when one of them changed, and `list` with
//! and without that service.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::copied::Copied;
use crate::generate::Database;
use crate::measure::{self, SESSIONS, Times};
use crate::service::SETTLED;
use crate::serving::Serving;

/// Changes before those that count.
const WARM_UP: u64 = 3;

/// Between two changes.
const APART: Duration = Duration::from_millis(300);

/// A service of whose sessions one changes at a time.
pub(super) struct OneChanged {
    pub(super) sessions: usize,
    pub(super) changes: u64,
    pub(super) listings: u64,
    /// The median time of a listing, from before the launch until it is checked.
    pub(super) helper: Duration,
    /// The processor time of the main process for each listing.
    pub(super) main: Option<Duration>,
    /// Bytes that a helper sent for each listing.
    pub(super) bytes: u64,
    /// The same where nothing has changed.
    pub(super) bytes_unchanged: u64,
    /// The length of the longest line of a session.
    pub(super) line: u64,
}

pub(super) fn one_changed(many: &Database, changes: u64) -> Result<OneChanged> {
    let database = Copied::of(many)?;
    let sessions = database.sessions()?;
    let (mut serving, _) = Serving::start(&database.path)?;
    thread::sleep(SETTLED);
    let change = |serving: &mut Serving, number: u64| {
        let session = &sessions[number as usize % sessions.len()];
        database.commit(session, &format!("change {number}"))?;
        serving.event("change")?;
        thread::sleep(APART);
        anyhow::Ok(())
    };
    for number in 0..WARM_UP {
        change(&mut serving, number)?;
    }
    let (before, main_before) = (Counts::of(&serving.status()?)?, serving.processor_time());
    for number in 0..changes {
        change(&mut serving, WARM_UP + number)?;
    }
    let (main_after, status) = (serving.processor_time(), serving.status()?);
    let after = Counts::of(&status)?;
    let listings = after.listings - before.listings;
    ensure!(
        listings >= changes / 2,
        "{listings} listings of {changes} changes"
    );
    let bytes_unchanged = bytes_unchanged(&mut serving, &database.path)?;
    let divisor = u32::try_from(listings)?;
    Ok(OneChanged {
        sessions: sessions.len(),
        changes,
        listings,
        helper: Duration::from_secs_f64(status["latency"]["p50"].as_f64().unwrap_or(0.0) / 1000.0),
        main: main_after
            .zip(main_before)
            .map(|(after, before)| (after - before) / divisor),
        bytes: (after.bytes - before.bytes) / listings,
        bytes_unchanged,
        line: longest_line(&database.path)?,
    })
}

/// What a status counts.
struct Counts {
    listings: u64,
    bytes: u64,
}

impl Counts {
    fn of(status: &Value) -> Result<Self> {
        let count = |name: &str| status[name].as_u64().with_context(|| format!("no {name}"));
        Ok(Self {
            listings: count("listings")?,
            bytes: count("bytesRead")?,
        })
    }
}

/// The bytes that a helper sends for a listing in which nothing has changed.
fn bytes_unchanged(serving: &mut Serving, db: &Path) -> Result<u64> {
    const TIMES: usize = 3;
    let before = Counts::of(&serving.status()?)?;
    for _ in 0..TIMES {
        // Else the service knows that there is nothing to list.
        File::options()
            .append(true)
            .open(db)?
            .set_modified(SystemTime::now())?;
        serving.refresh()?;
    }
    let after = Counts::of(&serving.status()?)?;
    ensure!(after.listings > before.listings, "no listing ran");
    Ok((after.bytes - before.bytes) / (after.listings - before.listings))
}

/// The bytes of the longest line of a session.
fn longest_line(db: &Path) -> Result<u64> {
    let (_, output) = measure::run(db, &["--no-marker"])?;
    let lines = output.split_inclusive(|byte| *byte == b'\n');
    let sessions = lines.filter(|line| line.starts_with(br#"{"type":"session""#));
    let longest = sessions.map(<[u8]>::len).max().context("no session")?;
    Ok(longest as u64)
}

/// `opencode-sessions list` with a service that knows the answer, and without.
pub(super) struct Lists {
    pub(super) sessions: u64,
    pub(super) through_service: Times,
    pub(super) by_itself: Times,
}

pub(super) fn lists(many: &Database, runs: u64) -> Result<Lists> {
    let _open = measure::hold(many)?;
    let (serving, _) = Serving::start(&many.path)?;
    thread::sleep(SETTLED);
    let home = tempfile::tempdir()?;
    let (mut through_service, mut by_itself) = (Times::default(), Times::default());
    for round in 0..=runs {
        let took = list(many, &serving, &home, "cache-of-service", &[])?;
        let took_alone = list(many, &serving, &home, "cache", &["--no-service"])?;
        if round > 0 {
            through_service.add(took);
            by_itself.add(took_alone);
        }
    }
    // A listing by itself keeps what it found.
    ensure!(
        home.path().join("cache").exists() && !home.path().join("cache-of-service").exists(),
        "`list` did not ask the service"
    );
    Ok(Lists {
        sessions: many.shape.sessions,
        through_service,
        by_itself,
    })
}

/// One run of `list`, from its start to its end, its output read.
fn list(
    many: &Database,
    serving: &Serving,
    home: &TempDir,
    cache: &str,
    arguments: &[&str],
) -> Result<Duration> {
    let mut command = Command::new(SESSIONS);
    command
        .args(["list", "--db"])
        .arg(&many.path)
        .args(arguments)
        .env_remove("XDG_RUNTIME_DIR")
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env("XDG_CACHE_HOME", home.path().join(cache))
        .env("XDG_STATE_HOME", serving.state_home())
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let started = Instant::now();
    let output = command.output()?;
    let took = started.elapsed();
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count() as u64;
    ensure!(
        output.status.success() && lines >= many.shape.sessions,
        "`list` prints {lines} lines: {}, {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took)
}
