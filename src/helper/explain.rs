//! `opencode-lister explain`: prints what was found, the queries with their plans, and the
//! duration of each phase.

use std::io::{self, Write};
use std::time::Instant;

use rusqlite::Connection;

use super::listing::{ListJob, RunStatus};
use super::report_error;
use crate::marker::{self, ScanResult};
use crate::store::{Database, ListQuery, Opened, StoreError, Table, TableKind, WalPosition};
use crate::text::{DisplayPath, one_line};
use crate::wire::notes;

/// Runs the listing of `job` and explains it to a person.
///
/// An error of the database is reported to `err`.
///
/// # Errors
///
/// Returns an error if `out` or `err` fails.
pub(crate) fn print(job: &ListJob, mut out: impl Write, err: impl Write) -> io::Result<RunStatus> {
    let Some(path) = job.db.as_deref() else {
        writeln!(out, "state:    missing (OPENCODE_DB is :memory:)")?;
        return Ok(RunStatus::Complete);
    };
    writeln!(out, "database: {}", DisplayPath(path))?;
    match explain(job, &mut out) {
        Ok(()) => Ok(RunStatus::Complete),
        Err(ExplainError::Io(error)) => Err(error),
        Err(ExplainError::Store(error)) => {
            out.flush()?;
            report_error(error, path, err)
        }
    }
}

enum ExplainError {
    Io(io::Error),
    Store(StoreError),
}

impl From<io::Error> for ExplainError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<StoreError> for ExplainError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for ExplainError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The phases of a listing and their durations.
struct Phases {
    started: Instant,
    durations_ms: Vec<(&'static str, f64)>,
}

impl Phases {
    /// Ends the present phase, which has this name, and starts the next.
    fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.durations_ms
            .push((name, (now - self.started).as_secs_f64() * 1000.0));
        self.started = now;
    }
}

fn explain(job: &ListJob, out: &mut impl Write) -> Result<(), ExplainError> {
    let Some(path) = job.db.as_deref() else {
        return Ok(());
    };
    let mut phases = Phases {
        started: Instant::now(),
        durations_ms: Vec::new(),
    };
    let database = match Database::open(path, &job.open)? {
        Opened::Missing => return Ok(writeln!(out, "state:    missing (no such file)")?),
        Opened::Young => {
            return Ok(writeln!(
                out,
                "state:    young (not in WAL mode and changed less than two seconds ago: not \
                 opened, since it may be being created or restored)"
            )?);
        }
        Opened::Empty => return Ok(writeln!(out, "state:    empty (the file has zero bytes)")?),
        Opened::Ready(database) => database,
    };
    phases.end("open");
    explain_open(&database, job, &mut phases, out)?;
    database.close()?;
    writeln!(out, "\nphases:")?;
    for (name, milliseconds) in &phases.durations_ms {
        writeln!(out, "  {name:<8} {milliseconds:>9.2} ms")?;
    }
    Ok(())
}

fn explain_open(
    database: &Database,
    job: &ListJob,
    phases: &mut Phases,
    out: &mut impl Write,
) -> Result<(), ExplainError> {
    let found = marker::scan(database, &job.marker)?;
    phases.end("marker");
    let query = ListQuery::new(&found.schema, job.filter)?;
    let state = match (&query, database.is_immutable()) {
        (None, _) => "empty (no session tables)",
        (Some(_), false) => "ready",
        (Some(_), true) => "ready (its directory is not writable: opened as immutable)",
    };
    writeln!(out, "state:    {state}")?;
    print_files(database, &found, out)?;
    for table in found.schema.tables() {
        print_table(table, out)?;
    }
    let Some(query) = query else { return Ok(()) };
    if job.marker.marker.is_some() {
        print_scan(&found, out)?;
    }
    print_plans(&query, &found.snapshot, out)?;
    phases.end("explain");
    print_rows(&query, &found, job, phases, database, out)
}

/// Prints the journal mode, the sizes and the state of the log.
fn print_files(
    database: &Database,
    found: &ScanResult<'_>,
    out: &mut impl Write,
) -> Result<(), ExplainError> {
    let snapshot = &found.snapshot;
    let pragma = |name: &str| {
        snapshot.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
    };
    let journal: String = snapshot.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    writeln!(out, "journal:  {journal}")?;
    for (label, name) in [
        ("pages:", "page_count"),
        ("page:", "page_size"),
        ("schema:", "schema_version"),
    ] {
        writeln!(out, "{label:<9} {}", plain(&pragma(name)?))?;
    }
    let Some(log) = database.open_log()? else {
        return Ok(writeln!(out, "log:      none")?);
    };
    write!(out, "log:      {} bytes", log.metadata()?.len())?;
    if let Some(WalPosition {
        frames,
        salts: [first, second],
        ..
    }) = snapshot.wal_position()
    {
        write!(
            out,
            ", {frames} frames committed, salts {first:08x} {second:08x}"
        )?;
    }
    Ok(writeln!(out)?)
}

/// Prints how the marker was searched for.
fn print_scan(found: &ScanResult<'_>, out: &mut impl Write) -> io::Result<()> {
    let scan = &found.scan;
    writeln!(
        out,
        "\nmarker:   {} scan, {} frames of the log, {} bytes searched, {:.0} % known",
        scan.mode.as_str(),
        scan.frames,
        scan.bytes,
        scan.progress * 100.0
    )?;
    for reason in found
        .full_scan_reason
        .into_iter()
        .chain(found.degraded.as_deref())
    {
        writeln!(out, "          {}", one_line(reason))?;
    }
    Ok(())
}

/// Prints each query with its plan.
fn print_plans(query: &ListQuery<'_>, conn: &Connection, out: &mut impl Write) -> io::Result<()> {
    for (name, sql) in query.statements() {
        writeln!(out, "\n{name}:\n  {}", one_line(sql))?;
        // The query of an optional part may fail; the listing then omits the part.
        match plan_of(conn, sql) {
            Ok(steps) => {
                for step in steps {
                    writeln!(out, "    {}", one_line(&step))?;
                }
            }
            Err(error) => writeln!(out, "    {}", one_line(&error.to_string()))?,
        }
    }
    Ok(())
}

/// Reads the rows and prints their number and what they lack.
fn print_rows(
    query: &ListQuery<'_>,
    found: &ScanResult<'_>,
    job: &ListJob,
    phases: &mut Phases,
    database: &Database,
    out: &mut impl Write,
) -> Result<(), ExplainError> {
    let (mut sessions, mut marked) = (0_u64, 0_u64);
    let mark = |id: &str| found.marked_sessions.is_marked(id);
    let limit = job.first_prompt_limit;
    let count = |id: &str, _: &[u8]| -> Result<(), StoreError> {
        sessions += 1;
        marked += u64::from(mark(id) == Some(true));
        Ok(())
    };
    let listed = query.run(&found.snapshot, limit, mark, count)?;
    phases.end("rows");
    let skipped = listed.skipped;
    writeln!(
        out,
        "\nsessions: {sessions}, {marked} of them marked; skipped {} with an invalid id and {} \
         duplicates; {} texts cut",
        skipped.invalid_id, skipped.duplicate_id, skipped.truncated
    )?;
    for note in notes(&listed.degraded.into_vec(), database.log_elsewhere()) {
        writeln!(out, "lacks:    {note}")?;
    }
    Ok(())
}

fn plain(value: &rusqlite::types::Value) -> String {
    match value {
        rusqlite::types::Value::Integer(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn print_table(table: &Table, out: &mut impl Write) -> io::Result<()> {
    let kind = match &table.kind {
        TableKind::Rowid(_) => "table",
        TableKind::WithoutRowid => "table without rowid",
        TableKind::Other(kind) => kind,
    };
    writeln!(out, "\n{kind} {}", one_line(&table.name))?;
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|column| {
            format!("{} {}", one_line(&column.name), one_line(&column.declared))
                .trim_end()
                .to_owned()
        })
        .collect();
    writeln!(out, "  columns: {}", columns.join(", "))?;
    for index in &table.indexes {
        let key: Vec<_> = index
            .key
            .iter()
            .map(|(name, _)| one_line(name.as_deref().unwrap_or("expression")).into_owned())
            .collect();
        let unique = if index.unique {
            "unique index"
        } else {
            "index"
        };
        writeln!(
            out,
            "  {unique} {} ({})",
            one_line(&index.name),
            key.join(", ")
        )?;
    }
    Ok(())
}

fn plan_of(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let unbound = vec![rusqlite::types::Null; plan.parameter_count()];
    let steps = plan.query_map(rusqlite::params_from_iter(unbound), |step| step.get(3))?;
    steps.collect()
}
