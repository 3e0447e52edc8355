//! `--pretty`: the same listing, checked the same way, as a table for a person.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::listing::{Ended, Task, list};
use crate::entry::Sourced;
use crate::output::{self, Columns, Terminal, TimeColumn};
use crate::project::Projects;
use crate::text;
use crate::wire::{
    Checked, DatabaseState, End, ListingContent, Verdict, Writer, other_tables_line,
};

/// What looking for the projects takes a part of at most.
const PROJECTS: Duration = Duration::from_secs(4);

/// Prints the listing as a table to `out`, and what is to be said about it to
/// `err`.
///
/// # Errors
///
/// Where one of them fails.
pub fn print(task: &Task, mut out: impl Write, mut err: impl Write) -> io::Result<Ended> {
    let mut checked = Checked::of(ListingContent::new(task.first_prompt_limit));
    let mut writer = Writer::new(&mut checked);
    writer.hello()?;
    let ended = list(task, writer, &mut err)?;
    match checked.finish().map_err(io::Error::other)? {
        Verdict::Refused { failure, .. } => {
            writeln!(err, "opencode-lister: {}", text::one_line(&failure.message))?;
        }
        Verdict::Whole(listing) => {
            let projects = Projects::new();
            let places = listing.rows.iter().map(|row| &**row.place());
            projects.look(places, Instant::now() + PROJECTS);
            let sessions = listing.rows.iter().map(|row| Sourced {
                entry: projects.entry(row.entry().session),
                // There is one.
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
    Ok(ended)
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
        DatabaseState::Missing => "; there is no database",
        DatabaseState::Empty => "; the database has no session tables",
        DatabaseState::Young => "; the database is just being made, try again in a second",
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
    fn summary_says_what_the_listing_lacks() {
        let mut end = End {
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
            let mut said = Vec::new();
            summarize(end, &mut said).unwrap();
            String::from_utf8(said).unwrap()
        };
        let first = "3 sessions in 4 ms, 0 bytes searched for the marker\n";
        assert_eq!(summary(&end), first);
        end.log_elsewhere = true;
        end.degraded.push(Degraded {
            what: OptionalPart::Worktree,
            reason: "the table \"project\" is damaged".to_owned(),
        });
        let said = summary(&end);
        let said = said.strip_prefix(first).unwrap();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert_eq!(
            lines[0],
            "opencode-lister: worktree is missing: the table \"project\" is damaged"
        );
        assert!(
            lines[1].starts_with("opencode-lister: the newest sessions can be missing"),
            "{said}"
        );
    }
}
