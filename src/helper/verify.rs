//! `opencode-lister verify`: the scan and the definition, in one snapshot, for
//! people who doubt.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Instant;

use super::listing::{Ended, Task};
use super::report_error;
use crate::marker::{self, MarkedSessions};
use crate::store::{Database, Opened, StoreError};
use crate::text::{DisplayPath, one_line};
use crate::wire::ErrorKind;

/// Compares them and says what came of it. Nothing is remembered.
///
/// # Errors
///
/// Where `out` fails. A database that fails is said to `err`.
pub fn print(task: &Task, mut out: impl Write, err: impl Write) -> io::Result<Ended> {
    let Some(path) = task.db.as_deref() else {
        writeln!(out, "there is no database to verify")?;
        return Ok(Ended::Complete);
    };
    writeln!(out, "database: {}", DisplayPath(path))?;
    let compared = match compare(task) {
        Ok(Some(compared)) => compared,
        Ok(None) => {
            writeln!(out, "there is nothing to verify: no database, or no marker")?;
            return Ok(Ended::Complete);
        }
        Err(error) => {
            out.flush()?;
            return report_error(error, path, err);
        }
    };
    writeln!(out, "{}", compared.how)?;
    let same = compared.missing.is_empty() && compared.wrong.is_empty();
    for (ids, what) in [
        (&compared.missing, "the query alone finds it marked"),
        (&compared.wrong, "the scan alone finds it marked"),
    ] {
        for id in ids {
            writeln!(out, "differs:  {}: {what}", one_line(id))?;
        }
    }
    if same {
        writeln!(out, "the same: {} sessions are marked", compared.marked)?;
        return Ok(Ended::Complete);
    }
    Ok(Ended::Failed(ErrorKind::Internal))
}

struct Comparison {
    how: String,
    marked: usize,
    missing: BTreeSet<String>,
    wrong: BTreeSet<String>,
}

fn compare(task: &Task) -> Result<Option<Comparison>, StoreError> {
    let (Some(path), Some(marker)) = (&task.db, &task.marker.marker) else {
        return Ok(None);
    };
    let Opened::Ready(database) = Database::open(path, &task.open)? else {
        return Ok(None);
    };
    let started = Instant::now();
    let found = marker::scan(&database, &task.marker)?;
    let scan_took = started.elapsed();
    let started = Instant::now();
    let expected = marker::find_by_definition(&found.snapshot, &found.schema, marker)?;
    let query_took = started.elapsed();
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
        ", not all known yet"
    };
    let how = format!(
        "scan:     {}, {} frames of the log, {:.1} ms{unknown}\nquery:    {:.1} ms",
        found.scan.mode.as_str(),
        found.scan.frames,
        scan_took.as_secs_f64() * 1000.0,
        query_took.as_secs_f64() * 1000.0,
    );
    let missing = if is_complete {
        expected.difference(&marked).cloned().collect()
    } else {
        BTreeSet::new()
    };
    Ok(Some(Comparison {
        how,
        marked: expected.len(),
        missing,
        wrong: marked.difference(&expected).cloned().collect(),
    }))
}
