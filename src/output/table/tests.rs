//! Tests of the table.

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
fn columns_are_aligned_in_every_row() {
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
fn least_important_columns_are_omitted_first() {
    let long = session(&json!({"title": "word ".repeat(30), "project": "/home/me/one/two/three"}));
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
fn long_title_keeps_its_start_and_long_path_its_end() {
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
    // In a pipe nothing is cut, and a long row does not widen the others.
    let sessions = [
        session(&json!({"title": "long ".repeat(900)})),
        session(&json!({"title": "short"})),
    ];
    let lines = printed(&sessions, ONE, None);
    assert!(lines[1].contains(&"long ".repeat(900)), "{}", lines[1]);
    assert!(width(&lines[0]) < 200 && width(&lines[2]) < 200);
}

#[test]
fn right_to_left_text_is_isolated_on_a_terminal_only() {
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
fn invisible_title_is_shown_as_untitled() {
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
    // A path keeps a sign of it, so that two paths never look alike.
    let sessions = [session(&json!({"project": "/a\u{200b}b"}))];
    assert!(printed(&sessions, ONE, None)[1].contains("/a\u{fffd}b"));
}

#[test]
fn sessions_outside_the_default_list_have_a_mark() {
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
fn time_column_shows_the_chosen_time() {
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
fn age_is_shown_in_its_largest_unit() {
    let now = 1_800_000_000_000;
    let shown = |seconds: i64| age(Some(Millis(now - seconds * 1000)), Millis(now));
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
        assert_eq!(shown(seconds), expected);
    }
    assert_eq!(age(None, Millis(now)), "?");
    assert_eq!(
        age(Some(Millis(i64::MIN)), Millis(i64::MAX)),
        "292471208 y ago"
    );
}

#[test]
fn only_the_home_directory_becomes_a_tilde() {
    assert_eq!(home_as_tilde("/home/me/x", Some("/home/me")), "~/x");
    assert_eq!(home_as_tilde("/home/me", Some("/home/me")), "~");
    assert_eq!(
        home_as_tilde("/home/meg/x", Some("/home/me")),
        "/home/meg/x"
    );
    assert_eq!(home_as_tilde("/x", None), "/x");
}
