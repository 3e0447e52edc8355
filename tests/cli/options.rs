//! Options and variables of the environment.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::common::{list, stderr, stdout};
use crate::support::{self, Made, command, sessions};
use crate::table::on_terminal;

#[test]
fn usage_error_exits_2_and_shows_the_usage() {
    let _limit = support::limit(60);
    for args in [
        &["--nonsense"][..],
        &["list", "--format", "xml"],
        &["list", "--limit", "-1"],
        &["list", "--deadline", "soon"],
        &["list", "--deadline", "0s"],
        &["list", "--deadline", "-3s"],
        &["list", "--deadline", "25h"],
        &["list", "--marker", "short"],
        &[
            "list",
            "--marker",
            "not ascii: \u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ],
        &["list", "--marker", "0123456789abcdef", "--no-marker"],
        &[],
    ] {
        let output = command(sessions()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(output.stdout, b"", "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    let help = command(sessions())
        .args(["list", "--help"])
        .output()
        .unwrap();
    assert!(stdout(&help).contains("--all-marked"));
}

#[test]
fn opencode_db_variable_names_the_database() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    let data = tempfile::tempdir().unwrap();
    fs::create_dir_all(data.path().join("opencode")).unwrap();
    let run = |variables: &[(&str, &Path)]| {
        let mut command = command(sessions());
        for (name, value) in variables {
            command.env(name, value);
        }
        command.args(["list", "--format", "ids"]).output().unwrap()
    };
    assert_eq!(stdout(&run(&[("OPENCODE_DB", &made.db)])), "ses_a\n");
    let link = data.path().join("opencode/opencode-dev.db");
    fs::copy(&made.db, &link).unwrap();
    fs::copy(
        made.directory.path().join("opencode.db-wal"),
        link.with_extension("db-wal"),
    )
    .unwrap();
    assert_eq!(stdout(&run(&[("XDG_DATA_HOME", data.path())])), "ses_a\n");
    let home = tempfile::tempdir().unwrap();
    let nowhere = run(&[("HOME", home.path())]);
    assert_eq!(stdout(&nowhere), "");
    assert!(stderr(&nowhere).contains(".local/share/opencode/opencode.db"));
    let memory = run(&[("OPENCODE_DB", Path::new(":memory:"))]);
    assert_eq!(stdout(&memory), "");
    assert!(stderr(&memory).contains(":memory:"));
}

#[test]
fn closed_pipe_is_not_an_error() {
    let _limit = support::limit(60);
    let made = Made::new();
    for n in 0..5000 {
        made.session(&format!("ses_{n:05}"), n);
    }
    for program in [sessions(), support::lister()] {
        let mut command = command(program);
        if program == sessions() {
            command.args(["list", "--format", "ndjson"]);
        }
        let mut child = command
            .arg("--db")
            .arg(&made.db)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn last_of_a_repeated_option_counts() {
    let _limit = support::limit(60);
    let made = Made::new();
    for n in 1..=3 {
        made.session(&format!("ses_{n}"), n);
    }
    let output = list(
        &made.db,
        &[
            "--limit", "1", "--format", "json", "--format", "ids", "--limit", "2",
        ],
    );
    assert_eq!(stdout(&output), "ses_3\nses_2\n");
    // Several databases are several sources, as before.
    let other = Made::new();
    other.session("ses_4", 4);
    let output = list(
        &made.db,
        &["--format", "ids", "--db", other.db.to_str().unwrap()],
    );
    assert_eq!(stdout(&output), "ses_4\nses_3\nses_2\nses_1\n");
}

#[test]
fn help_fits_the_terminal_and_has_its_own_help() {
    let _limit = support::limit(60);
    for program in [sessions(), support::lister()] {
        let output = command(program).args(["help", "--help"]).output().unwrap();
        assert!(stdout(&output).contains("help"), "{output:?}");
        let args: &[&str] = match program == sessions() {
            true => &[
                "--help",
                "list --help",
                "serve --help",
                "get --help",
                "doctor --help",
            ],
            false => &["--help", "explain --help", "get --help"],
        };
        for args in args {
            for width in [60, 80] {
                let mut run = command(program);
                run.env("NO_COLOR", "1").args(args.split(' '));
                let help = on_terminal(width, &mut run);
                assert!(help.contains("Usage:"), "{help}");
                for line in help.lines() {
                    assert!(
                        line.chars().count() <= width.into(),
                        "{args} {width}: {line}"
                    );
                }
            }
        }
    }
}
