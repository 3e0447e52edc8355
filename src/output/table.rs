//! The table for people: title, project, how long ago, id, source.
//!
//! On a terminal each row is one line that fits: what does not is cut, and where a column
//! would say nothing any more it is left out, the id first. Into a pipe nothing is cut.

use std::borrow::Cow;
use std::env;
use std::io::{self, Write};

use super::Terminal;
use super::cell::{Cell, Keep};
use crate::entry::{Entry, Sourced};
use crate::session::{Millis, Session};
use crate::text::{is_blank, name_line, prose_line};

/// The cells between two columns.
const GAP: usize = 2;

/// Which columns a table has, beside title, project and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Which time.
    pub time: TimeColumn,
    /// The sources of each session: where there can be several.
    pub sources: bool,
}

/// Which time a table shows: the one that its order is by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeColumn {
    /// When OpenCode says the session was updated.
    Updated,
    /// When anything last happened in it.
    Activity,
    /// When it was created.
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

/// Prints the entries as a table of one line each, cut to the terminal's width
/// where there is one.
///
/// # Errors
///
/// Returns an error if `out` fails.
pub fn table(
    sessions: &[Sourced],
    columns: Columns,
    terminal: &Terminal,
    mut out: impl Write,
) -> io::Result<()> {
    if sessions.is_empty() {
        return Ok(());
    }
    let kinds = [
        Some(Kind::Title),
        Some(Kind::Project),
        Some(Kind::Time),
        Some(Kind::Id),
        columns.sources.then_some(Kind::Sources),
    ];
    let home = env::home_dir().and_then(|home| home.into_os_string().into_string().ok());
    let time = columns.time;
    let columns = kinds.into_iter().flatten().map(|kind| {
        let cells = sessions
            .iter()
            .map(|session| Cell::new(&kind.of(session, time, terminal.now, home.as_deref())));
        Column {
            kind,
            cells: [Cell::new(kind.header(time))]
                .into_iter()
                .chain(cells)
                .collect(),
        }
    });
    let columns: Vec<_> = columns.collect();
    let natural = columns.iter().map(|column| (column.kind, column.natural()));
    let natural: Vec<_> = natural.collect();
    let widths = match terminal.width {
        Some(width) => widths(&natural, width.into()),
        None => natural
            .iter()
            .map(|(kind, natural)| Some(kind.padded_in_a_pipe().min(*natural)))
            .collect(),
    };
    let shown = columns.iter().zip(widths);
    let shown = shown.filter_map(|(column, width)| Some((column, width?)));
    let shown: Vec<_> = shown.collect();
    for row in 0..=sessions.len() {
        let line = line(&shown, row, terminal.width.is_some());
        if row == 0 && terminal.colours {
            writeln!(out, "\x1b[1m{line}\x1b[0m")?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn line(shown: &[(&Column, usize)], row: usize, is_terminal: bool) -> String {
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
    kind: Kind,
    /// The header is the first.
    cells: Vec<Cell>,
}

impl Column {
    fn natural(&self) -> usize {
        self.cells.iter().map(Cell::width).max().unwrap_or(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Title,
    Project,
    Time,
    Sources,
    Id,
}

/// The cells that a title is to have before other columns get more than they need.
const GOOD_TITLE: usize = 40;

impl Kind {
    fn header(self, time: TimeColumn) -> &'static str {
        match self {
            Self::Title => "TITLE",
            Self::Project => "PROJECT",
            Self::Time => time.header(),
            Self::Sources => "SOURCE",
            Self::Id => "ID",
        }
    }

    fn of<'a>(
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
            Self::Time => ago(time.of(&entry.session), now).into(),
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

    /// The cells that this column needs to be good to read, and those without which it
    /// says nothing. The header fits both; a time and an id are never cut.
    fn needs(self, natural: usize) -> (usize, usize) {
        let (good, least) = match self {
            Self::Title => (GOOD_TITLE, 20),
            Self::Project => (20, 10),
            Self::Sources => (14, 8),
            Self::Time | Self::Id => (natural, natural),
        };
        (good.min(natural), least.min(natural))
    }

    /// Longer cells are not cut, and move the rest of their own row only.
    fn padded_in_a_pipe(self) -> usize {
        match self {
            Self::Title => 72,
            Self::Project => 40,
            Self::Sources => 24,
            Self::Time | Self::Id => 40,
        }
    }
}

/// The least of a title beside nothing but a time.
const LEAST_TITLE: usize = 12;

/// The widths of these columns, whose widest cells have these, within `room`; `None` for one
/// that is left out.
fn widths(natural: &[(Kind, usize)], room: usize) -> Vec<Option<usize>> {
    // What is left out, from the least needed, until the rest is readable.
    let choices: [(&[Kind], bool); 4] = [
        (&[], true),
        (&[Kind::Id], false),
        (&[Kind::Id, Kind::Project], false),
        (&[Kind::Id, Kind::Project, Kind::Sources], false),
    ];
    for (left_out, is_good) in choices {
        let least = natural.iter().map(|(kind, natural)| {
            let (good, least) = kind.needs(*natural);
            let least = match (is_good, *kind) {
                (true, _) => good,
                (false, Kind::Title) if left_out.contains(&Kind::Project) => {
                    LEAST_TITLE.min(*natural)
                }
                (false, _) => least,
            };
            (!left_out.contains(kind)).then_some(least)
        });
        let mut widths: Vec<_> = least.collect();
        if let Some(free) = room.checked_sub(total(&widths)) {
            share(free, &mut widths, natural, room);
            return widths;
        }
    }
    let title =
        |(kind, natural): &(Kind, usize)| (*kind == Kind::Title).then_some(room.min(*natural));
    natural.iter().map(title).collect()
}

/// Gives what is free to the columns that need it.
fn share(mut free: usize, widths: &mut [Option<usize>], natural: &[(Kind, usize)], room: usize) {
    let turns = [
        (Kind::Title, GOOD_TITLE),
        (Kind::Project, room * 3 / 10),
        (Kind::Sources, room / 5),
        (Kind::Title, usize::MAX),
        (Kind::Sources, usize::MAX),
        (Kind::Project, usize::MAX),
    ];
    for (whose, most) in turns {
        for ((kind, natural), width) in natural.iter().zip(widths.iter_mut()) {
            if let Some(width) = width.as_mut().filter(|_| *kind == whose) {
                let more = most.min(*natural).saturating_sub(*width).min(free);
                *width += more;
                free -= more;
            }
        }
    }
}

/// The width of a row of these columns.
fn total(widths: &[Option<usize>]) -> usize {
    let count = widths.iter().flatten().count();
    widths.iter().flatten().sum::<usize>() + GAP * count.saturating_sub(1)
}

/// The title, after the marks of a session that an ordinary list does not have, or whose
/// directory is gone.
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
    let marks = marks.into_iter().filter(|(is_so, _)| *is_so);
    let marks: Vec<_> = marks.map(|(_, mark)| mark).collect();
    match marks.is_empty() {
        true => title,
        false => format!("[{}] {title}", marks.join(", ")).into(),
    }
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
    use serde_json::json;

    use super::*;
    use crate::output::cell::width;

    const NOW: i64 = 1_800_000_000_000;

    fn session(fields: &serde_json::Value) -> Sourced {
        let mut session = json!({
            "id": "ses_0123456789012345678901234567", "store": "v1", "directory": "/work",
            "timeUpdated": NOW - 90_000, "project": "/work", "source": "opencode.db",
        });
        for (key, value) in fields.as_object().unwrap() {
            session[key] = value.clone();
        }
        serde_json::from_value(session).unwrap()
    }

    fn printed(sessions: &[Sourced], columns: Columns, width: Option<u16>) -> Vec<String> {
        let terminal = Terminal {
            width,
            colours: false,
            now: Millis(NOW),
        };
        let mut out = Vec::new();
        table(sessions, columns, &terminal, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    const ONE: Columns = Columns {
        time: TimeColumn::Updated,
        sources: false,
    };

    const SEVERAL: Columns = Columns {
        time: TimeColumn::Activity,
        sources: true,
    };

    #[test]
    fn no_line_is_wider_than_its_terminal() {
        let titles = [
            "Short",
            &"Refactor the payments and all that hangs on them ".repeat(4),
            "修复数据库连接池的内存泄漏问题并且添加测试 🚀🚀🚀 修复数据库连接池的内存泄漏问题",
            "إصلاح تسرب الذاكرة في تجمع الاتصالات لا لا لا لا لا لا لا لا لا لا",
            &"👩\u{200d}👩\u{200d}👧 🇩🇪 ❤\u{fe0f} e\u{301} ".repeat(9),
            "\u{200b}",
            &"x".repeat(4096),
        ];
        let projects = [
            "/work",
            "/home/me/a/directory/that/is/deep/inside/of/others",
        ];
        let sources = [
            "a/opencode.db",
            "a-source-of-a-rather-long-name-on-a-machine",
        ];
        let mut all: Vec<_> = titles.iter().map(|title| vec![*title]).collect();
        all.push(titles.to_vec());
        for titles in &all {
            for project in projects {
                for source in sources {
                    let sessions: Vec<_> = titles
                        .iter()
                        .map(|title| {
                            session(
                                &json!({"title": title, "project": project, "source": source,
                                "timeArchived": 1, "also": [source]}),
                            )
                        })
                        .collect();
                    for columns in [ONE, SEVERAL] {
                        for room in [1, 5, 11, 20, 24, 30, 40, 48, 60, 80, 100, 120, 200] {
                            let lines = printed(&sessions, columns, Some(room));
                            assert_eq!(lines.len(), sessions.len() + 1, "a line for each row");
                            for line in &lines {
                                let width = width(line);
                                assert!(width <= room.into(), "{room}: {width} {line:?}");
                            }
                            if room >= 5 {
                                assert!(lines[0].starts_with("TITLE"), "{:?}", lines[0]);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn columns_begin_in_the_same_cell_in_every_row() {
        let titles = [
            "xx xx xx",
            "لا لا لا لا",
            "日本語",
            "👩\u{200d}👩\u{200d}👧",
            "❤\u{fe0f}",
            "\u{200b}",
        ];
        let sessions: Vec<_> = titles
            .iter()
            .map(|title| session(&json!({"title": title})))
            .collect();
        for room in [None, Some(40), Some(120)] {
            let lines = printed(&sessions, ONE, room);
            let places = lines[1..].iter().map(|line| {
                let (before, _) = line.split_once("/work").unwrap();
                width(before)
            });
            let places: Vec<_> = places.collect();
            assert_eq!(places, vec![places[0]; titles.len()], "{room:?}: {lines:?}");
        }
    }

    #[test]
    fn least_needed_columns_are_left_out_first() {
        let long =
            session(&json!({"title": "word ".repeat(30), "project": "/home/me/one/two/three"}));
        let short = session(&json!({"title": "Short"}));
        for (one, columns, room, expected) in [
            (&long, ONE, 200, "TITLE PROJECT UPDATED ID"),
            (&long, ONE, 120, "TITLE PROJECT UPDATED ID"),
            (&long, ONE, 80, "TITLE PROJECT UPDATED"),
            (&long, ONE, 60, "TITLE PROJECT UPDATED"),
            (&long, ONE, 40, "TITLE UPDATED"),
            (&long, ONE, 24, "TITLE UPDATED"),
            (&long, ONE, 20, "TITLE"),
            (&short, ONE, 80, "TITLE PROJECT UPDATED ID"),
            (&short, ONE, 30, "TITLE PROJECT UPDATED"),
            (&long, SEVERAL, 200, "TITLE PROJECT ACTIVITY ID SOURCE"),
            (&long, SEVERAL, 80, "TITLE PROJECT ACTIVITY SOURCE"),
            (&long, SEVERAL, 40, "TITLE ACTIVITY SOURCE"),
            (&long, SEVERAL, 30, "TITLE ACTIVITY"),
        ] {
            let lines = printed(std::slice::from_ref(one), columns, Some(room));
            let header: Vec<_> = lines[0].split_whitespace().collect();
            assert_eq!(header.join(" "), expected, "{room}: {lines:?}");
        }
    }

    #[test]
    fn cuts_keep_the_start_of_a_title_and_the_end_of_a_path() {
        let sessions = [session(&json!({
            "title": "Rename every table that has a wrong name, and see to it that nobody notices",
            "project": "/home/dev/of/many/directories/project7",
        }))];
        let line = &printed(&sessions, ONE, Some(80))[1];
        let (title, rest) = line.split_once('…').unwrap();
        assert!(
            title.starts_with("Rename every table that has a wrong name"),
            "{line}"
        );
        let (project, _) = rest.trim().split_once("  ").unwrap();
        assert!(
            project.starts_with('…') && project.ends_with("/project7"),
            "{line}"
        );
        // Into a pipe nothing is cut, and no row is padded for the sake of a long one.
        let sessions = [
            session(&json!({"title": "long ".repeat(900)})),
            session(&json!({"title": "short"})),
        ];
        let lines = printed(&sessions, ONE, None);
        assert!(lines[1].contains(&"long ".repeat(900)), "{}", lines[1]);
        assert!(width(&lines[0]) < 200 && width(&lines[2]) < 200);
    }

    #[test]
    fn text_from_right_to_left_is_isolated_on_a_terminal_only() {
        let sessions = [
            session(&json!({"title": "שלום", "project": "/work/א"})),
            session(&json!({"title": "plain"})),
        ];
        let lines = printed(&sessions, ONE, Some(120));
        assert!(lines[1].contains("\u{2068}שלום\u{2069}"), "{lines:?}");
        assert!(lines[1].contains("\u{2068}/work/א\u{2069}"), "{lines:?}");
        assert!(!lines[2].contains('\u{2068}'), "{lines:?}");
        for line in printed(&sessions, ONE, None) {
            assert!(!line.contains(['\u{2068}', '\u{2069}']), "{line}");
        }
    }

    #[test]
    fn title_that_nobody_sees_is_none() {
        for (fields, expected) in [
            (json!({"title": "\u{200b}"}), "(untitled)"),
            (json!({"title": "\u{3164}\u{ad}\u{e0041}"}), "(untitled)"),
            (json!({"title": null, "untitled": true}), "(untitled)"),
            (
                json!({"title": "\u{200b}", "untitled": true, "firstPrompt": "Do it"}),
                "Do it",
            ),
            (json!({"title": "a\u{2060}b"}), "ab"),
        ] {
            let sessions = [session(&fields)];
            let line = &printed(&sessions, ONE, None)[1];
            assert!(
                line.starts_with(&format!("{expected}  ")),
                "{fields}: {line:?}"
            );
        }
        // Paths are told apart.
        let sessions = [session(&json!({"project": "/a\u{200b}b"}))];
        assert!(printed(&sessions, ONE, None)[1].contains("/a\u{fffd}b"));
    }

    #[test]
    fn sessions_that_are_not_in_an_ordinary_list_are_told_apart() {
        for (fields, expected) in [
            (json!({}), "Fix it  "),
            (json!({"timeArchived": 5}), "[archived] Fix it  "),
            (json!({"parentId": "ses_1"}), "[child] Fix it  "),
            (json!({"marked": true}), "[subagent] Fix it  "),
            (json!({"marked": false}), "Fix it  "),
            (json!({"gone": true}), "[gone] Fix it  "),
            (
                json!({"marked": true, "parentId": "ses_1", "timeArchived": 5, "gone": true}),
                "[archived, child, subagent, gone] Fix it  ",
            ),
        ] {
            let mut fields = fields;
            fields["title"] = "Fix it".into();
            let line = &printed(&[session(&fields)], ONE, None)[1];
            assert!(line.starts_with(expected), "{line:?}");
        }
    }

    #[test]
    fn time_is_the_one_that_the_order_is_by() {
        let hours = |hours: i64| NOW - hours * 3_600_000;
        let sessions = [session(&json!({
            "timeCreated": hours(9), "timeUpdated": hours(7), "lastMessageAt": hours(2),
        }))];
        for (time, header, expected) in [
            (TimeColumn::Updated, "UPDATED", "7 h ago"),
            (TimeColumn::Activity, "ACTIVITY", "2 h ago"),
            (TimeColumn::Created, "CREATED", "9 h ago"),
        ] {
            let lines = printed(&sessions, Columns { time, ..ONE }, None);
            assert!(lines[0].contains(header), "{lines:?}");
            assert!(lines[1].contains(expected), "{lines:?}");
        }
    }

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
