//! What is printed: the machine, the databases, and two tables with the targets.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rusqlite::{Connection, OpenFlags};

use super::copied::log_of;
use super::generate::Database;
use super::measure::{Memory, Peak, Times, Way};

/// With the marker, the helper's whole process is to be so much faster than the
/// original query.
const FASTER: f64 = 2.5;

/// Without the marker, it is to take at most this long, for so many sessions.
const WITHOUT: (Duration, u64) = (Duration::from_millis(10), 343);

/// The helper's peak memory, on a database of any size.
const PEAK_KIB: u64 = 24 << 10;

/// What counts as unchanged: the allocator and the counters breathe.
const UNCHANGED_KIB: u64 = 256;

/// What kind of machine this is.
pub(crate) fn machine_kind() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let model = first_value("/proc/cpuinfo", "model name").unwrap_or_default();
    let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("{cores} cores {model}, {system} {processor}")
}

/// How many processes ran or wanted to, on average of the last minute, where the system tells.
pub(crate) fn load() -> Option<f64> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    load.split(' ').next()?.parse().ok()
}

fn first_value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    let (_, value) = line.split_once(':')?;
    Some(value.trim().to_owned())
}

pub(crate) fn machine() {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let memory = first_value("/proc/meminfo", "MemAvailable").unwrap_or_default();
    let load = load();
    println!(
        "machine    {}, {memory} available, load {}",
        machine_kind(),
        load.map_or("unknown".to_owned(), |load| load.to_string())
    );
    if load.is_some_and(|load| load > cores as f64 / 4.0) {
        println!(
            "           BUSY: times are too long, the helper's most, which gives way to others; \
             minima tell more than medians"
        );
    }
}

pub(crate) fn making(database: &Database) {
    let shape = database.shape;
    println!(
        "making     {} MiB, {} sessions, {} parts, a '<' in {} bytes of text",
        shape.mib, shape.sessions, shape.parts, shape.markup
    );
}

pub(crate) fn database(database: &Database) -> Result<()> {
    let path = &database.path;
    let log = log_of(path);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    println!("database   {}", path.display());
    println!(
        "           {:.1} MiB and {:.1} MiB of log; {} sessions listed, {} archived, {} children; \
         {} messages, {} parts; a '<' in {} bytes of text",
        mib(fs::metadata(path)?.len()),
        mib(fs::metadata(log).map_or(0, |about| about.len())),
        count("SELECT count(*) FROM session WHERE parent_id IS NULL AND time_archived IS NULL")?,
        count("SELECT count(*) FROM session WHERE time_archived IS NOT NULL")?,
        count("SELECT count(*) FROM session WHERE parent_id IS NOT NULL")?,
        count("SELECT count(*) FROM message")?,
        count("SELECT count(*) FROM part")?,
        database.shape.markup,
    );
    Ok(())
}

pub(crate) fn agreed() {
    println!("answers    the same ids, order and marks as the original query, in each database");
}

/// Measured warm means measured from memory.
pub(crate) fn page_cache(database: &Database) {
    let size = fs::metadata(&database.path).map_or(0, |about| about.len() >> 10);
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let state = match available {
        Some(available) if available < size => {
            "COLD in part: the database is larger than the memory there is"
        }
        _ => "warm: everything is read before it is measured",
    };
    println!("page cache {state}");
}

pub(crate) fn times(database: &Database, all: &[(Way, Times)], recovering: &Times, runs: u64) {
    let original = all
        .iter()
        .find(|(way, _)| *way == Way::Original)
        .map_or(Duration::ZERO, |(_, times)| times.median());
    let ratio = |times: &Times| original.as_secs_f64() / times.median().as_secs_f64();
    let row = |name: &str, times: &Times, target: String| {
        [
            name.to_owned(),
            milliseconds(times.median()),
            milliseconds(times.min()),
            format!("{:.1}x", ratio(times)),
            target,
        ]
    };
    let mut rows = vec![[
        format!("time, {runs} rounds in turn"),
        "median ms".to_owned(),
        "min ms".to_owned(),
        "speed".to_owned(),
        "target".to_owned(),
    ]];
    for (way, times) in all {
        let target = match way {
            Way::Launched { marker: true } => {
                target(&format!("at least {FASTER}x"), ratio(times) >= FASTER)
            }
            Way::Launched { marker: false } if database.shape.sessions <= WITHOUT.1 => target(
                &format!("at most {} ms", WITHOUT.0.as_millis()),
                times.median() <= WITHOUT.0,
            ),
            _ => String::new(),
        };
        rows.push(row(&name(*way), times, target));
    }
    let name = "helper without marker, no OpenCode running (recovers the log)";
    rows.push(row(name, recovering, String::new()));
    println!();
    table(&rows);
}

pub(crate) fn look_ups(all: &[(&str, Times)]) {
    const MOST: Duration = Duration::from_millis(8);
    let heading = [
        "looking up one id, both programs",
        "median ms",
        "min ms",
        "target",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    for (what, times) in all {
        rows.push([
            (*what).to_owned(),
            milliseconds(times.median()),
            milliseconds(times.min()),
            target("at most 8 ms", times.median() <= MOST),
        ]);
    }
    println!();
    table(&rows);
}

pub(crate) fn memory(peaks: &[Peak], callers: &[Memory]) {
    let heading = ["peak memory", "database", "MiB", "starter's MiB", "target"];
    let mut rows = vec![heading.map(str::to_owned)];
    for peak in peaks {
        let target = match peak.way {
            Way::Original => String::new(),
            _ => target(
                &format!("at most {} MiB", PEAK_KIB >> 10),
                peak.kib <= PEAK_KIB,
            ),
        };
        rows.push([
            name(peak.way),
            peak.database.clone(),
            mebibytes(peak.kib),
            mebibytes(peak.floor_kib),
            target,
        ]);
    }
    println!();
    table(&rows);

    let heading = [
        "memory of a caller",
        "before MiB",
        "after MiB",
        "change KiB",
        "target",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    for caller in callers {
        let with = if caller.marker { "with" } else { "without" };
        let name = format!("{} listings {with} marker", caller.listings);
        rows.push(match caller.kib {
            Some((before, after)) => [
                name,
                mebibytes(before),
                mebibytes(after),
                format!("{:+}", after.cast_signed() - before.cast_signed()),
                target("unchanged", after <= before + UNCHANGED_KIB),
            ],
            None => {
                let unknown = || "unknown".to_owned();
                [name, unknown(), unknown(), unknown(), String::new()]
            }
        });
    }
    println!();
    table(&rows);
}

fn name(way: Way) -> String {
    let (program, marker) = match way {
        Way::Original => return "original query, in its process".to_owned(),
        Way::Launched { marker } => ("helper", marker),
        Way::Direct { marker } => ("opencode-lister run directly", marker),
    };
    let with = if marker { "with" } else { "without" };
    let whole = match way {
        Way::Launched { .. } => ", launch to exit",
        _ => "",
    };
    format!("{program} {with} marker{whole}")
}

pub(crate) fn target(target: &str, reached: bool) -> String {
    format!("{target}: {}", if reached { "reached" } else { "missed" })
}

pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

/// For what takes a few milliseconds.
pub(crate) fn hundredths(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

pub(crate) fn mebibytes(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

pub(crate) fn table<const N: usize>(rows: &[[String; N]]) {
    print!("{}", table_text(rows));
}

/// Every column to the left: its cells are sentences.
pub(crate) fn left_table<const N: usize>(rows: &[[String; N]]) {
    print!("{}", aligned(rows, |_| true));
}

/// The first column and the last to the left, numbers to the right.
pub(crate) fn table_text<const N: usize>(rows: &[[String; N]]) -> String {
    aligned(rows, |column| column == 0 || column + 1 == N)
}

fn aligned<const N: usize>(rows: &[[String; N]], is_left: impl Fn(usize) -> bool) -> String {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column);
            if is_left(column) {
                line += &format!("{cell:<width$}  ");
            } else {
                line += &format!("{cell:>width$}  ");
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}
