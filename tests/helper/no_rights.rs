//! Databases that cannot be written to, or not be read.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rusqlite::{Connection, OpenFlags};

use crate::common::{LOOSE, ONE_SESSION, at_rest, each};
use crate::support::files::beside;
use crate::support::{
    self, Made, command, complete, error, ids, lines, lister, real_database, settle,
};

/// A helper that may not write to `directory`, and the directory it runs from.
/// Root may write everywhere, so root's helper runs as nobody.
fn without_rights(directory: &Path) -> Option<(Command, tempfile::TempDir)> {
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("opencode-lister");
    fs::copy(lister(), &program).unwrap();
    for path in [place.path(), &program] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let prepared = || {
        let mut command = command(&program);
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command
    };
    fs::set_permissions(directory, Permissions::from_mode(0o555)).unwrap();
    let version = || {
        let mut command = prepared();
        command.arg("--version");
        command
    };
    let runs = support::output_when_free(version).is_ok_and(|output| output.status.success());
    let reaches = prepared()
        .arg("--db")
        .arg(directory.join("nothing.db"))
        .output()
        .is_ok_and(|output| output.status.success());
    if !(runs && reaches) {
        support::skip("a helper without rights: it can run or reach nothing here");
        return None;
    }
    Some((prepared(), place))
}

/// What the helper prints of this database in a directory that it cannot write
/// to; `None` where that cannot be had here.
fn in_a_read_only_directory(db: &Path) -> Option<Output> {
    let directory = db.parent().unwrap();
    let prepared = without_rights(directory);
    let output = prepared.map(|(mut command, _place)| {
        command
            .arg("--db")
            .arg(db)
            .args(["--busy-timeout", "200"])
            .output()
            .unwrap()
    });
    // To be deleted, and for an ordinary user to go on.
    fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    output
}

#[test]
fn read_only_database_without_a_log_is_listed() {
    let _limit = support::limit(60);
    let (directory, db) = at_rest(ONE_SESSION);
    let before = fs::read(&db).unwrap();
    for log in [false, true] {
        if log {
            File::create(beside(&db, "-wal")).unwrap();
        }
        let Some(output) = in_a_read_only_directory(&db) else {
            return;
        };
        let (sessions, end) = complete(&output);
        assert_eq!(each(&sessions, "id"), ["ses_a"], "an empty log: {log}");
        assert_eq!(end["database"], "ready");
        assert_eq!(
            fs::read_dir(&directory).unwrap().count(),
            1 + usize::from(log)
        );
    }
    assert_eq!(fs::read(&db).unwrap(), before);
}

#[test]
fn read_only_database_with_a_log_lists_all_or_nothing() {
    let _limit = support::limit(60);
    for version in ["1.2.1", "1.18.33"] {
        let (_directory, db) = real_database(version);
        let Some(output) = in_a_read_only_directory(&db) else {
            return;
        };
        let last = lines(&output).pop().unwrap();
        assert_eq!(last["type"], "error", "{version}: {last}");
        assert_eq!(output.status.code(), Some(1));
        // With the wal-index of a listing that could make one, it can be read.
        assert_eq!(ids(&db, &[]).len(), 15);
        assert!(beside(&db, "-shm").exists());
        let output = in_a_read_only_directory(&db).unwrap();
        let lines = lines(&output);
        let last = lines.last().unwrap();
        assert!(
            last["type"] == "error" || last["sessions"] == 15,
            "{version}: {last}"
        );
    }
}

/// A database in rollback-journal mode whose writer died in the middle of a
/// transaction: some of its pages are in the file, the journal can undo them.
fn with_a_hot_journal() -> (tempfile::TempDir, PathBuf) {
    let made = Made::of(LOOSE);
    made.run(
        "PRAGMA journal_mode = delete; PRAGMA cache_size = 1; PRAGMA cache_spill = 1;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO session (id, title) SELECT printf('ses_%04d', i), printf('%.200c', 'x') FROM n;
         BEGIN IMMEDIATE; UPDATE session SET title = printf('%.200c', 'y')",
    );
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    for suffix in ["", "-journal"] {
        fs::copy(beside(&made.db, suffix), beside(&db, suffix)).unwrap();
        settle(&beside(&db, suffix));
    }
    // What the file says without its journal was never committed.
    let torn = Connection::open_with_flags(
        format!("file://{}?immutable=1", db.display()),
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
    )
    .unwrap();
    let changed = "SELECT count(*) FROM session WHERE title LIKE 'y%'";
    let changed: i64 = torn.query_row(changed, [], |row| row.get(0)).unwrap();
    assert!(changed > 100, "{changed}");
    (directory, db)
}

/// The file holds pages of a transaction that was never committed.
#[test]
fn hot_journal_database_is_not_listed_as_it_is() {
    let _limit = support::limit(30);
    let (_directory, db) = with_a_hot_journal();
    let before = fs::read(&db).unwrap();
    let (kind, message) = error(&db, &["--busy-timeout", "200"]);
    assert!(["permission", "busy"].contains(&kind.as_str()), "{message}");
    assert!(fs::read(&db).unwrap() == before, "it was rolled back");
}

#[test]
fn read_only_hot_journal_database_is_not_listed() {
    let _limit = support::limit(30);
    let (_directory, db) = with_a_hot_journal();
    let Some(output) = in_a_read_only_directory(&db) else {
        return;
    };
    let last = lines(&output).pop().unwrap();
    assert_eq!(last["type"], "error", "{last}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn unreadable_file_is_a_permission_error() {
    let _limit = support::limit(30);
    let (_directory, db) = at_rest(ONE_SESSION);
    fs::set_permissions(&db, Permissions::from_mode(0o000)).unwrap();
    let Some(output) = in_a_read_only_directory(&db) else {
        return;
    };
    let last = lines(&output).pop().unwrap();
    assert_eq!(last["kind"], "permission", "{last}");
}
