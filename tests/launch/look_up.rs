//! Sessions by their ids, and the roots of sessions.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use opencode_sessions::in_process::InProcessLister;
use opencode_sessions::internals::wire::{
    Answer, Checker, LookUp, LookUpContent, Unresolved, Verdict, Violation, limits,
};
use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{FailureReason, Lister, LookUpRequest, Outcome};
use opencode_sessions::session::SessionId;
use serde_json::{Value, json};

use crate::support::{self, Made};

fn id(id: &str) -> SessionId {
    SessionId::new(id).unwrap()
}

/// The program's answers and its exit status.
fn ask(command: &str, db: &Path, ids: &[&str]) -> (Vec<Value>, i32) {
    let output = run(command, db, ids);
    (support::lines(&output), output.status.code().unwrap())
}

fn run(command: &str, db: &Path, ids: &[&str]) -> Output {
    let mut program = support::command(support::sessions());
    program.args([command, "--db"]).arg(db).args(ids);
    program.output().unwrap()
}

/// A session whose parent is this.
fn child(made: &Made, id: &str, parent: &str) {
    made.session(id, 1);
    made.conn
        .execute(
            "UPDATE session SET parent_id = ?2 WHERE id = ?1",
            [id, parent],
        )
        .unwrap();
}

#[test]
fn any_session_can_be_looked_up_by_its_id() {
    let _limit = support::limit(60);
    let (_directory, db) = support::real_database("1.18.33");
    for (id, field, expected) in [
        (
            "ses_dfd7684d8ffeOp6AlUyQc2H9wL",
            "title",
            json!("Alpha root one"),
        ),
        // Archived, and a child of a child.
        (
            "ses_dfd767461ffe3MVwaeMMuCo1cW",
            "title",
            json!("Archived session"),
        ),
        (
            "ses_dfd76748bffel3ZamY0N7W58B6",
            "parentId",
            json!("ses_dfd76760bffeEvGNCUeMD3tJkw"),
        ),
        (
            "ses_dfd767209ffe8SiT3c4yW0HZGv",
            "firstPrompt",
            json!("unnamed: only a noReply user message"),
        ),
    ] {
        let (lines, status) = ask("get", &db, &[id]);
        assert_eq!((lines.len(), status), (1, 0));
        assert_eq!(lines[0]["type"], "session");
        assert_eq!(lines[0]["id"], id);
        assert_eq!(lines[0][field], expected);
        // Not looked for.
        assert_eq!(lines[0]["marked"], Value::Null);
        assert!(lines[0]["project"].is_string(), "{}", lines[0]);
    }
    // Without a directory, and of a name that a shell would act on.
    let made = Made::new();
    for odd in ["ses_plain", "$(reboot) 'x' \"y\" -- é"] {
        made.session(odd, 1);
    }
    made.run("UPDATE session SET directory = ''");
    let (lines, status) = ask(
        "get",
        &made.db,
        &["--", "$(reboot) 'x' \"y\" -- é", "ses_plain"],
    );
    assert_eq!(status, 0);
    assert_eq!(lines[0]["id"], "$(reboot) 'x' \"y\" -- é");
    assert_eq!(lines[1]["directory"], Value::Null);
}

/// Such an id is passed on after `--`, as `xargs` does.
#[test]
fn id_that_looks_like_an_option_is_found() {
    let _limit = support::limit(60);
    let made = Made::new();
    for odd in ["-rf", "--help", "--lister=/nowhere/x", "ses_a"] {
        made.session(odd, 1);
        let (lines, status) = ask("get", &made.db, &["--", odd]);
        assert_eq!((&lines[0]["id"], status), (&json!(odd), 0));
        let (lines, status) = ask("roots", &made.db, &["--", odd]);
        assert_eq!((&lines[0]["root"], status), (&json!(odd), 0));
    }
    let line = format!(
        "{0} list --format ids --db {1} | xargs {0} get --db {1} --",
        support::sessions().display(),
        made.db.display()
    );
    let mut shell = support::command(Path::new("/bin/sh"));
    let output = shell.args(["-c", &line]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(support::lines(&output).len(), 4);
    let tsv = support::command(support::sessions())
        .args(["list", "--format", "tsv", "--db"])
        .arg(&made.db)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&tsv.stdout).contains("\n-rf\t"));
}

#[test]
fn missing_session_differs_from_a_failed_look_up() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    let absent = json!({"type": "absent", "id": "ses_none"});
    assert_eq!(
        ask("get", &made.db, &["ses_none"]),
        (vec![absent.clone()], 4)
    );
    let (lines, status) = ask("get", &made.db, &["ses_none", "ses_a", "ses_none"]);
    assert_eq!(status, 4, "the worst of all");
    assert_eq!(lines[0], absent);
    assert_eq!(lines[1]["id"], "ses_a");
    assert_eq!(lines[2], absent);
    // A database without tables has no sessions.
    let empty = Made::of("");
    assert_eq!(ask("get", &empty.db, &["ses_none"]), (vec![absent], 4));

    let nowhere = made.directory.path().join("nowhere.db");
    let garbage = made.directory.path().join("garbage.db");
    std::fs::write(
        &garbage,
        "no database at all, whatever it is called".repeat(100),
    )
    .unwrap();
    let other = Made::of("CREATE TABLE other (x)");
    for (db, why) in [
        (&nowhere, "no database at "),
        (&other.db, "has no table session or session_v2, but: other"),
        (&garbage, "is not an SQLite database"),
    ] {
        for command in ["get", "roots"] {
            let output = run(command, db, &["ses_a", "ses_b"]);
            assert_eq!(output.status.code(), Some(1));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains(why), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            for (line, id) in support::lines(&output).iter().zip(["ses_a", "ses_b"]) {
                assert_eq!((&line["type"], &line["id"]), (&json!("failed"), &json!(id)));
                assert!(line["message"].as_str().unwrap().contains(why), "{line}");
            }
        }
    }
    let output = run("get", &made.db, &["a\nb"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"");
    assert_eq!(run("get", &made.db, &[]).status.code(), Some(2));
}

#[test]
fn newer_row_of_both_tables_is_the_session() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.run(
        "CREATE TABLE session_v2 (id text PRIMARY KEY, directory text, parent_id text, title text,
           time_updated integer)",
    );
    for (id, v1, v2) in [("ses_1", 9, 8), ("ses_2", 8, 9), ("ses_tie", 9, 9)] {
        made.session(id, v1);
        made.run(&format!(
            "INSERT INTO session_v2 VALUES ('{id}', '/v2', 'ses_1', NULL, {v2})"
        ));
    }
    made.run("INSERT INTO session_v2 VALUES ('ses_only', '/v2', 'ses_2', NULL, NULL)");
    let ids = ["ses_1", "ses_2", "ses_tie", "ses_only"];
    let (lines, status) = ask("get", &made.db, &ids);
    assert_eq!(status, 0);
    let stores: Vec<_> = lines.iter().map(|line| line["store"].clone()).collect();
    assert_eq!(stores, ["v1", "v2", "v2", "v2"]);
    let (lines, _) = ask("roots", &made.db, &ids);
    assert!(
        lines.iter().all(|line| line["root"] == "ses_1"),
        "{lines:?}"
    );
}

#[test]
fn root_is_found_at_any_depth_and_cycles_end() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.run("BEGIN");
    made.session("d0", 1);
    for n in 1..=10_000 {
        child(&made, &format!("d{n}"), &format!("d{}", n - 1));
    }
    for length in [1, 2, 1000] {
        for n in 0..length {
            child(
                &made,
                &format!("c{length}_{n}"),
                &format!("c{length}_{}", (n + 1) % length),
            );
        }
        child(&made, &format!("into{length}"), &format!("c{length}_0"));
    }
    child(&made, "orphan", "nobody");
    child(&made, "childs_orphan", "orphan");
    made.run(
        "UPDATE session SET parent_id = printf('%.300c', 'x') WHERE id = 'orphan';
         COMMIT",
    );
    let source = "opencode.db";
    let unresolved = |id: &str, reason: &str| json!({"type": "unresolved", "id": id, "reason": reason, "source": source});
    let root = |id: &str, root: &str| json!({"type": "root", "id": id, "root": root, "directory": "/usr", "source": source});
    let (lines, status) = ask(
        "roots",
        &made.db,
        &[
            "d10000",
            "d0",
            "d5000",
            "c1_0",
            "c2_1",
            "c1000_500",
            "into2",
            "into1000",
            "orphan",
            "childs_orphan",
            "none",
        ],
    );
    assert_eq!(status, 4);
    assert_eq!(
        lines,
        [
            root("d10000", "d0"),
            root("d0", "d0"),
            root("d5000", "d0"),
            unresolved("c1_0", "cycle"),
            unresolved("c2_1", "cycle"),
            unresolved("c1000_500", "cycle"),
            unresolved("into2", "cycle"),
            unresolved("into1000", "cycle"),
            unresolved("orphan", "orphan"),
            unresolved("childs_orphan", "orphan"),
            json!({"type": "unresolved", "id": "none", "reason": "absent"}),
        ]
    );
    // Many at once, in more than one run of the helper.
    let ids: Vec<_> = (0..2500).map(|n| format!("d{}", n * 4)).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let (lines, status) = ask("roots", &made.db, &ids);
    assert_eq!((lines.len(), status), (2500, 0));
    for (line, id) in lines.iter().zip(ids) {
        assert_eq!(*line, root(id, "d0"));
    }
    // No parents at all.
    made.run("DROP INDEX session_parent_idx; ALTER TABLE session DROP COLUMN parent_id");
    assert_eq!(ask("roots", &made.db, &["d7"]), (vec![root("d7", "d7")], 0));
}

/// The directory is that of the session that was asked for, not its root's.
#[test]
fn root_has_the_directory_of_the_requested_session() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_root", 1);
    for (session, directory) in [
        ("ses_here", "'/home/me/shop'"),
        ("ses_none", "''"),
        ("ses_long", "'/' || printf('%.5000c', 'x')"),
        ("ses_blob", "x'00'"),
    ] {
        child(&made, session, "ses_root");
        made.run(&format!(
            "UPDATE session SET directory = {directory} WHERE id = '{session}'"
        ));
    }
    let ids = ["ses_root", "ses_here", "ses_none", "ses_long", "ses_blob"];
    let (lines, status) = ask("roots", &made.db, &ids);
    assert_eq!(status, 0);
    let directories: Vec<_> = lines.iter().map(|line| line["directory"].clone()).collect();
    let long = format!("/{}", "x".repeat(limits::TEXT - 1));
    assert_eq!(
        directories,
        [
            json!("/usr"),
            json!("/home/me/shop"),
            Value::Null,
            json!(long),
            Value::Null
        ]
    );
    assert!(lines.iter().all(|line| line["root"] == "ses_root"));
}

#[test]
fn library_looks_up_by_a_process_and_in_process() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    child(&made, "ses_b", "ses_a");
    // Another process has the database open; this one must not.
    let (_place, db) = {
        let place = tempfile::tempdir().unwrap();
        let db = place.path().join("copy.db");
        made.conn
            .execute("VACUUM INTO ?1", [db.to_str().unwrap()])
            .unwrap();
        support::settle(&db);
        (place, db)
    };
    let listers: [&dyn Lister; 2] = [&ProcessLister::at(support::lister()), &InProcessLister];
    for lister in listers {
        let get = LookUpRequest::of(&db, LookUp::Get, vec![id("ses_b"), id("ses_c")]);
        let Outcome::Complete(answers) = lister.look_up(&get) else {
            panic!("{}", lister.look_up(&get));
        };
        assert!(matches!(&answers.answers[0], Answer::Session(b) if b.id == id("ses_b")));
        assert_eq!(answers.answers[1], Answer::Absent { id: id("ses_c") });
        let roots = LookUpRequest::of(&db, LookUp::Roots, vec![id("ses_c"), id("ses_b")]);
        let Outcome::Complete(answers) = lister.look_up(&roots) else {
            panic!("{}", lister.look_up(&roots));
        };
        let expected = [
            Answer::Unresolved {
                id: id("ses_c"),
                reason: Unresolved::Absent,
            },
            Answer::Root {
                id: id("ses_b"),
                root: id("ses_a"),
                directory: Some("/usr".to_owned()),
            },
        ];
        assert_eq!(answers.answers, expected);
    }
}

#[test]
fn hanging_look_up_is_killed_at_the_deadline() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let made = Made::new();
    for (way, expected) in [
        ("hangs-after-hello", "timed out"),
        ("behaves", "a listing"),
        ("exits-0-without-end", "no end"),
    ] {
        let lister = ProcessLister::at(support::misbehaving(directory.path(), way));
        let request = LookUpRequest::of(&made.db, LookUp::Get, vec![id("ses_a")])
            .deadline(Duration::from_millis(300));
        let started = Instant::now();
        let outcome = lister.look_up(&request);
        assert!(started.elapsed() < Duration::from_millis(1300));
        match (&outcome, expected) {
            (Outcome::TimedOut(_), "timed out") => {}
            // Sessions that were not asked for, or none.
            (Outcome::Failed(broken), _) => {
                assert!(
                    matches!(broken.reason, FailureReason::Wire(_)),
                    "{way}: {outcome}"
                );
            }
            _ => panic!("{way}: {outcome}"),
        }
    }
}

#[test]
fn answers_count_only_if_requested_and_in_order() {
    let _limit = support::limit(30);
    const HELLO: &str = r#"{"type":"hello","protocol":1,"lister":"x"}"#;
    let end = |answers: u64| {
        json!({"type": "end", "answers": answers, "database": "ready", "elapsedMs": 1}).to_string()
    };
    let absent = |id: &str| json!({"type": "absent", "id": id}).to_string();
    let session = |id: &str| json!({"type": "session", "id": id, "store": "v1"}).to_string();
    let check = |what: LookUp, lines: &[String]| {
        let mut checker = Checker::of(LookUpContent::new(what, &[id("a"), id("b")]));
        for line in std::iter::once(&HELLO.to_owned()).chain(lines) {
            checker.push(format!("{line}\n").as_bytes())?;
        }
        checker.finish()
    };
    let whole = check(LookUp::Get, &[session("a"), absent("b"), end(2)]);
    assert!(matches!(whole, Ok(Verdict::Whole(answers)) if answers.answers.len() == 2));
    let root = json!({"type": "root", "id": "a", "root": "r"}).to_string();
    for lines in [
        vec![absent("b"), absent("a"), end(2)],
        vec![absent("a"), absent("a"), end(2)],
        vec![absent("a"), absent("b"), absent("b"), end(3)],
        vec![absent("a"), end(1)],
        vec![absent("a"), absent("b"), end(1)],
        vec![root.clone(), absent("b"), end(2)],
        vec![absent("a"), absent("b")],
        vec![absent("a"), absent("b"), end(2), end(2)],
        vec![absent("a"), HELLO.to_owned(), end(1)],
        vec![session(""), absent("b"), end(2)],
    ] {
        let verdict = check(LookUp::Get, &lines);
        assert!(verdict.is_err(), "{lines:?}: {verdict:?}");
    }
    let unknown = check(LookUp::Get, &[r#"{"type":"rumour","id":"a"}"#.to_owned()]);
    assert!(
        matches!(unknown, Err(Violation::UnknownType { .. })),
        "{unknown:?}"
    );
    let roots = |directory: Value| {
        let root = |id: &str| json!({"type": "root", "id": id, "root": "r"});
        let mut a = root("a");
        a["directory"] = directory;
        check(
            LookUp::Roots,
            &[a.to_string(), root("b").to_string(), end(2)],
        )
    };
    let longest = "é".repeat(limits::TEXT / 2);
    for directory in [json!(longest), json!(""), Value::Null] {
        assert!(matches!(roots(directory), Ok(Verdict::Whole(_))));
    }
    for (directory, why) in [
        (
            json!(longest + "x"),
            "its directory is longer than 4096 bytes",
        ),
        (json!(1), "invalid type"),
    ] {
        let violation = roots(directory).unwrap_err();
        assert!(matches!(violation, Violation::Invalid { line: 2, .. }));
        assert!(violation.to_string().contains(why), "{violation}");
    }
    let other = check(LookUp::Roots, &[absent("a"), absent("b"), end(2)]);
    assert!(matches!(other, Err(Violation::Invalid { .. })), "{other:?}");
}
