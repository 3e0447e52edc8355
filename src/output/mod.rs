//! Writes sessions for people (a table) and for programs (JSON, TSV, ids).
//!
//! The table contains nothing that a terminal interprets. The other formats contain the stored
//! text, escaped by the rules of the format.

mod cell;
mod table;

use std::io::{self, Write};
use std::os::fd::AsFd;

use crate::entry::{Entry, Sourced};
use crate::json::to_json;
use crate::session::Millis;
use crate::text::escaped;
use anstream::{AutoStream, ColorChoice};

pub(crate) use table::{Columns, TimeColumn, table};

/// The terminal that standard output goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// The width in columns; `None` if the output does not go to a terminal.
    pub(crate) width: Option<u16>,
    /// Whether to use colours.
    pub(crate) colours: bool,
    /// The present time, for ages.
    pub(crate) now: Millis,
}

/// The width of a terminal that does not report it.
const DEFAULT_WIDTH: u16 = 80;

impl Terminal {
    /// Returns the present state of standard output.
    #[must_use]
    pub(crate) fn of_stdout() -> Self {
        let stdout = io::stdout();
        let width = rustix::termios::isatty(stdout.as_fd()).then(|| {
            rustix::termios::tcgetwinsize(stdout.as_fd())
                .ok()
                .map(|size| size.ws_col)
                .filter(|width| *width > 0)
                .unwrap_or(DEFAULT_WIDTH)
        });
        Self {
            width,
            colours: AutoStream::choice(&stdout) != ColorChoice::Never,
            now: Millis::now(),
        }
    }
}

/// Writes one JSON array, with one object per line.
///
/// # Errors
///
/// Returns an error if `out` fails.
pub(crate) fn json(sessions: &[Sourced], mut out: impl Write) -> io::Result<()> {
    if sessions.is_empty() {
        return writeln!(out, "[]");
    }
    for (at, session) in sessions.iter().enumerate() {
        out.write_all(if at == 0 { b"[\n" } else { b",\n" })?;
        to_json(session, &mut out)?;
    }
    out.write_all(b"\n]\n")
}

/// Writes one JSON object per line.
///
/// # Errors
///
/// Returns an error if `out` fails.
pub(crate) fn ndjson(sessions: &[Sourced], mut out: impl Write) -> io::Result<()> {
    for session in sessions {
        to_json(session, &mut out)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Writes tab-separated values with a header. Tabs, line feeds, backslashes and other unsafe
/// characters are escaped (`\t`, `\n`, `\\`, `\u{1b}`). An unknown value is empty.
///
/// # Errors
///
/// Returns an error if `out` fails.
pub(crate) fn tsv(sessions: &[Sourced], mut out: impl Write) -> io::Result<()> {
    writeln!(
        out,
        "id\ttimeUpdated\ttimeCreated\tmarked\tparentId\tproject\tdirectory\ttitle\tsources"
    )?;
    for sourced in sessions {
        let Entry {
            session, project, ..
        } = &sourced.entry;
        let text =
            |text: &Option<String>| escaped(text.as_deref().unwrap_or_default()).into_owned();
        let time = |time: Option<Millis>| {
            time.map(|Millis(time)| time.to_string())
                .unwrap_or_default()
        };
        writeln!(
            out,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            escaped(session.id.as_str()),
            time(session.time_updated),
            time(session.time_created),
            session
                .marked
                .map(|marked| marked.to_string())
                .unwrap_or_default(),
            text(&session.parent_id),
            text(project),
            text(&session.directory),
            text(&session.title),
            escaped(&sourced.sources()),
        )?;
    }
    Ok(())
}

/// Writes one id per line, escaped as in [`tsv`].
///
/// # Errors
///
/// Returns an error if `out` fails.
pub(crate) fn ids(sessions: &[Sourced], mut out: impl Write) -> io::Result<()> {
    for Sourced { entry, .. } in sessions {
        writeln!(out, "{}", escaped(entry.session.id.as_str()))?;
    }
    Ok(())
}
