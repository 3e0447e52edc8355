//! When a service lists: one listing at a time, soon after a change, and at a pace.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{made, settle, start, state};
use crate::support::{self, Helper, Host, REAL, serve, wait_for};

/// A helper that reads what it is to print, says so, and waits until it may end.
pub(crate) struct Scripted {
    pub(crate) helper: Helper,
    pub(crate) place: tempfile::TempDir,
}

impl Scripted {
    pub(crate) fn new() -> Self {
        let (helper, place) = (Helper::new(), tempfile::tempdir().unwrap());
        let scripted = Self { helper, place };
        scripted.prints(&[]);
        scripted.helper.becomes_script(&format!(
            "#!/bin/sh\ncd '{}'\necho begin >> log\ncat listing\necho >> printed\nwhile [ -e hold ]; do sleep 0.02; done\necho end >> log\n",
            scripted.place.path().display()
        ));
        scripted
    }

    pub(crate) fn prints(&self, ids: &[&str]) {
        let mut lines = vec![json!({"type": "hello", "protocol": 1, "lister": "script"})];
        lines.extend(
            ids.iter()
                .map(|id| json!({"type": "session", "id": id, "store": "v1"})),
        );
        lines.push(
            json!({"type": "end", "sessions": ids.len(), "database": "ready", "elapsedMs": 1,
            "scan": {"mode": "none", "progress": 1.0, "frames": 0, "bytes": 0}}),
        );
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (new, listing) = (
            self.place.path().join("new"),
            self.place.path().join("listing"),
        );
        fs::write(&new, lines).unwrap();
        fs::rename(new, listing).unwrap();
    }

    pub(crate) fn hold(&self, on: bool) {
        let hold = self.place.path().join("hold");
        if on {
            File::create(hold).unwrap();
        } else {
            fs::remove_file(hold).unwrap();
        }
    }

    /// `begin` and `end` of every launch.
    pub(crate) fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Waits until so many launches have printed their listing.
    pub(crate) fn until_printed(&self, launches: usize) {
        wait_for("a listing", || {
            let printed = fs::read(self.place.path().join("printed")).unwrap_or_default();
            (printed.len() >= launches).then_some(())
        });
    }

    pub(crate) fn begun(&self) -> usize {
        self.log().iter().filter(|line| *line == "begin").count()
    }
}

/// There is one listing at a time.
#[test]
fn request_during_a_listing_makes_one_more_follow() {
    let _limit = support::limit(60);
    let made = made(&[]);
    settle(&made);
    let scripted = Scripted::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    let before = scripted.begun();
    scripted.prints(&["ses_old"]);
    scripted.hold(true);
    // Else there is nothing to list.
    support::touch(&made.db);
    let first = host.tell("refresh");
    // What the helper in flight has printed is older than these requests.
    scripted.until_printed(before + 1);
    scripted.prints(&["ses_new"]);
    let second: Vec<_> = (0..10).map(|_| host.tell("refresh")).collect();
    // Time for a second launch that must not come.
    host.take_for(Duration::from_millis(300));
    assert_eq!(scripted.begun(), before + 1, "one at a time");
    assert_eq!(host.model.of_type("reply", 0).len(), 0);
    scripted.hold(false);
    host.reply(first);
    assert_eq!(host.model.ids(), ["ses_old"]);
    for id in second {
        host.until("the others", |model| {
            model
                .events
                .iter()
                .any(|event| event["type"] == "reply" && event["id"] == id)
        });
    }
    assert_eq!(
        host.model.ids(),
        ["ses_new"],
        "a later listing answers a later request"
    );
    assert_eq!(scripted.begun(), before + 2, "ten requests make one more");
    // Never two at once.
    let log = wait_for("the end", || {
        Some(scripted.log()).filter(|log| log.len().is_multiple_of(2))
    });
    assert!(
        log.chunks(2).all(|pair| pair == ["begin", "end"]),
        "{log:?}"
    );
}

#[test]
fn change_during_a_listing_makes_one_more_follow() {
    let _limit = support::limit(60);
    let made = made(&[]);
    let scripted = Scripted::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    for round in 0..2 {
        let before = scripted.begun();
        let (old, new) = (format!("ses_old_{round}"), format!("ses_new_{round}"));
        scripted.prints(&[&old]);
        scripted.hold(true);
        made.session(&old, round);
        scripted.until_printed(before + 1);
        scripted.prints(&[&new]);
        made.session(&new, round);
        // As above.
        host.take_for(Duration::from_millis(200));
        assert_eq!(scripted.begun(), before + 1, "one at a time");
        scripted.hold(false);
        host.until("the old one", |model| model.ids() == [old.as_str()]);
        host.until("the new one", |model| model.ids() == [new.as_str()]);
    }
}

/// All that there is to see of the change is seen while the listing runs, also the
/// look at files that have come to rest.
#[test]
fn change_early_in_a_listing_makes_one_more_follow() {
    let _limit = support::limit(60);
    let made = made(&[]);
    let scripted = Scripted::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    let before = scripted.begun();
    scripted.prints(&["ses_old"]);
    scripted.hold(true);
    made.session("ses_old", 1);
    scripted.until_printed(before + 1);
    scripted.prints(&["ses_new"]);
    made.session("ses_new", 2);
    // Longer than the time of a file is too young to be sure of.
    host.take_for(Duration::from_secs(4));
    assert_eq!(scripted.begun(), before + 1, "one at a time");
    scripted.hold(false);
    host.until("the old one", |model| model.ids() == ["ses_old"]);
    host.until("the new one", |model| model.ids() == ["ses_new"]);
}

/// Its files look again as they did when they were last listed, and what was listed
/// meanwhile is another's.
#[test]
fn database_replaced_during_a_listing_is_listed_again() {
    let _limit = support::limit(60);
    let made = made(&[]);
    made.run("PRAGMA wal_checkpoint(TRUNCATE)");
    settle(&made);
    let (own, other) = (
        made.db.with_file_name("own.db"),
        made.db.with_file_name("other.db"),
    );
    fs::hard_link(&made.db, &own).unwrap();
    fs::copy(&made.db, &other).unwrap();
    let scripted = Scripted::new();
    scripted.prints(&["ses_own"]);
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    assert_eq!(host.model.ids(), ["ses_own"]);
    let before = scripted.begun();
    scripted.prints(&["ses_other"]);
    scripted.hold(true);
    fs::rename(&other, &made.db).unwrap();
    scripted.until_printed(before + 1);
    scripted.prints(&["ses_own"]);
    fs::rename(&own, &made.db).unwrap();
    // It notices nothing while it lists.
    host.take_for(Duration::from_millis(500));
    scripted.hold(false);
    host.until("the other one", |model| model.ids() == ["ses_other"]);
    host.until("its own again", |model| model.ids() == ["ses_own"]);
}

/// The pauses after four failures are twelve seconds together, at the least.
#[test]
fn requested_refresh_ignores_the_backoff() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let helper = Helper::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(helper.program()));
    helper.becomes("exits-with-error-io");
    let started = Instant::now();
    for _ in 0..4 {
        assert_eq!(host.refresh()["outcome"], "failed");
    }
    helper.becomes(REAL);
    assert_eq!(host.refresh()["outcome"], "ok");
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
}

/// SQLite writes to the log, may wait for the disk, and only then lets readers see
/// it, in a file that nobody watches.
#[test]
fn commit_visible_after_the_file_change_is_noticed() {
    let _limit = support::limit(60);
    let made = made(&[]);
    let scripted = Scripted::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    let before = host.status()["listings"].as_u64();
    made.session("ses_1", 1);
    host.until_status("a listing", |status| status["listings"].as_u64() > before);
    scripted.prints(&["ses_1"]);
    host.until("the session", |model| model.ids() == ["ses_1"]);
}

#[test]
fn change_is_sent_soon_and_busy_database_is_paced() {
    let _limit = support::limit(60);
    let made = made(&[]);
    let mut host = start(&made);
    let quickest = (0..4)
        .map(|n| {
            // Not so soon after the last listing that this one has to wait.
            host.take_for(Duration::from_millis(600));
            let id = format!("ses_{n}");
            made.session(&id, n);
            let committed = Instant::now();
            host.until("the change", |model| model.ids().contains(&id.as_str()));
            committed.elapsed()
        })
        .min();
    assert!(quickest < Some(Duration::from_millis(450)), "{quickest:?}");
    let before = host.status()["spawns"].as_u64().unwrap();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        made.run("UPDATE session SET time_updated = time_updated + 1");
        host.take_for(Duration::from_millis(10));
    }
    // Two a second.
    let spawns = host.status()["spawns"].as_u64().unwrap() - before;
    assert!((2..=8).contains(&spawns), "{spawns}");
}
