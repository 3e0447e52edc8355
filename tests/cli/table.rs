//! What the table tells, and how wide it is.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use rustix::termios::{Winsize, tcsetwinsize};

use crate::common::{json, list, stderr, stdout};
use crate::messages::{shown_on, terminal};
use crate::support::{self, Made, command, sessions};

/// What a command shows on a terminal of so many columns.
pub(crate) fn on_terminal(width: u16, run: &mut Command) -> String {
    let (ours, theirs) = terminal();
    let size = Winsize {
        ws_row: 24,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&theirs, size).unwrap();
    run.env("TERM", "xterm").stdin(Stdio::null());
    let mut child = run.stdout(theirs).spawn().unwrap();
    run.stdout(Stdio::null());
    let shown = shown_on(ours);
    assert!(child.wait().unwrap().success(), "{shown}");
    shown
}

#[test]
fn table_fits_the_terminal_and_is_coloured_only_there() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_0123456789012345678901234567", 2000);
    made.run("UPDATE session SET title = replace(hex(zeroblob(60)), '0', 'long ')");
    let in_terminal = |width: u16, environment: &[(&str, &str)]| {
        let mut run = command(sessions());
        run.env_remove("NO_COLOR").envs(environment.iter().copied());
        on_terminal(width, run.args(["list", "--db"]).arg(&made.db))
    };
    let wide = in_terminal(120, &[]);
    assert!(wide.contains("\u{1b}[1m"), "{wide:?}");
    for width in [30, 40, 60, 70, 80, 120, 200] {
        let table = in_terminal(width, &[("NO_COLOR", "1")]);
        assert!(!table.contains('\u{1b}'), "{table:?}");
        assert_eq!(
            table.contains("ses_0123456789012345678901234567"),
            width >= 120,
            "{table}"
        );
        assert!(table.contains("long long"), "{table}");
        for line in table.lines() {
            assert!(
                line.chars().count() <= usize::from(width),
                "{width}: {line:?}"
            );
        }
        assert_eq!(table.lines().count(), 2, "{table}");
    }
    let piped = stdout(&list(&made.db, &[]));
    assert!(!piped.contains('\u{1b}') && piped.len() > 300, "{piped:?}");
}

#[test]
fn non_utf8_path_is_listed() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    let odd = made
        .directory
        .path()
        .join(std::ffi::OsStr::from_bytes(b"odd \xff.db"));
    made.conn
        .execute(
            "VACUUM INTO ?1",
            [made.directory.path().join("copy.db").to_str().unwrap()],
        )
        .unwrap();
    fs::rename(made.directory.path().join("copy.db"), &odd).unwrap();
    support::settle(&odd);
    assert_eq!(stdout(&list(&odd, &["--format", "ids"])), "ses_a\n");
}

#[test]
fn source_column_is_shown_with_several_sources() {
    let _limit = support::limit(60);
    let (old, new) = (Made::new(), Made::new());
    old.session("ses_old", 1);
    new.session("ses_new", 2);
    let table = |databases: &[&Made], args: &[&str]| {
        let mut list = command(sessions());
        list.arg("list").args(args);
        for made in databases {
            list.arg("--db").arg(&made.db);
        }
        stdout(&list.output().unwrap())
    };
    let both = table(&[&old, &new], &[]);
    assert!(both.contains("SOURCE"), "{both}");
    // The rows that are shown are all of one.
    let one = table(&[&old, &new], &["--limit", "1"]);
    assert!(one.contains("ses_new") && !one.contains("ses_old"), "{one}");
    assert!(
        one.contains("SOURCE") && one.contains("/opencode.db"),
        "{one}"
    );
    let alone = table(&[&old], &[]);
    assert!(!alone.contains("SOURCE"), "{alone}");
}

#[test]
fn table_counts_what_it_hides() {
    let _limit = support::limit(60);
    let made = Made::new();
    for n in 1..=5 {
        made.session(&format!("ses_{n}"), n);
    }
    made.part("ses_5", "<freshell-session-metadata origin=3-views");
    let hidden = "; 1 Freshell subagent hidden (--all-marked shows it)";
    for (args, rows, footer) in [
        (&["--limit", "2"][..], 2, format!("2 of 5 sessions{hidden}")),
        (&[], 4, format!("4 of 5 sessions{hidden}")),
        (
            &["--limit", "2", "--all-marked"],
            2,
            "2 of 5 sessions".to_owned(),
        ),
        (&["--all-marked"], 5, String::new()),
        (&["--limit", "9", "--all-marked"], 5, String::new()),
        (
            &["--project", "/"],
            0,
            "no sessions of this project".to_owned(),
        ),
    ] {
        let output = list(&made.db, args);
        let expected = match &*footer {
            "" => String::new(),
            footer => format!("opencode-sessions: {footer}\n"),
        };
        assert_eq!(stderr(&output), expected, "{args:?}");
        assert_eq!(
            stdout(&output).lines().count().saturating_sub(1),
            rows,
            "{args:?}"
        );
    }
    let output = list(&made.db, &["--format", "ids", "--limit", "2"]);
    assert_eq!(stderr(&output), "");
}

#[test]
fn table_shows_kinds_of_rows_and_the_sort_key() {
    let _limit = support::limit(60);
    let made = Made::new();
    for id in ["ses_plain", "ses_old", "ses_child", "ses_marked"] {
        made.session(id, 2000);
    }
    made.part("ses_marked", "<freshell-session-metadata origin=3-views");
    made.run(
        "UPDATE session SET time_archived = 9 WHERE id = 'ses_old';
         UPDATE session SET parent_id = 'ses_plain' WHERE id = 'ses_child'",
    );
    let table = stdout(&list(
        &made.db,
        &[
            "--archived",
            "--children",
            "--all-marked",
            "--sort",
            "created",
        ],
    ));
    for expected in [
        "TITLE",
        "Title of ses_plain ",
        "[archived] Title of ses_old ",
        "[child] Title of ses_child ",
        "[subagent] Title of ses_marked ",
    ] {
        let mut lines = table.lines();
        assert!(lines.any(|line| line.starts_with(expected)), "{table}");
    }
    for (sort, header) in [
        ("updated", "UPDATED"),
        ("created", "CREATED"),
        ("activity", "ACTIVITY"),
        ("title", "UPDATED"),
    ] {
        let table = stdout(&list(&made.db, &["--sort", sort]));
        let shown = ["UPDATED", "CREATED", "ACTIVITY"].map(|name| table.contains(name));
        let expected = ["UPDATED", "CREATED", "ACTIVITY"].map(|name| name == header);
        assert_eq!(shown, expected, "{table}");
    }
}

/// Invisible characters within a name are shown.
#[test]
fn invisible_title_counts_as_none() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 3);
    made.session("ses_b", 2);
    made.run(
        "UPDATE session SET title = char(8203, 12644, 173) WHERE id = 'ses_a';
         UPDATE session SET title = 'x' || char(8288) || 'y', directory = '/w' || char(8203)
           WHERE id = 'ses_b'",
    );
    let table = stdout(&list(&made.db, &[]));
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[1].starts_with("(untitled) "), "{table}");
    assert!(
        lines[2].starts_with("[gone] xy ") && lines[2].contains("/w\u{fffd}"),
        "{table}"
    );
    // Programs get what is stored.
    let stored = json(&made.db, &[]);
    assert_eq!(stored[0]["title"], "\u{200b}\u{3164}\u{ad}");
    assert_eq!(stored[0]["untitled"], true);
    assert_eq!(stored[1]["title"], "x\u{2060}y");
    // Its first prompt stands for it.
    made.run(
        r#"INSERT INTO message VALUES ('msg_1', 'ses_a', 1, 1, '{"role":"user"}');
           INSERT INTO part VALUES ('prt_1', 'msg_1', 'ses_a', 1, 1,
             '{"type":"text","text":"Fix the build"}')"#,
    );
    let table = stdout(&list(&made.db, &[]));
    assert!(table.contains("\nFix the build "), "{table}");
}
