//! The table for people: title, project, how long ago, id.

use std::borrow::Cow;
use std::env;
use std::io::{self, Write};

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Row, Table, Width};

use super::{Sourced, Terminal};
use crate::session::Millis;
use crate::text::one_line;

/// Below this the columns say nothing any more.
const NARROWEST: u16 = 40;

/// Prints the entries as a table of one line each, cut to the terminal's width
/// where there is one.
///
/// # Errors
///
/// Those of `out`.
pub fn table(sessions: &[Sourced], terminal: &Terminal, mut out: impl Write) -> io::Result<()> {
    let Some(first) = sessions.first() else {
        return Ok(());
    };
    // Where all are of one source its name says nothing.
    let of_one = |session: &Sourced| session.also.is_empty() && session.source == first.source;
    let shows_sources = !sessions.iter().all(of_one);
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_truncation_indicator("…");
    let mut header = vec!["TITLE", "PROJECT", "UPDATED", "ID"];
    header.extend(shows_sources.then_some("SOURCE"));
    table.set_header(header);
    let home = env::home_dir().and_then(|home| home.into_os_string().into_string().ok());
    for sourced in sessions {
        let entry = &sourced.entry;
        let session = &entry.session;
        let title = one_line(session.headline().unwrap_or_default());
        let title = if title.is_empty() {
            Cow::Borrowed("(untitled)")
        } else {
            title
        };
        let project = one_line(entry.project.as_deref().unwrap_or_default());
        let mut row = Row::from([
            Cell::new(title),
            Cell::new(home_as_tilde(&project, home.as_deref())),
            Cell::new(ago(session.time_updated, terminal.now)),
            Cell::new(one_line(session.id.as_str())),
        ]);
        if shows_sources {
            row.add_cell(Cell::new(one_line(&sourced.sources())));
        }
        row.max_height(1);
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if let Some(width) = terminal.width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width.max(NARROWEST));
        // The id is there to be copied: it is never cut before the rest is.
        for column in [2, 3] {
            if let Some(column) = table.column_mut(column) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        if let Some(column) = table.column_mut(1) {
            column.set_constraint(ColumnConstraint::UpperBoundary(Width::Percentage(30)));
        }
    }
    for (at, line) in table.lines().enumerate() {
        let line = line.trim_end();
        // The program's writer leaves the colour out where it is not wanted.
        if at == 0 {
            writeln!(out, "\x1b[1m{line}\x1b[0m")?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn home_as_tilde<'a>(path: &'a str, home: Option<&str>) -> Cow<'a, str> {
    match home.and_then(|home| path.strip_prefix(home)) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("~{rest}").into(),
        _ => path.into(),
    }
}

/// How long ago, in its largest unit. A time in the future is now: clocks differ.
fn ago(time: Option<Millis>, Millis(now): Millis) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_its_largest_unit() {
        let now = 1_800_000_000_000;
        let told = |seconds: i64| ago(Some(Millis(now - seconds * 1000)), Millis(now));
        for (seconds, expected) in [
            (-5, "now"),
            (59, "now"),
            (60, "1 min ago"),
            (3599, "59 min ago"),
            (3600, "1 h ago"),
            (86_399, "23 h ago"),
            (86_400, "1 d ago"),
            (364 * 86_400, "364 d ago"),
            (365 * 86_400, "1 y ago"),
        ] {
            assert_eq!(told(seconds), expected);
        }
        assert_eq!(ago(None, Millis(now)), "?");
        assert_eq!(
            ago(Some(Millis(i64::MIN)), Millis(i64::MAX)),
            "292471208 y ago"
        );
    }

    #[test]
    fn only_the_home_directory_itself_is_a_tilde() {
        assert_eq!(home_as_tilde("/home/me/x", Some("/home/me")), "~/x");
        assert_eq!(home_as_tilde("/home/me", Some("/home/me")), "~");
        assert_eq!(
            home_as_tilde("/home/meg/x", Some("/home/me")),
            "/home/meg/x"
        );
        assert_eq!(home_as_tilde("/x", None), "/x");
    }
}
