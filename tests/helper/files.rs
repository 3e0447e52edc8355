//! What is in the place of the database: nothing, an empty file, another file, a damaged one.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::{MARKER, ONE_SESSION, at_rest, each, noise, rollback_mode, state};
use crate::people::explained;
use crate::support::files::beside;
use crate::support::{
    self, Made, command, complete, error, helper, ids, lines, lister, listing, real_database,
    settle,
};

// ---- What became of the file.

#[test]
fn database_without_a_file_is_missing() {
    let _limit = support::limit(30);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    File::create(path("file")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    for name in [
        "nothing.db",
        "no/such/directory.db",
        "file/x.db",
        "dangling",
    ] {
        assert_eq!(state(&path(name)), "missing", "{name}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "none is made");
}

#[test]
fn zero_byte_file_is_young_then_empty() {
    let _limit = support::limit(30);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    File::create(&db).unwrap();
    assert_eq!(state(&db), "young");
    settle(&db);
    assert_eq!(state(&db), "empty");
    assert_eq!(fs::metadata(&db).unwrap().len(), 0);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}

#[test]
fn database_without_tables_is_empty() {
    let _limit = support::limit(30);
    let made = Made::of("");
    assert_eq!(state(&made.db), "empty");
    // As OpenCode leaves it between its first page and its first tables.
    let (_directory, db) = at_rest("");
    assert_eq!(fs::metadata(&db).unwrap().len(), 4096);
    assert_eq!(state(&db), "empty");
}

#[test]
fn log_beside_a_zero_byte_file_is_left_alone() {
    let _limit = support::limit(30);
    let (_directory, db) = real_database("1.2.1");
    let log = beside(&db, "-wal");
    let before = fs::read(&log).unwrap();
    assert!(before.len() > 100_000);
    File::create(&db).unwrap();
    assert_eq!(state(&db), "young");
    assert_eq!(fs::read(&log).unwrap(), before);
    settle(&db);
    settle(&log);
    // SQLite itself would delete the log now.
    assert_eq!(state(&db), "empty");
    let explained = explained(&db);
    assert!(explained.contains("empty"), "{explained}");
    assert_eq!(fs::read(&log).unwrap(), before);
}

/// SQLite takes a file of one byte for one of none (`unixFileSize`).
#[test]
fn log_beside_a_one_byte_file_is_left_alone() {
    let _limit = support::limit(30);
    let (_directory, db) = real_database("1.2.1");
    let log = beside(&db, "-wal");
    let before = fs::read(&log).unwrap();
    for start in ["S", "x"] {
        fs::write(&db, start).unwrap();
        settle(&db);
        let _ = helper(&db, &[]);
        assert!(log.exists(), "the log beside {start:?} is gone");
        assert_eq!(fs::read(&log).unwrap(), before);
    }
}

#[test]
fn file_that_is_not_a_database_is_reported_unchanged() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    let mut like = b"SQLite format 3\0".to_vec();
    like.extend(noise(1).take(5000));
    for bytes in [
        &b"x"[..],
        b"\0",
        b"{\"sessions\":[]}",
        b"SQLite format 2\0, but not quite, and then as much as a header has, which is 100 bytes in all.......",
        &noise(2).take(100).collect::<Vec<_>>(),
        &noise(3).take(100_000).collect::<Vec<_>>(),
        &[0; 8192],
        // Like one at its start only.
        b"SQ",
        b"SQLite format 3\0",
        &like[..99],
        &like[..100],
        &like,
    ] {
        fs::write(&db, bytes).unwrap();
        settle(&db);
        let (kind, message) = error(&db, &[]);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
        assert_eq!(kind, "not_a_database", "{shown:?}: {message}");
        assert!(message.contains("opencode.db"), "{message}");
        assert_eq!(fs::read(&db).unwrap(), bytes);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "{shown:?}");
    }
}

#[test]
fn irregular_file_is_not_a_database_and_hangs_nothing() {
    let _limit = support::limit(30);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("directory")).unwrap();
    let made = Command::new("mkfifo").arg(path("fifo")).status().unwrap();
    assert!(made.success());
    for name in ["directory", "fifo"] {
        let (kind, _) = error(&path(name), &[]);
        assert_eq!(kind, "not_a_database", "{name}");
    }
    let (kind, _) = error(Path::new("/dev/null"), &[]);
    assert_eq!(kind, "not_a_database");
    // A socket cannot be opened at all, nor can a circle of links.
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    symlink("circle", path("circle")).unwrap();
    for name in ["socket", "circle"] {
        let (kind, _) = error(&path(name), &[]);
        assert_eq!(kind, "io", "{name}");
    }
}

/// Also names that SQLite itself would read as something else.
#[test]
fn links_and_uri_like_names_open_the_database() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    let link = made.directory.path().join("link.db");
    symlink(&made.db, &link).unwrap();
    assert_eq!(ids(&link, &[]), ["ses_a"]);

    let (directory, db) = at_rest(ONE_SESSION);
    for name in ["file:x.db?mode=memory", ":memory:", "a b%20#?.db", "é.db"] {
        fs::copy(&db, directory.path().join(name)).unwrap();
        let output = command(lister())
            .current_dir(&directory)
            .args(["--db", name])
            .output()
            .unwrap();
        let (sessions, _) = complete(&output);
        assert_eq!(each(&sessions, "id"), ["ses_a"], "{name}");
    }
}

/// A database of some 40 pages: sessions, content, indexes, overflow pages.
fn several_pages() -> (tempfile::TempDir, PathBuf) {
    at_rest(&format!(
        "PRAGMA page_size = 1024; {}
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
         INSERT INTO session (id, project_id, slug, directory, title, version, time_created,
             time_updated)
           SELECT printf('ses_%03d', i), 'p', 'slug', '/w', 'Title ' || i, 'v', i, i FROM n;
         INSERT INTO message SELECT 'm' || id, id, 1, 1, 'hello' FROM session;
         INSERT INTO part SELECT 'p' || id, 'm', id, 1, 1, printf('%.300c', 'x') FROM session;
         INSERT INTO part VALUES ('x', 'm', 'ses_001', 1, 1, printf('%.5000c', 'x')),
           ('y', 'm', 'ses_002', 1, 1, '{MARKER}');
         VACUUM",
        support::SCHEMA
    ))
}

#[test]
fn truncated_database_is_never_listed_in_part() {
    let _limit = support::limit(120);
    let (_directory, db) = several_pages();
    let whole = fs::read(&db).unwrap();
    let (whole_listing, _) = listing(&db, &[]);
    assert_eq!(whole_listing.len(), 60);
    let mut listed = 0;
    let page = usize::from(u16::from_be_bytes([whole[16], whole[17]]));
    let pages = whole.len() / page;
    assert!(pages > 20, "{pages}");
    let cuts = (1..pages)
        .map(|count| count * page)
        .chain([whole.len() - 1, 3 * page + 7, page + 1])
        .chain([page - 1, 512, 100, 99, 17]);
    for cut in cuts {
        fs::write(&db, &whole[..cut]).unwrap();
        settle(&db);
        let mut lines = lines(&helper(&db, &[]));
        let last = lines.pop().unwrap();
        if last["type"] == "end" {
            // All sessions are there, and what is not was optional.
            assert_same_but_degraded(&whole_listing, &lines.split_off(1), &last);
            listed += 1;
            continue;
        }
        let kind = last["kind"].as_str().unwrap();
        let expected = if cut > page {
            &["corrupt"][..]
        } else {
            &["corrupt", "not_a_database"]
        };
        assert!(expected.contains(&kind), "{cut} bytes: {last}");
        if kind == "corrupt" {
            assert!(
                last["message"].as_str().unwrap().contains("damaged"),
                "{last}"
            );
        }
    }
    assert!(listed < pages / 2, "{listed} of {pages}");
}

/// The same sessions but for the marks, for which content is read past SQLite, and for
/// what the end of the listing says could not be read, which is null.
fn assert_same_but_degraded(expected: &[Value], sessions: &[Value], end: &Value) {
    let degraded = end["degraded"].as_array().cloned().unwrap_or_default();
    let parts: Vec<_> = degraded
        .iter()
        .map(|part| part["what"].as_str().unwrap())
        .collect();
    assert_eq!(expected.len(), sessions.len());
    for (expected, session) in expected.iter().zip(sessions) {
        let mut session = session.clone();
        session["marked"] = expected["marked"].clone();
        for part in &parts {
            if session[part].is_null() {
                session[part] = expected[part].clone();
            }
        }
        assert_eq!(session, *expected, "{degraded:?}");
    }
}

#[test]
fn damage_to_any_page_is_reported_or_harmless() {
    let _limit = support::limit(180);
    let (_directory, db) = several_pages();
    let whole = fs::read(&db).unwrap();
    let (expected, _) = listing(&db, &[]);
    let page = usize::from(u16::from_be_bytes([whole[16], whole[17]]));
    let (mut corrupt, mut harmless) = (0, 0);
    for at in 1..whole.len() / page {
        for damage in [
            noise(at as u64).take(page).collect::<Vec<_>>(),
            vec![0; page],
        ] {
            let mut damaged = whole.clone();
            damaged[at * page..(at + 1) * page].copy_from_slice(&damage);
            fs::write(&db, damaged).unwrap();
            let output = helper(&db, &[]);
            let mut lines = lines(&output);
            let last = lines.pop().unwrap();
            if last["type"] == "end" {
                // The page was of an index that is not read, or in the middle
                // of a text, of which nobody can tell.
                assert_eq!(output.status.code(), Some(0));
                // Or it was optional, and the listing says so.
                assert_same_but_degraded(&expected, &lines.split_off(1), &last);
                harmless += 1;
            } else {
                assert_eq!(output.status.code(), Some(1));
                assert_eq!(last["kind"], "corrupt", "page {}: {last}", at + 1);
                corrupt += 1;
            }
        }
    }
    assert!(corrupt > 0 && harmless > 0, "{corrupt} {harmless}");
    // The header is what makes it a database.
    let mut damaged = whole;
    damaged[..page].copy_from_slice(&noise(0).take(page).collect::<Vec<_>>());
    fs::write(&db, damaged).unwrap();
    assert_eq!(error(&db, &[]).0, "not_a_database");
}

// ---- Its owner does not notice.

#[test]
fn file_without_tables_is_young_until_it_settles() {
    let _limit = support::limit(30);
    // Not even opened: who holds a lock does not matter.
    let made = rollback_mode("CREATE TABLE x (y); DROP TABLE x; VACUUM");
    made.run("BEGIN EXCLUSIVE");
    assert_eq!(state(&made.db), "young");
    made.run("ROLLBACK");
    settle(&made.db);
    assert_eq!(state(&made.db), "empty");
    // With its tables it is listed, however new it is, in either mode.
    let made = rollback_mode(ONE_SESSION);
    assert_eq!(ids(&made.db, &[]), ["ses_a"]);
    made.conn
        .pragma_update(None, "journal_mode", "wal")
        .unwrap();
    assert_eq!(ids(&made.db, &[]), ["ses_a"]);
}

#[test]
fn file_changed_in_the_future_is_not_young_forever() {
    let _limit = support::limit(30);
    let made = rollback_mode(ONE_SESSION);
    File::options()
        .append(true)
        .open(&made.db)
        .unwrap()
        .set_modified(SystemTime::now() + Duration::from_secs(3600))
        .unwrap();
    assert_eq!(ids(&made.db, &[]), ["ses_a"]);
}
