//! Which rows are sessions, in which order, and what belongs to each.

use serde_json::{Value, json};

use crate::common::{ALL, LOOSE, each, skipped};
use crate::people::explained;
use crate::support::{self, Made, ids, listing};

#[test]
fn unarchived_roots_come_newest_first_then_by_id() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    made.run(
        "INSERT INTO session (id, time_updated) VALUES
           ('ses_d', 20), ('ses_c', 20), ('ses_B', 20), ('ses_new', 30), ('ses_old', -5),
           ('ses_none', NULL), ('ses_also_none', 'yesterday'), ('ses_zero', 0), ('ses_real', 25.5);
         INSERT INTO session (id, time_updated, parent_id) VALUES
           ('ses_child', 29, 'ses_new'), ('ses_orphan', 28, 'ses_gone'), ('ses_of_blank', 27, '');
         INSERT INTO session (id, time_updated, time_archived) VALUES
           ('ses_archived', 31, 99), ('ses_at_zero', 26, 0);
         INSERT INTO session (id, time_updated, parent_id, time_archived) VALUES
           ('ses_both', 32, 'ses_new', 99)",
    );
    let roots = [
        "ses_new",
        "ses_of_blank",
        "ses_at_zero",
        "ses_real",
        "ses_B",
        "ses_c",
        "ses_d",
        "ses_zero",
        "ses_old",
        "ses_also_none",
        "ses_none",
    ];
    let merged = |more: &[&str], at: &[usize]| -> Vec<String> {
        let mut all = roots.to_vec();
        for (id, at) in more.iter().zip(at) {
            all.insert(*at, id);
        }
        all.iter().map(|id| (*id).to_owned()).collect()
    };
    assert_eq!(ids(&made.db, &[]), merged(&[], &[]));
    assert_eq!(
        ids(&made.db, &["--children"]),
        merged(&["ses_child", "ses_orphan"], &[1, 2])
    );
    assert_eq!(
        ids(&made.db, &["--archived"]),
        merged(&["ses_archived"], &[0])
    );
    assert_eq!(
        ids(&made.db, &ALL),
        merged(
            &["ses_both", "ses_archived", "ses_child", "ses_orphan",],
            &[0, 1, 3, 4]
        )
    );
    let (sessions, _) = listing(&made.db, &ALL);
    assert_eq!(sessions[0]["parentId"], "ses_new");
    assert_eq!(sessions[0]["timeArchived"], 99);
}

#[test]
fn real_times_are_floored_and_other_types_are_null() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    let times = [
        ("0", json!(0)),
        ("1795338894119", json!(1_795_338_894_119_i64)),
        ("-1", json!(-1)),
        ("9223372036854775807", json!(i64::MAX)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("1.0", json!(1)),
        ("1.999", json!(1)),
        ("-1.001", json!(-2)),
        ("-0.0", json!(0)),
        ("1795338894119.9", json!(1_795_338_894_119_i64)),
        ("1e300", json!(i64::MAX)),
        ("-1e300", json!(i64::MIN)),
        ("9e999", json!(i64::MAX)),
        ("-9e999", json!(i64::MIN)),
        ("NULL", Value::Null),
        ("'1795338894119'", Value::Null),
        ("'2026-11-22T09:14:59Z'", Value::Null),
        ("x'31'", Value::Null),
    ];
    for (at, (time, _)) in times.iter().enumerate() {
        made.run(&format!(
            "INSERT INTO session (id, time_created, time_updated, time_archived)
             VALUES ('ses_{at:02}', {time}, {time}, {time})"
        ));
    }
    let (mut sessions, end) = listing(&made.db, &["--archived"]);
    sessions.sort_by_key(|session| session["id"].to_string());
    let expected: Vec<_> = times.into_iter().map(|(_, expected)| expected).collect();
    for field in ["timeCreated", "timeUpdated"] {
        assert_eq!(each(&sessions, field), expected, "{field}");
    }
    // Where null can stand, 0 stands for it.
    let or_null = |time: &Value| {
        if *time == 0 {
            Value::Null
        } else {
            time.clone()
        }
    };
    let expected: Vec<_> = expected.iter().map(or_null).collect();
    assert_eq!(each(&sessions, "timeArchived"), expected);
    assert_eq!(end["skipped"], skipped(0, 0, 0));
}

/// The one of the project "global" always is.
#[test]
fn meaningless_worktree_is_null() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    let worktrees = [
        ("'/home/me/a'", json!("/home/me/a")),
        ("' /home/me/a '", json!(" /home/me/a ")),
        ("'//'", json!("//")),
        ("NULL", Value::Null),
        ("''", Value::Null),
        ("'  '", Value::Null),
        ("char(9, 10)", Value::Null),
        ("'/'", Value::Null),
        ("' / '", Value::Null),
        ("7", Value::Null),
        ("x'2f61'", Value::Null),
    ];
    for (at, (worktree, _)) in worktrees.iter().enumerate() {
        made.run(&format!(
            "INSERT INTO project VALUES ('p{at:02}', {worktree});
             INSERT INTO session (id, project_id) VALUES ('ses_{at:02}', 'p{at:02}')"
        ));
    }
    made.run(
        "INSERT INTO project VALUES ('global', '/home/me/another'), ('', '/blank'), (5, '/five');
         INSERT INTO session (id, project_id) VALUES
           ('ses_a', 'global'), ('ses_b', 'unknown'), ('ses_c', NULL), ('ses_d', 5),
           ('ses_e', ''), ('ses_f', 'Global')",
    );
    let (sessions, _) = listing(&made.db, &[]);
    let mut expected: Vec<_> = worktrees
        .into_iter()
        .map(|(_, expected)| expected)
        .collect();
    expected.extend([
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
    ]);
    assert_eq!(each(&sessions, "worktree"), expected);
    assert_eq!(sessions[11]["projectId"], "global");
}

#[test]
fn session_without_a_directory_is_not_listed() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    made.run(
        "INSERT INTO session (id, directory) VALUES
           ('ses_a', '/w'), ('ses_b', NULL), ('ses_c', ''), ('ses_d', 5), ('ses_e', x'2f77'),
           ('ses_f', ' '), ('ses_g', CAST(x'2fff' AS TEXT)), ('ses_h', CAST(x'00' AS TEXT))",
    );
    let (sessions, end) = listing(&made.db, &[]);
    assert_eq!(each(&sessions, "id"), ["ses_a", "ses_g", "ses_h"]);
    assert_eq!(each(&sessions, "directory"), ["/w", "/\u{fffd}", "\0"]);
    assert_eq!(end["skipped"], skipped(0, 0, 0));
}

#[test]
fn only_placeholder_or_missing_titles_are_untitled() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    made.run(
        "INSERT INTO session (id, title) VALUES
           ('ses_a', 'New session - 2026-11-22T09:14:59.002Z'), ('ses_b', NULL), ('ses_c', ' '),
           ('ses_d', 'New session - 2026-11-22T09:14:59.002Z (fork #1)'), ('ses_e', 'Title')",
    );
    let (sessions, _) = listing(&made.db, &[]);
    let (yes, no) = (json!(true), Value::Null);
    assert_eq!(
        each(&sessions, "untitled"),
        [yes.clone(), yes.clone(), yes, no.clone(), no]
    );
    assert_eq!(
        sessions[0]["title"],
        "New session - 2026-11-22T09:14:59.002Z"
    );
}

#[test]
fn newest_message_of_either_table_is_found_by_a_seek() {
    let _limit = support::limit(30);
    let made = Made::new();
    for id in ["ses_a", "ses_b", "ses_c", "ses_d"] {
        made.session(id, 1);
    }
    made.run(
        "INSERT INTO message VALUES
           ('m1', 'ses_a', 10, 1, ''), ('m2', 'ses_a', 30, 1, ''), ('m3', 'ses_a', 20, 1, ''),
           ('m4', 'ses_b', 10, 1, ''), ('m5', 'ses_b', 'never', 1, ''),
           ('m6', 'ses_c', 7.9, 1, ''), ('m7', 'ses_d', x'00', 1, '');
         INSERT INTO session_message VALUES
           ('s1', 'ses_a', 'user', 1, 25, 1, ''), ('s2', 'ses_b', 'user', 1, 15, 1, '')",
    );
    let newest = || each(&listing(&made.db, &[]).0, "lastMessageAt");
    let null = Value::Null;
    assert_eq!(newest(), [json!(30), json!(15), json!(7), null.clone()]);

    let plan = explained(&made.db);
    for step in [
        "SEARCH message USING COVERING INDEX message_session_time_created_id_idx (session_id=?)",
        "SEARCH session_message USING COVERING INDEX \
         session_message_session_time_created_id_idx (session_id=?)",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
    ] {
        assert!(plan.contains(step), "{step}: {plan}");
    }
    // The marker's pass has its own names for them.
    for scan in ["SCAN message", "SCAN session_message"] {
        assert!(!plan.contains(scan), "{scan}: {plan}");
    }

    made.run("DROP INDEX message_session_time_created_id_idx");
    assert_eq!(newest(), [json!(25), json!(15), null.clone(), null.clone()]);
    made.run("DROP INDEX session_message_session_time_created_id_idx");
    assert_eq!(newest(), [null.clone(), null.clone(), null.clone(), null]);
}
