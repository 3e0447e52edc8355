//! Databases of many gigabytes, made in little time from one that was generated.
//!
//! A grown one ([`grown`]) is real: the messages and parts of the generated one, again and
//! again, under other ids and in the same sessions. A hollow one ([`hollow`]) has the rows of
//! the generated one, and so many free pages that the file has the size: SQLite's freelist has
//! them all, and where their content would be, the file has a hole. It is right for what does
//! not read free pages, and for nothing else.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Result, ensure};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::copied::copy;
use super::generate::Database;
use super::measure;
use super::report;

/// Parts that stay in the log.
const IN_LOG: i64 = 100;

/// The database that `base` grows to, made where there is none yet. All of it is real.
pub(crate) fn grown(base: &Database, mib: u64) -> Result<Database> {
    made(base, mib, "grown", |to| {
        let status = measure::this_program("grow")?
            .arg(&base.path)
            .arg(to)
            .arg(mib.to_string())
            .status()?;
        ensure!(status.success(), "the database did not grow: {status}");
        Ok(())
    })
}

/// The same rows as in `base`, and free pages that take no place on the disk.
pub(crate) fn hollow(base: &Database, mib: u64) -> Result<Database> {
    made(base, mib, "hollow", |to| {
        copy(&base.path, to)?;
        let conn = Connection::open(to)?;
        conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        drop(conn);
        append_free_pages(to, mib)?;
        write_log(to)
    })
}

fn made(
    base: &Database,
    mib: u64,
    how: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<Database> {
    let name = base.directory().file_name().unwrap_or_default();
    let place = format!("{}-{how}-{mib}mib", name.display());
    let place = base.directory().with_file_name(place);
    let database = Database {
        shape: super::generate::Shape { mib, ..base.shape },
        path: place.join("opencode.db"),
    };
    if !database.path.exists() {
        println!("making     {} MiB, {how} from {} MiB", mib, base.shape.mib);
        let temporary = place.with_extension(format!("{}.tmp", std::process::id()));
        fs::create_dir_all(&temporary)?;
        let path = temporary.join("opencode.db");
        make(&path)?;
        // Gigabytes on their way to the disk hold up everybody.
        File::open(&path)?.sync_all()?;
        fs::rename(&temporary, &place)?;
    }
    report::database(&database)?;
    Ok(database)
}

/// Makes the grown database. A child does it: it needs memory.
pub(crate) fn grow(base: &Path, to: &Path, mib: u64) -> Result<()> {
    copy(base, to)?;
    let conn = Connection::open(to)?;
    conn.execute_batch(
        "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; \
         PRAGMA cache_size = -262144; PRAGMA foreign_keys = OFF;",
    )?;
    // The log of `base` stays as it is.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.execute("ATTACH ?1 AS base", [base.to_str()])?;
    let bytes = || -> rusqlite::Result<u64> {
        let pages: i64 = conn.query_row("PRAGMA main.page_count", [], |row| row.get(0))?;
        Ok(pages.unsigned_abs() * PAGE)
    };
    let rows: i64 = conn.query_row("SELECT max(rowid) FROM base.part", [], |row| row.get(0))?;
    let (wanted, of_base) = (mib << 20, bytes()?);
    for time in 1_i64.. {
        let left = wanted.saturating_sub(bytes()?);
        // The last time only as many as fit.
        let part = (left as f64 / of_base as f64).min(1.0);
        if part < 0.01 {
            break;
        }
        let up_to = (rows as f64 * part) as i64;
        conn.execute_batch("BEGIN")?;
        // The new ids come after all others of their kind.
        conn.execute(
            "INSERT INTO message (id, session_id, time_created, time_updated, data) \
             SELECT 'msg_z' || printf('%03d', ?1) || substr(id, 5), session_id, time_created, \
             time_updated, data FROM base.message",
            [time],
        )?;
        conn.execute(
            "INSERT INTO part (id, message_id, session_id, time_created, time_updated, data) \
             SELECT 'prt_z' || printf('%03d', ?1) || substr(id, 5), \
             'msg_z' || printf('%03d', ?1) || substr(message_id, 5), session_id, time_created, \
             time_updated, data FROM base.part WHERE rowid <= ?2",
            [time, up_to],
        )?;
        conn.execute_batch("COMMIT")?;
    }
    conn.execute_batch("DETACH base; PRAGMA journal_mode = WAL")?;
    drop(conn);
    write_log(to)
}

/// Writes some parts, one a transaction, which stay in the log.
fn write_log(path: &Path) -> Result<()> {
    let conn = Connection::open(path)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF")?;
    for number in 1..=IN_LOG {
        conn.execute(
            "INSERT INTO part (id, message_id, session_id, time_created, time_updated, data) \
             SELECT 'prt_zz' || substr(id, 5), message_id, session_id, time_created, \
             time_updated, data FROM part WHERE rowid = ?1",
            [number],
        )?;
    }
    Ok(())
}

/// The file's own page size, from its header (<https://sqlite.org/fileformat2.html>,
/// section 1.3).
const PAGE: u64 = 4096;

/// The page at the first GiB is never used, since SQLite locks its bytes (section 1.2).
const LOCK_PAGE: u32 = ((1 << 30) / PAGE) as u32 + 1;

/// Entries of a trunk page of the freelist: SQLite leaves the last six unused (section 1.5).
const LEAVES: usize = PAGE as usize / 4 - 8;

/// Makes the file so long that all pages after the present ones are free. Only trunk pages are
/// written: the content of the others means nothing.
fn append_free_pages(path: &Path, mib: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut header = [0; 100];
    file.read_exact_at(&mut header, 0)?;
    let number = |at: usize| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u32::from_be_bytes(bytes)
    };
    ensure!(header[16..18] == [0x10, 0], "pages are not of 4 KiB");
    let (pages, free_before) = (number(28), number(36));
    let wanted = u32::try_from((mib << 20) / PAGE)?;
    ensure!(wanted > pages, "it has {pages} pages already");
    let mut next_trunk = number(32);
    let mut free = free_before;
    let numbers: Vec<u32> = (pages + 1..=wanted)
        .filter(|number| *number != LOCK_PAGE)
        .collect();
    for group in numbers.chunks(LEAVES + 1) {
        let Some((trunk, leaves)) = group.split_first() else {
            continue;
        };
        let count = u32::try_from(leaves.len())?;
        let words = [next_trunk, count]
            .into_iter()
            .chain(leaves.iter().copied());
        let page: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
        file.write_all_at(&page, u64::from(trunk - 1) * PAGE)?;
        next_trunk = *trunk;
        free += count + 1;
    }
    file.set_len(u64::from(wanted) * PAGE)?;
    for (at, number) in [(28, wanted), (32, next_trunk), (36, free)] {
        file.write_all_at(&number.to_be_bytes(), at)?;
    }
    Ok(())
}
