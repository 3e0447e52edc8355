//! The table for people: title, project, age, id, source.
//!
//! On a terminal each row is one line that fits the width. Long cells are cut; a column that
//! would be too narrow to be useful is omitted, the id first. In a pipe nothing is cut.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::env;
use std::io::{self, Write};

use super::Terminal;
use super::cell::{Cell, Keep};
use crate::entry::{Entry, Sourced};
use crate::session::{Millis, Session};
use crate::text::{is_blank, name_line, prose_line};

/// The distance between two columns, in terminal cells.
const GAP: usize = 2;

/// The columns of a table, beside title, project and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Columns {
    /// The time to show.
    pub(crate) time: TimeColumn,
    /// Whether to show the sources of each session.
    pub(crate) sources: bool,
}

/// The time that a table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeColumn {
    /// When OpenCode updated the session.
    Updated,
    /// The time of the last activity in the session.
    Activity,
    /// When the session was created.
    Created,
}

impl TimeColumn {
    fn header(self) -> &'static str {
        match self {
            Self::Updated => "UPDATED",
            Self::Activity => "ACTIVITY",
            Self::Created => "CREATED",
        }
    }

    fn of(self, session: &Session) -> Option<Millis> {
        match self {
            Self::Updated => session.time_updated,
            Self::Activity => session.active_at(),
            Self::Created => session.time_created,
        }
    }
}

/// Writes the sessions as a table with one line each, cut to the width of the terminal if the
/// output goes to one. Writes nothing if there are no sessions.
///
/// # Errors
///
/// Returns an error if `out` fails.
pub(crate) fn table(
    sessions: &[Sourced],
    columns: Columns,
    terminal: &Terminal,
    mut out: impl Write,
) -> io::Result<()> {
    if sessions.is_empty() {
        return Ok(());
    }
    let kinds = [
        Some(ColumnKind::Title),
        Some(ColumnKind::Project),
        Some(ColumnKind::Time),
        Some(ColumnKind::Id),
        columns.sources.then_some(ColumnKind::Sources),
    ];
    let home = env::home_dir().and_then(|home| home.into_os_string().into_string().ok());
    let time = columns.time;
    let columns = kinds.into_iter().flatten().map(|kind| {
        let cells = sessions
            .iter()
            .map(|session| Cell::new(&kind.text(session, time, terminal.now, home.as_deref())));
        Column {
            kind,
            cells: [Cell::new(kind.header(time))]
                .into_iter()
                .chain(cells)
                .collect(),
        }
    });
    let columns: Vec<_> = columns.collect();
    let full = columns
        .iter()
        .map(|column| (column.kind, column.full_width()));
    let full: Vec<_> = full.collect();
    let widths = match terminal.width {
        Some(width) => fitting_widths(&full, width.into()),
        None => full
            .iter()
            .map(|(kind, full)| Some(kind.pipe_width().min(*full)))
            .collect(),
    };
    let shown = columns.iter().zip(widths);
    let shown = shown.filter_map(|(column, width)| Some((column, width?)));
    let shown: Vec<_> = shown.collect();
    for row in 0..=sessions.len() {
        let line = format_row(&shown, row, terminal.width.is_some());
        if row == 0 && terminal.colours {
            writeln!(out, "\x1b[1m{line}\x1b[0m")?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Formats one row of these columns and widths.
fn format_row(shown: &[(&Column, usize)], row: usize, is_terminal: bool) -> String {
    let mut line = String::new();
    for (column, width) in shown {
        let cell = &column.cells[row];
        let cells = if is_terminal {
            let cell = cell.cut(*width, column.kind.keep());
            line.push_str(&cell.isolated());
            cell.width()
        } else {
            line.push_str(cell.text());
            cell.width()
        };
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(cells) + GAP));
    }
    line.truncate(line.trim_end().len());
    line
}

struct Column {
    kind: ColumnKind,
    /// The header, then one cell for each session.
    cells: Vec<Cell>,
}

impl Column {
    /// Returns the width of the widest cell.
    fn full_width(&self) -> usize {
        self.cells.iter().map(Cell::width).max().unwrap_or(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ColumnKind {
    Title,
    Project,
    Time,
    Sources,
    Id,
}

/// A title is this wide before other columns get more than they need, in cells.
const GOOD_TITLE_WIDTH: usize = 40;

impl ColumnKind {
    fn header(self, time: TimeColumn) -> &'static str {
        match self {
            Self::Title => "TITLE",
            Self::Project => "PROJECT",
            Self::Time => time.header(),
            Self::Sources => "SOURCE",
            Self::Id => "ID",
        }
    }

    /// Returns the text of a cell.
    fn text<'a>(
        self,
        sourced: &'a Sourced,
        time: TimeColumn,
        now: Millis,
        home: Option<&str>,
    ) -> Cow<'a, str> {
        let entry = &sourced.entry;
        match self {
            Self::Title => title(entry),
            Self::Project => {
                let project = name_line(entry.project.as_deref().unwrap_or_default());
                home_as_tilde(&project, home).into_owned().into()
            }
            Self::Time => age(time.of(&entry.session), now).into(),
            Self::Sources => name_line(&sourced.sources()).into_owned().into(),
            Self::Id => name_line(entry.session.id.as_str()),
        }
    }

    fn keep(self) -> Keep {
        match self {
            Self::Project => Keep::End,
            _ => Keep::Start,
        }
    }

    /// Returns the width at which the column is easy to read, and the smallest useful width.
    /// Both have room for the header; a time and an id are never cut.
    fn good_and_min_width(self, full: usize) -> (usize, usize) {
        let (good, min) = match self {
            Self::Title => (GOOD_TITLE_WIDTH, 20),
            Self::Project => (20, 10),
            Self::Sources => (14, 8),
            Self::Time | Self::Id => (full, full),
        };
        (good.min(full), min.min(full))
    }

    /// Returns the width of the column in a pipe. A longer cell is not cut; it moves the rest
    /// of its own row only.
    fn pipe_width(self) -> usize {
        match self {
            Self::Title => 72,
            Self::Project => 40,
            Self::Sources => 24,
            Self::Time | Self::Id => 40,
        }
    }
}

/// The smallest width of a title if the project is omitted.
const MIN_TITLE_WIDTH: usize = 12;

/// Returns the widths of the columns within `room`, given the full width of each; `None` for a
/// column that is omitted.
fn fitting_widths(full: &[(ColumnKind, usize)], room: usize) -> Vec<Option<usize>> {
    // The columns to omit, and whether the others must have their good width.
    let choices: [(&[ColumnKind], bool); 4] = [
        (&[], true),
        (&[ColumnKind::Id], false),
        (&[ColumnKind::Id, ColumnKind::Project], false),
        (
            &[ColumnKind::Id, ColumnKind::Project, ColumnKind::Sources],
            false,
        ),
    ];
    for (omitted, is_good) in choices {
        let required = full.iter().map(|(kind, full)| {
            let (good, min) = kind.good_and_min_width(*full);
            let required = match (is_good, *kind) {
                (true, _) => good,
                (false, ColumnKind::Title) if omitted.contains(&ColumnKind::Project) => {
                    MIN_TITLE_WIDTH.min(*full)
                }
                (false, _) => min,
            };
            (!omitted.contains(kind)).then_some(required)
        });
        let mut widths: Vec<_> = required.collect();
        if let Some(free) = room.checked_sub(total_width(&widths)) {
            distribute(free, &mut widths, full, room);
            return widths;
        }
    }
    let title = |(kind, full): &(ColumnKind, usize)| {
        (*kind == ColumnKind::Title).then_some(room.min(*full))
    };
    full.iter().map(title).collect()
}

/// Gives the free cells to the columns that need them.
fn distribute(
    mut free: usize,
    widths: &mut [Option<usize>],
    full: &[(ColumnKind, usize)],
    room: usize,
) {
    let turns = [
        (ColumnKind::Title, GOOD_TITLE_WIDTH),
        (ColumnKind::Project, room * 3 / 10),
        (ColumnKind::Sources, room / 5),
        (ColumnKind::Title, usize::MAX),
        (ColumnKind::Sources, usize::MAX),
        (ColumnKind::Project, usize::MAX),
    ];
    for (turn, max) in turns {
        for ((kind, full), width) in full.iter().zip(widths.iter_mut()) {
            if let Some(width) = width.as_mut().filter(|_| *kind == turn) {
                let more = max.min(*full).saturating_sub(*width).min(free);
                *width += more;
                free -= more;
            }
        }
    }
}

/// Returns the width of a row with these columns.
fn total_width(widths: &[Option<usize>]) -> usize {
    let count = widths.iter().flatten().count();
    widths.iter().flatten().sum::<usize>() + GAP * count.saturating_sub(1)
}

/// Returns the title, after marks such as `[archived]`: for sessions that are listed only on
/// request, and for a directory that does not exist.
fn title(entry: &Entry) -> Cow<'_, str> {
    let session = &entry.session;
    let title = session.headline().filter(|title| !is_blank(title));
    let title = title.map_or("(untitled)".into(), prose_line);
    let marks = [
        (session.time_archived.is_some(), "archived"),
        (session.parent_id.is_some(), "child"),
        (session.marked == Some(true), "subagent"),
        (entry.gone, "gone"),
    ];
    let marks = marks.into_iter().filter(|(applies, _)| *applies);
    let marks: Vec<_> = marks.map(|(_, mark)| mark).collect();
    match marks.is_empty() {
        true => title,
        false => format!("[{}] {title}", marks.join(", ")).into(),
    }
}

/// Replaces the home directory at the start of a path by `~`.
fn home_as_tilde<'a>(path: &'a str, home: Option<&str>) -> Cow<'a, str> {
    match home.and_then(|home| path.strip_prefix(home)) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("~{rest}").into(),
        _ => path.into(),
    }
}

/// Returns the age of a time in its largest unit. A time in the future is `now`, because the
/// clocks of machines differ.
fn age(time: Option<Millis>, Millis(now): Millis) -> String {
    let Some(Millis(time)) = time else {
        return "?".to_owned();
    };
    let seconds = now.saturating_sub(time).max(0) / 1000;
    let (minute, hour, day) = (60, 60 * 60, 24 * 60 * 60);
    match seconds {
        s if s < minute => "now".to_owned(),
        s if s < hour => format!("{} min ago", s / minute),
        s if s < day => format!("{} h ago", s / hour),
        s if s < 365 * day => format!("{} d ago", s / day),
        s => format!("{} y ago", s / (365 * day)),
    }
}
