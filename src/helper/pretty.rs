//! `--pretty`: the same listing, checked the same way, as a table for a person.

use std::io::{self, Write};

use super::listing::{Ended, Task, list};
use crate::output::{self, Entry, Sourced, Terminal};
use crate::project::Projects;
use crate::text;
use crate::wire::{Checked, DatabaseState, Sessions, Verdict, Writer};

/// Prints the listing as a table to `out`, and what is to be said about it to
/// `err`.
///
/// # Errors
///
/// Where one of them fails.
pub fn print(task: &Task, mut out: impl Write, mut err: impl Write) -> io::Result<Ended> {
    let mut checked = Checked::of(Sessions::new(task.first_prompt_limit));
    let mut writer = Writer::new(&mut checked);
    writer.hello()?;
    let ended = list(task, writer, &mut err)?;
    match checked.finish().map_err(io::Error::other)? {
        Verdict::Refused { failure, .. } => {
            writeln!(err, "opencode-lister: {}", text::one_line(&failure.message))?;
        }
        Verdict::Whole(listing) => {
            let mut projects = Projects::new();
            let sessions = listing.sessions.into_values().map(|session| Sourced {
                entry: Entry {
                    project: projects.of(&session),
                    session,
                },
                // There is one.
                source: "".into(),
                also: Vec::new(),
            });
            let sessions: Vec<_> = sessions.collect();
            output::table(&sessions, &Terminal::of_stdout(), &mut out)?;
            out.flush()?;
            let end = listing.end;
            let state = match end.database {
                DatabaseState::Ready => "",
                DatabaseState::Missing => "; there is no database",
                DatabaseState::Empty => "; the database has no session tables",
                DatabaseState::Young => "; the database is just being made, try again in a second",
            };
            writeln!(
                err,
                "{} sessions in {} ms, {} bytes searched for the marker{state}",
                end.sessions, end.elapsed_ms, end.scan.bytes
            )?;
        }
    }
    Ok(ended)
}
