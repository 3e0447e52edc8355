//! `opencode-lister verify`: compares the marks that the scan finds with those of the
//! defining SQL query, in one snapshot.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Instant;

use super::listing::{ListJob, RunStatus};
use super::report_error;
use crate::marker::{self, MarkedSessions};
use crate::store::{Database, Opened, StoreError};
use crate::text::{DisplayPath, one_line};
use crate::wire::ErrorKind;

/// Compares the two and prints the result. Does not save the scan state.
///
/// An error of the database is reported to `err`.
///
/// # Errors
///
/// Returns an error if `out` or `err` fails.
pub(crate) fn print(job: &ListJob, mut out: impl Write, err: impl Write) -> io::Result<RunStatus> {
    let Some(path) = job.db.as_deref() else {
        writeln!(out, "nothing to verify: no database")?;
        return Ok(RunStatus::Complete);
    };
    writeln!(out, "database: {}", DisplayPath(path))?;
    let comparison = match compare(job) {
        Ok(Some(comparison)) => comparison,
        Ok(None) => {
            writeln!(out, "nothing to verify: no database, or no marker")?;
            return Ok(RunStatus::Complete);
        }
        Err(error) => {
            out.flush()?;
            return report_error(error, path, err);
        }
    };
    writeln!(out, "{}", comparison.summary)?;
    let is_equal = comparison.only_in_query.is_empty() && comparison.only_in_scan.is_empty();
    for (ids, difference) in [
        (&comparison.only_in_query, "marked by the query only"),
        (&comparison.only_in_scan, "marked by the scan only"),
    ] {
        for id in ids {
            writeln!(out, "differs:  {}: {difference}", one_line(id))?;
        }
    }
    if is_equal {
        writeln!(out, "equal:    {} sessions are marked", comparison.marked)?;
        return Ok(RunStatus::Complete);
    }
    Ok(RunStatus::Failed(ErrorKind::Internal))
}

struct Comparison {
    /// The mode of the scan and the durations, for people.
    summary: String,
    /// How many sessions the query marks.
    marked: usize,
    /// The ids that only the query marks; empty while the scan is incomplete.
    only_in_query: BTreeSet<String>,
    /// The ids that only the scan marks.
    only_in_scan: BTreeSet<String>,
}

fn compare(job: &ListJob) -> Result<Option<Comparison>, StoreError> {
    let (Some(path), Some(marker)) = (&job.db, &job.marker.marker) else {
        return Ok(None);
    };
    let Opened::Ready(database) = Database::open(path, &job.open)? else {
        return Ok(None);
    };
    let started = Instant::now();
    let found = marker::scan(&database, &job.marker)?;
    let scan_duration = started.elapsed();
    let started = Instant::now();
    let expected = marker::find_by_definition(&found.snapshot, &found.schema, marker)?;
    let query_duration = started.elapsed();
    let MarkedSessions::Known {
        marked,
        is_complete,
    } = found.marked_sessions
    else {
        return Ok(None);
    };
    let marked: BTreeSet<_> = marked.into_iter().collect();
    let unknown = if is_complete {
        ""
    } else {
        ", some marks unknown"
    };
    let summary = format!(
        "scan:     {}, {} frames of the log, {:.1} ms{unknown}\nquery:    {:.1} ms",
        found.scan.mode.as_str(),
        found.scan.frames,
        scan_duration.as_secs_f64() * 1000.0,
        query_duration.as_secs_f64() * 1000.0,
    );
    let only_in_query = if is_complete {
        expected.difference(&marked).cloned().collect()
    } else {
        BTreeSet::new()
    };
    Ok(Some(Comparison {
        summary,
        marked: expected.len(),
        only_in_query,
        only_in_scan: marked.difference(&expected).cloned().collect(),
    }))
}
