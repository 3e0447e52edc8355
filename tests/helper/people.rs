//! What the helper prints for people: its table, and what it explains.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{LOOSE, MARKER, ONE_SESSION, at_rest};
use crate::support::files::beside;
use crate::support::{self, Made, command, complete, helper, ids, lister, settle};

#[test]
fn helper_without_db_reads_the_opencode_db_variable() {
    let _limit = support::limit(60);
    let home = tempfile::tempdir().unwrap();
    let place = |path: &str, id: &str| {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (_directory, db) = at_rest(&ONE_SESSION.replace("ses_a", id));
        fs::copy(db, &path).unwrap();
        path
    };
    let listed = |variables: &[(&str, &str)]| {
        let output = command(lister())
            .env("HOME", home.path())
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let (sessions, end) = complete(&output);
        let id = sessions.first().map(|session| session["id"].clone());
        (id.unwrap_or_default(), end["database"].clone())
    };
    let ready = |id: &str| (json!(id), json!("ready"));
    let missing = (Value::Null, json!("missing"));
    assert_eq!(listed(&[]), missing);
    place(".local/share/opencode/opencode-dev.db", "of_a_channel");
    assert_eq!(listed(&[]), ready("of_a_channel"));
    assert_eq!(listed(&[("OPENCODE_DISABLE_CHANNEL_DB", "true")]), missing);
    // Of several none is guessed: who asks again must get the same.
    let usual = place(".local/share/opencode/opencode.db", "of_home");
    for args in [&[][..], &["get", "x"], &["explain"], &["--pretty"]] {
        let output = command(lister())
            .env("HOME", home.path())
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.contains("several databases found, "),
            "{args:?}: {stderr}"
        );
        assert!(
            stderr.contains(usual.to_str().unwrap()),
            "{args:?}: {stderr}"
        );
    }
    assert_eq!(
        listed(&[("OPENCODE_DISABLE_CHANNEL_DB", "1")]),
        ready("of_home")
    );
    let data = home.path().join("data");
    let data = ("XDG_DATA_HOME", data.to_str().unwrap());
    assert_eq!(listed(&[data]), missing);
    place("data/opencode/opencode.db", "of_data_home");
    place("data/opencode/mine.db", "of_a_name");
    let named = place("elsewhere.db", "of_a_path");
    assert_eq!(listed(&[data]), ready("of_data_home"));
    assert_eq!(
        listed(&[data, ("OPENCODE_DB", "mine.db")]),
        ready("of_a_name")
    );
    assert_eq!(
        listed(&[data, ("OPENCODE_DB", named.to_str().unwrap())]),
        ready("of_a_path")
    );
    assert_eq!(listed(&[data, ("OPENCODE_DB", ":memory:")]), missing);
    // An argument says more than all of them.
    let output = command(lister())
        .env("HOME", home.path())
        .envs([data, ("OPENCODE_DB", "mine.db")])
        .arg("--db")
        .arg(&named)
        .output()
        .unwrap();
    assert_eq!(complete(&output).0[0]["id"], "of_a_path");
}

#[test]
fn pretty_table_lets_no_text_move_the_cursor() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    made.run(
        "INSERT INTO session (id, title, directory, time_updated) VALUES
           ('ses_a', 'Clear' || char(27) || '[2J and' || char(155) || '31m red' || char(10) || 'x',
            '/w' || char(27) || ']0;owned' || char(7), 2),
           ('ses_b', NULL, '/plain', 1)",
    );
    // Without colours the program's writer would hide what was missed.
    let output = command(lister())
        .env("CLICOLOR_FORCE", "1")
        .env("HOME", made.directory.path())
        .arg("--db")
        .arg(&made.db)
        .arg("--pretty")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<_> = stdout.lines().collect();
    assert!(rows[0].starts_with("\x1b[1mTITLE"), "{stdout:?}");
    assert_eq!(rows.len(), 3, "{stdout:?}");
    for row in &rows[1..] {
        assert!(!row.chars().any(char::is_control), "{row:?}");
    }
    assert!(
        rows[1].contains("Clear") && rows[1].contains("ses_a"),
        "{stdout}"
    );
    assert!(
        rows[2].contains("(untitled)") && rows[2].contains("/plain"),
        "{stdout}"
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("2 sessions in "), "{stderr}");
    // No colours where nobody asked for them.
    let plain = helper(&made.db, &["--pretty"]);
    assert!(!plain.stdout.contains(&0x1b));
}

#[test]
fn pretty_reports_failures_and_empty_results() {
    let _limit = support::limit(30);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    let run = || {
        let output = helper(&db, &["--pretty"]);
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), stderr)
    };
    let (status, stderr) = run();
    assert_eq!(status, Some(0));
    assert!(stderr.contains("no database found"), "{stderr}");
    File::create(&db).unwrap();
    assert!(run().1.contains("being created"));
    fs::write(&db, "no database").unwrap();
    let (status, stderr) = run();
    assert_eq!(status, Some(1));
    assert!(
        stderr.starts_with("opencode-lister: cannot read"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// What `explain` prints of this database.
pub(crate) fn explained(db: &Path) -> String {
    let output = command(lister())
        .arg("explain")
        .arg("--db")
        .arg(db)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn explain_shows_state_tables_log_plan_and_phases() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    made.part("ses_a", MARKER);
    let log = fs::metadata(beside(&made.db, "-wal")).unwrap().len();
    let frames = (log - 32) / (4096 + 24);
    let text = explained(&made.db);
    for part in [
        &format!("database: {}\n", made.db.display()),
        "state:    ready\n",
        "journal:  wal\n",
        "page:     4096\n",
        &format!("log:      {log} bytes, {frames} frames committed, salts "),
        "\ntable session\n",
        "\ntable session_input\n",
        "  columns: id TEXT, session_id TEXT, time_created INTEGER, time_updated INTEGER, data TEXT",
        "  index part_session_idx (session_id)\n",
        "  unique index sqlite_autoindex_session_1 (id)\n",
        "\nkeys:\n  SELECT s.rowid, ",
        "SEARCH project USING INDEX sqlite_autoindex_project_1 (id=?)\n",
        "\nmarker:   full scan, ",
        " 100 % known\n",
        "\nsessions: 1, 1 of them marked; ",
        "\nphases:\n  open ",
        "  marker ",
        "  rows ",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn explain_shows_what_replaces_the_database() {
    let _limit = support::limit(30);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    assert!(explained(&db).contains("state:    missing"));
    File::create(&db).unwrap();
    assert!(explained(&db).contains("state:    young"));
    settle(&db);
    assert!(explained(&db).contains("state:    empty"));
    let made = Made::of("CREATE TABLE message (id)");
    let text = explained(&made.db);
    assert!(text.contains("state:    empty (no session tables)"));
    assert!(text.contains("\ntable message\n") && text.contains("phases:"));

    fs::write(&db, "no database").unwrap();
    let output = command(lister())
        .args(["explain", "--db"])
        .arg(&db)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("(not_a_database)"), "{stderr}");
}

#[test]
fn explain_lets_no_name_move_the_cursor() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    made.run(
        "DROP INDEX message_session_time_created_id_idx;
         CREATE INDEX \"i\u{1b}]0;owned\u{7}\" ON message (session_id, time_created);
         ALTER TABLE session ADD COLUMN \"c\u{1b}[2J\" \"t\u{9b}31m\";
         CREATE INDEX \"j\u{1b}[2J\" ON session (\"c\u{1b}[2J\")",
    );
    let text = explained(&made.db);
    let unsafe_line = text.lines().find(|line| line.chars().any(char::is_control));
    assert_eq!(unsafe_line, None);
}

/// Whoever reads `-shm` of an open database in a process that has it open, too,
/// loses its locks when it closes it.
#[test]
fn explain_leaves_other_locks_alone() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    made.run("BEGIN; SELECT * FROM session");
    explained(&made.db);
    let mut log = vec![0; 32];
    File::open(beside(&made.db, "-wal"))
        .unwrap()
        .read_exact_at(&mut log, 0)
        .unwrap();
    made.run("COMMIT");
    made.session("ses_b", 2);
    assert_eq!(ids(&made.db, &[]).len(), 2);
}
