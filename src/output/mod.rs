//! How people and programs see sessions.
//!
//! Results go to a writer; a caller passes standard output. What is shown to a
//! person holds nothing that a terminal would act on, what is shown to a program
//! is the stored text, escaped as its format has it.

mod cell;
mod table;

use std::io::{self, Write};
use std::os::fd::AsFd;

use crate::entry::{Entry, Sourced};
use crate::json::to_json;
use crate::session::Millis;
use crate::text::escaped;
use anstream::{AutoStream, ColorChoice};

pub use table::{Columns, TimeColumn, table};

/// The terminal a person looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Its width in columns, where the output goes to a terminal.
    pub width: Option<u16>,
    /// Colours are wanted there.
    pub colours: bool,
    /// Now, for relative times.
    pub now: Millis,
}

/// The width of a terminal that does not know its own.
const USUAL_WIDTH: u16 = 80;

impl Terminal {
    /// What standard output goes to, now.
    #[must_use]
    pub fn of_stdout() -> Self {
        let stdout = io::stdout();
        let width = rustix::termios::isatty(stdout.as_fd()).then(|| {
            rustix::termios::tcgetwinsize(stdout.as_fd())
                .ok()
                .map(|size| size.ws_col)
                .filter(|width| *width > 0)
                .unwrap_or(USUAL_WIDTH)
        });
        Self {
            width,
            colours: AutoStream::choice(&stdout) != ColorChoice::Never,
            now: Millis::now(),
        }
    }
}

/// One JSON array, an object a line.
///
/// # Errors
///
/// Those of `out`.
pub fn json(sessions: &[Sourced], mut out: impl Write) -> io::Result<()> {
    if sessions.is_empty() {
        return writeln!(out, "[]");
    }
    for (at, session) in sessions.iter().enumerate() {
        out.write_all(if at == 0 { b"[\n" } else { b",\n" })?;
        to_json(session, &mut out)?;
    }
    out.write_all(b"\n]\n")
}

/// One JSON object a line.
///
/// # Errors
///
/// Those of `out`.
pub fn ndjson(sessions: &[Sourced], mut out: impl Write) -> io::Result<()> {
    for session in sessions {
        to_json(session, &mut out)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Tab-separated values with a header. Tabs, line ends, backslashes and other
/// unsafe characters are escapes (`\t`, `\n`, `\\`, `\u{1b}`); what is not known
/// is empty.
///
/// # Errors
///
/// Those of `out`.
pub fn tsv(sessions: &[Sourced], mut out: impl Write) -> io::Result<()> {
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

/// One id a line, escaped like a value of [`tsv`].
///
/// # Errors
///
/// Those of `out`.
pub fn ids(sessions: &[Sourced], mut out: impl Write) -> io::Result<()> {
    for Sourced { entry, .. } in sessions {
        writeln!(out, "{}", escaped(entry.session.id.as_str()))?;
    }
    Ok(())
}
