//! `--pretty`: prints the listing as a table for people. The listing passes the same checks
//! as that of a spawned helper.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::listing::{ListJob, RunStatus, list};
use crate::entry::Sourced;
use crate::output::{self, Columns, Terminal, TimeColumn};
use crate::project::Projects;
use crate::row::Row;
use crate::text;
use crate::wire::{
    Checked, DatabaseState, End, ListingContent, Verdict, Writer, other_tables_line,
};

/// How long finding the projects of the sessions may take.
const PROJECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Prints the listing as a table to `out`, and a summary or an error to `err`.
///
/// # Errors
///
/// Returns an error if `out` or `err` fails.
pub(crate) fn print(
    job: &ListJob,
    mut out: impl Write,
    mut err: impl Write,
) -> io::Result<RunStatus> {
    let mut checked = Checked::of(ListingContent::new(job.first_prompt_limit));
    let mut writer = Writer::new(&mut checked);
    writer.hello()?;
    let status = list(job, None, writer, &mut err)?;
    match checked.finish().map_err(io::Error::other)? {
        Verdict::Refused { failure, .. } => {
            writeln!(err, "opencode-lister: {}", text::one_line(&failure.message))?;
        }
        Verdict::Whole(listing) => {
            let projects = Projects::new();
            let places = listing.rows.iter().map(Row::place);
            projects.resolve(places, Instant::now() + PROJECT_TIMEOUT);
            let sessions = listing.rows.iter().map(|row| Sourced {
                entry: projects.entry(row.entry().session),
                // The only source: the table does not show it.
                source: "".into(),
                also: Vec::new(),
            });
            let sessions: Vec<_> = sessions.collect();
            let columns = Columns {
                time: TimeColumn::Updated,
                sources: false,
            };
            output::table(&sessions, columns, &Terminal::of_stdout(), &mut out)?;
            out.flush()?;
            summarize(&listing.end, err)?;
        }
    }
    Ok(status)
}

fn summarize(end: &End, mut err: impl Write) -> io::Result<()> {
    let tables = match end.other_tables.is_empty() {
        true => String::new(),
        false => format!(
            " (it has: {})",
            text::name_line(&other_tables_line(&end.other_tables))
        ),
    };
    let state = match end.database {
        DatabaseState::Ready => "",
        DatabaseState::Missing => "; no database found",
        DatabaseState::Empty => "; the database has no session tables",
        DatabaseState::Young => "; the database is being created, try again in a second",
    };
    writeln!(
        err,
        "{} sessions in {} ms, {} bytes searched for the marker{state}{tables}",
        end.sessions, end.elapsed_ms, end.scan.bytes
    )?;
    for note in end.notes() {
        writeln!(err, "opencode-lister: {note}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Degraded, OptionalPart, Scan, Skipped};

    #[test]
    fn summary_names_missing_parts() {
        let mut end = End {
            difference: None,
            sessions: 3,
            database: DatabaseState::Ready,
            tables: Vec::new(),
            flat: false,
            skipped: Skipped::default(),
            scan: Scan::NONE,
            degraded: Vec::new(),
            log_elsewhere: false,
            other_tables: Vec::new(),
            elapsed_ms: 4,
        };
        let summary = |end: &End| {
            let mut text = Vec::new();
            summarize(end, &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        let first = "3 sessions in 4 ms, 0 bytes searched for the marker\n";
        assert_eq!(summary(&end), first);
        end.log_elsewhere = true;
        end.degraded.push(Degraded {
            what: OptionalPart::Worktree,
            reason: "the table \"project\" is damaged".to_owned(),
        });
        let text = summary(&end);
        let notes = text.strip_prefix(first).unwrap();
        let lines: Vec<_> = notes.lines().collect();
        assert_eq!(lines.len(), 2, "{notes}");
        assert_eq!(
            lines[0],
            "opencode-lister: worktree is missing: the table \"project\" is damaged"
        );
        assert!(
            lines[1].starts_with("opencode-lister: the newest sessions may be missing"),
            "{notes}"
        );
    }
}
