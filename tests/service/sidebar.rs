//! A sidebar: a service with a helper that can be exchanged, and the sessions that it must keep.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::{self, Helper, Host, Made, quick_status, text};

/// Its ways to list three sessions of its own, however oddly.
pub(crate) const LISTS: [&str; 6] = [
    "behaves",
    "reads-no-stdin",
    "exits-late",
    "floods-stderr-then-behaves",
    "grandchild-holds-only-stderr",
    "grandchild-prints-the-end",
];

/// A service with some sessions listed.
pub(crate) struct Sidebar {
    pub(crate) host: Host,
    pub(crate) helper: Helper,
    pub(crate) place: tempfile::TempDir,
    pub(crate) db: PathBuf,
}

impl Sidebar {
    /// Its helper has a second.
    pub(crate) fn of(place: tempfile::TempDir, db: PathBuf) -> Self {
        Self::within("1s", place, db)
    }

    /// Its helper has so long.
    pub(crate) fn within(deadline: &str, place: tempfile::TempDir, db: PathBuf) -> Self {
        let helper = Helper::new();
        let state = place.path().join("state");
        let mut command = support::serve(&db, &state);
        command.args(["--deadline", deadline, "--lister"]);
        let host = Host::well(command.arg(helper.program()));
        Self {
            host,
            helper,
            place,
            db,
        }
    }

    /// Of a database that nobody has open.
    pub(crate) fn closed() -> Self {
        let place = tempfile::tempdir().unwrap();
        let db = place.path().join("data/opencode.db");
        fs::create_dir(db.parent().unwrap()).unwrap();
        database(&db, &KEPT);
        let sidebar = Self::of(place, db);
        assert_eq!(sidebar.host.model.ids(), KEPT);
        sidebar
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.place.path().join("state/socket")
    }

    pub(crate) fn files(&self) -> [PathBuf; 3] {
        ["", "-wal", "-shm"].map(|suffix| with_suffix(&self.db, suffix))
    }

    /// The source as the status shows it, which answers at once.
    #[track_caller]
    pub(crate) fn source(&self) -> Value {
        let status = quick_status(&self.socket());
        status["sources"][0].clone()
    }

    /// What `harm` does makes listings fail with this reason: nothing is lost,
    /// it is said once, and all is well again some time after `undo`.
    #[track_caller]
    pub(crate) fn survives(&mut self, reason: &str, harm: impl FnOnce(), undo: impl FnOnce()) {
        let before = self.host.model.events.len();
        let kept = self.host.model.sessions.clone();
        harm();
        self.host
            .until("the failure", |model| model.state() == "failing");
        let outcome = self.host.refresh();
        assert_eq!(outcome["outcome"], "failed", "{outcome}");
        for health in [
            &outcome,
            &self.host.model.only_health().clone(),
            &self.source()["health"],
        ] {
            let said = text(&health["reason"]);
            assert!(said.contains(reason), "{said:?}");
        }
        // Time for a second word that must not come.
        self.host.take_for(Duration::from_millis(100));
        let model = &self.host.model;
        assert_eq!(model.of_type("health", before).len(), 1, "said once");
        assert_eq!(model.of_type("change", before).len(), 0);
        assert_eq!(self.source()["sessions"], kept.len());
        undo();
        self.host
            .until("the recovery", |model| model.state() == "ok");
        assert_eq!(self.host.model.removed(), 0);
        for id in kept.keys() {
            assert!(self.host.model.sessions.contains_key(id), "{id:?} is lost");
        }
        assert_eq!(self.source()["health"]["state"], "ok");
    }
}

pub(crate) const KEPT: [&str; 4] = ["ses_a", "ses_b", "ses_c", "ses_d"];

pub(crate) const OTHERS: [&str; 3] = ["ses_b", "ses_x", "ses_y"];

/// Puts a database with these sessions there, all of it in the one file.
pub(crate) fn database(db: &Path, ids: &[&str]) {
    let made = Made::new();
    for (at, id) in (1..).zip(ids) {
        made.session(id, at);
    }
    made.run("PRAGMA wal_checkpoint(TRUNCATE)");
    let new = with_suffix(db, ".new");
    fs::copy(&made.db, &new).unwrap();
    fs::rename(new, db).unwrap();
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
