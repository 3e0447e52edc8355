//! A service that asks its helper for differences: what it then knows is what a listing says,
//! whatever the helper makes of the request.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::common::{made, state};
use crate::support::{self, Host, Made, expected, serve, wait_for};

/// The helper of `tests/helpers/tampering_lister.rs`.
struct Tampering(tempfile::TempDir);

impl Tampering {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("opencode-lister");
        std::os::unix::fs::symlink(support::example("tampering-lister"), program).unwrap();
        let tampering = Self(directory);
        tampering.replaces(&[]);
        tampering
    }

    fn program(&self) -> PathBuf {
        self.0.path().join("opencode-lister")
    }

    fn is(&self, replace: &[(&str, &str)], refuses: bool) {
        let tamper = json!({"helper": support::lister(), "replace": replace, "refuses": refuses});
        let new = self.0.path().join("new");
        fs::write(&new, tamper.to_string()).unwrap();
        fs::rename(new, self.0.path().join("tamper.json")).unwrap();
    }

    /// From the next launch on these texts of its output are others.
    fn replaces(&self, replace: &[(&str, &str)]) {
        self.is(replace, false);
    }

    /// What the helpers were asked for since the last call.
    fn requests(&self) -> Vec<String> {
        let log = self.0.path().join("requests");
        let requests = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        requests.lines().map(str::to_owned).collect()
    }

    fn host(&self, made: &Made) -> Host {
        let mut command = serve(&made.db, &state(made));
        Host::well(command.arg("--lister").arg(self.program()))
    }
}

#[track_caller]
fn assert_is_listed(host: &Host, db: &Path) {
    assert_eq!(host.model.sessions, expected(db));
}

fn change(made: &Made, title: &str) {
    made.run(&format!(
        "UPDATE session SET title = '{title}' WHERE id = 'ses_1'"
    ));
}

#[test]
fn service_asks_for_differences_after_its_first_listing() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2", "ses_3"]);
    let tampering = Tampering::new();
    let mut host = tampering.host(&made);
    assert_is_listed(&host, &made.db);
    assert_eq!(tampering.requests(), ["everything"]);
    for (sql, bytes) in [
        ("UPDATE session SET title = 'new' WHERE id = 'ses_1'", 96),
        ("DELETE FROM session WHERE id = 'ses_2'", 96),
        (
            "UPDATE session SET time_archived = 5 WHERE id = 'ses_3'",
            64,
        ),
        (
            "UPDATE session SET time_archived = 0 WHERE id = 'ses_3'",
            32,
        ),
        ("UPDATE session SET directory = '/' WHERE id = 'ses_3'", 64),
    ] {
        made.run(sql);
        host.refresh();
        assert_is_listed(&host, &made.db);
        let requests = tampering.requests();
        assert!(
            requests.contains(&format!("set of {bytes}")),
            "{sql}: {requests:?}"
        );
        assert!(
            !requests.contains(&"everything".to_owned()),
            "{sql}: {requests:?}"
        );
    }
    // A mark arrives by a difference, too.
    let marker = opencode_sessions::marker_text::MarkerText::default();
    made.part("ses_1", marker.as_str());
    host.refresh();
    assert_is_listed(&host, &made.db);
    assert_eq!(
        host.model
            .sessions
            .values()
            .filter(|one| one["marked"] == true)
            .count(),
        1
    );
    host.leave();
    host.end();
}

#[test]
fn database_that_goes_and_comes_back_is_listed_by_difference() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2"]);
    let tampering = Tampering::new();
    let mut host = tampering.host(&made);
    change(&made, "known");
    host.refresh();
    // All sessions are gone from the tables: that counts at once.
    made.run("DELETE FROM session");
    host.refresh();
    assert!(host.model.sessions.is_empty());
    made.session("ses_3", 3);
    host.refresh();
    assert_is_listed(&host, &made.db);
    // Without tables the first listing must be confirmed, and no session is lost by it.
    made.run("ALTER TABLE session RENAME TO other");
    host.refresh();
    assert_eq!(host.model.sessions.len(), 1);
    made.run("ALTER TABLE other RENAME TO session");
    host.refresh();
    assert_is_listed(&host, &made.db);
    assert!(!tampering.requests().is_empty());
    host.leave();
    host.end();
}

/// Whatever is wrong with a difference costs one listing of everything, and no session.
#[test]
fn invalid_difference_costs_one_whole_listing() {
    let _limit = support::limit(120);
    for replace in [
        ("\"same\":1", "\"same\":2"),
        ("\"sent\":1", "\"sent\":0"),
        ("\"gone\":0,", "\"gone\":1,"),
        (
            "\"sessions\":2,\"difference\"",
            "\"sessions\":3,\"difference\"",
        ),
        ("Title of ses_2", "Title of ses_3"),
        ("\"protocol\":2", "\"protocol\":7"),
        ("\"set\":\"", "\"set\":\"0"),
        (
            "{\"type\":\"end\",\"sessions\":2,\"difference\"",
            "{\"type\":\"gone\",\"session\":\"00000000000000000000000000000000\"}\n\
             {\"type\":\"end\",\"sessions\":2,\"difference\"",
        ),
    ] {
        let made = made(&["ses_1", "ses_2"]);
        let tampering = Tampering::new();
        let mut host = tampering.host(&made);
        tampering.requests();
        let spawned = |host: &mut Host| host.status()["spawns"].as_u64().unwrap();
        let before = spawned(&mut host);
        // A whole listing has none of these texts, but for the title.
        tampering.replaces(&[replace]);
        made.run("UPDATE session SET slug = 'other' WHERE id = 'ses_2'");
        host.refresh();
        let requests = tampering.requests();
        assert!(requests[0] == "difference", "{replace:?}: {requests:?}");
        assert_eq!(requests[1], "everything", "{replace:?}: {requests:?}");
        let launches = |requests: &[String]| {
            let ends = requests.iter().filter(|line| line.starts_with("set of"));
            (requests.len() - ends.count()) as u64
        };
        let mut launched = launches(&requests);
        // Both helpers are counted. Another listing can follow at any time.
        wait_for("the count of all launches", || {
            launched += launches(&tampering.requests());
            (spawned(&mut host) - before == launched).then_some(())
        });
        tampering.replaces(&[]);
        change(&made, "after it");
        host.refresh();
        assert_is_listed(&host, &made.db);
        let requests = tampering.requests();
        assert!(requests[0] == "difference", "{replace:?}: {requests:?}");
        assert!(
            !requests.contains(&"everything".to_owned()),
            "{replace:?}: {requests:?}"
        );
        host.leave();
        let (_, model, log) = host.end();
        let failing = model.of_type("health", 0);
        assert!(
            failing
                .iter()
                .all(|health| health["health"]["state"] != "failing"),
            "{replace:?}"
        );
        assert!(log.contains("invalid difference"), "{log}");
    }
}

#[test]
fn differences_are_given_up_after_three_invalid_ones() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2"]);
    let tampering = Tampering::new();
    let mut host = tampering.host(&made);
    tampering.replaces(&[("\"same\":", "\"same\":1")]);
    for round in 0..5 {
        tampering.requests();
        change(&made, &format!("title {round}"));
        host.refresh();
        assert_is_listed(&host, &made.db);
        let requests = tampering.requests();
        let differences = requests.iter().filter(|request| *request == "difference");
        assert_eq!(
            differences.count(),
            usize::from(round < 3),
            "{round}: {requests:?}"
        );
    }
    host.leave();
    host.end();
}

/// A helper that is replaced while the service runs: by one that does not know the request, by one
/// that does not say what it speaks, and back.
#[test]
fn helper_of_another_version_is_asked_for_everything() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2"]);
    let tampering = Tampering::new();
    let mut host = tampering.host(&made);
    let round = |host: &mut Host, title: &str| {
        tampering.requests();
        change(&made, title);
        host.refresh();
        assert_is_listed(host, &made.db);
        tampering.requests()
    };
    assert!(round(&mut host, "a")[0] == "difference");
    tampering.is(&[(",\"upTo\":2", "")], true);
    assert_eq!(round(&mut host, "b")[..2], ["refused", "everything"]);
    assert_eq!(round(&mut host, "c")[0], "everything");
    tampering.replaces(&[]);
    assert_eq!(round(&mut host, "d")[0], "everything");
    assert!(round(&mut host, "e")[0] == "difference");
    host.leave();
    let (_, model, _) = host.end();
    let health = model.of_type("health", 0);
    assert!(
        health
            .iter()
            .all(|health| health["health"]["state"] != "failing")
    );
}

/// Of many sessions only the hash of their set is sent, once the helper has kept them.
#[test]
fn set_of_many_sessions_is_sent_once() {
    let _limit = support::limit(60);
    let ids: Vec<_> = (0..2_500).map(|at| format!("ses_{at}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let made = made(&[]);
    made.run("BEGIN");
    for (at, id) in (1..).zip(&ids) {
        made.session(id, at);
    }
    made.run("COMMIT");
    let tampering = Tampering::new();
    let mut host = tampering.host(&made);
    tampering.requests();
    let mut sizes = Vec::new();
    for round in 0..3 {
        change(&made, &format!("title {round}"));
        host.refresh();
        assert_is_listed(&host, &made.db);
        sizes.extend(tampering.requests());
    }
    assert_eq!(sizes[1], format!("set of {}", 2_500 * 32), "{sizes:?}");
    assert!(
        sizes[2..]
            .iter()
            .all(|size| size == "difference" || size == "set of 0"),
        "{sizes:?}"
    );
    let read_bytes = host.status()["bytesRead"].as_u64().unwrap();
    change(&made, "last");
    host.refresh();
    let difference_bytes = host.status()["bytesRead"].as_u64().unwrap() - read_bytes;
    assert!(difference_bytes < 2_000, "{difference_bytes}");
    host.leave();
    host.end();
}

/// The programs of version 0.1.0, in the directory that the variable names: `./scripts/soak
/// versions` builds them.
#[test]
#[ignore = "needs the programs of version 0.1.0"]
fn programs_of_the_first_version_work_with_these() {
    let _limit = support::limit(120);
    let old = PathBuf::from(std::env::var_os("OPENCODE_SESSIONS_0_1").unwrap());
    let (old_main, old_helper) = (old.join("opencode-sessions"), old.join("opencode-lister"));
    for (main, helper) in [
        (support::sessions(), old_helper.as_path()),
        (&old_main, support::lister()),
        (&old_main, &old_helper),
    ] {
        let made = made(&["ses_1", "ses_2"]);
        let mut command = support::command(main);
        command
            .args(["serve", "--stdio"])
            .args([OsStr::new("--db"), made.db.as_os_str()])
            .args([OsStr::new("--state-dir"), state(&made).as_os_str()])
            .args([OsStr::new("--lister"), helper.as_os_str()]);
        let mut host = Host::well(&mut command);
        for round in 0..4 {
            change(&made, &format!("title {round}"));
            made.session(&format!("ses_new{round}"), 10 + round);
            host.refresh();
            let listed = expected(&made.db);
            let titles = |sessions: &std::collections::BTreeMap<String, serde_json::Value>| {
                let titles = sessions.iter();
                let titles = titles.map(|(id, one)| (id.clone(), one["title"].clone()));
                titles.collect::<Vec<_>>()
            };
            assert_eq!(
                titles(&host.model.sessions),
                titles(&listed),
                "{main:?} {helper:?}"
            );
        }
        host.leave();
        let (_, model, log) = host.end();
        let health = model.of_type("health", 0);
        assert!(
            health
                .iter()
                .all(|health| health["health"]["state"] != "failing"),
            "{log}"
        );
    }
}
