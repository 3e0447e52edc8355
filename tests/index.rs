//! The index against a simple model, over random sequences of listings and
//! failures.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use opencode_sessions::index::{Found, Health, Index, Merged, Moment};
use opencode_sessions::output::Entry;
use opencode_sessions::session::{Millis, Session};
use opencode_sessions::source::{Source, SourceName};
use opencode_sessions::wire::DatabaseState;
use proptest::prelude::*;
use serde_json::json;

/// What the model knows of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    title: u8,
    marked: Option<bool>,
}

#[derive(Debug, Clone)]
enum Step {
    Ready(BTreeMap<u8, Row>),
    Nothing(DatabaseState),
    Fails(u8),
    /// Time passes, in milliseconds.
    Pass(u16),
    /// The index is saved and a new one is made of it.
    Restart,
}

fn row() -> impl Strategy<Value = Row> {
    (0_u8..3, prop::option::of(any::<bool>())).prop_map(|(title, marked)| Row { title, marked })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::btree_map(0_u8..6, row(), 0..6).prop_map(Step::Ready),
        3 => prop_oneof![
            Just(DatabaseState::Missing),
            Just(DatabaseState::Empty),
            Just(DatabaseState::Young)
        ].prop_map(Step::Nothing),
        2 => (0_u8..2).prop_map(Step::Fails),
        3 => (0_u16..1500).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

fn entry(id: u8, row: Row) -> Entry {
    let session: Session = serde_json::from_value(json!({
        "id": format!("ses_{id}"), "title": row.title.to_string(), "marked": row.marked,
        "store": "v1",
    }))
    .unwrap();
    Entry {
        session,
        project: None,
    }
}

fn rows(index: &Index, source: &SourceName) -> BTreeMap<u8, Row> {
    let known = index.source(source).unwrap();
    known
        .sessions()
        .iter()
        .map(|(id, entry)| {
            let session = entry.unpack().session;
            assert_eq!(*id, session.id);
            let title = session.title.as_deref().unwrap().parse().unwrap();
            let id = id.as_str().strip_prefix("ses_").unwrap().parse().unwrap();
            (
                id,
                Row {
                    title,
                    marked: session.marked,
                },
            )
        })
        .collect()
}

fn sources() -> [Source; 2] {
    ["a.db", "b.db"].map(|name| Source {
        name: name.into(),
        path: PathBuf::from("/x").join(name),
    })
}

/// The rules, said as plainly as can be.
#[derive(Debug, Default, Clone)]
struct Model {
    rows: BTreeMap<u8, Row>,
    gone_since: Option<u64>,
    health: &'static str,
    reason: Option<u8>,
}

impl Model {
    fn ready(&mut self, listed: &BTreeMap<u8, Row>) {
        let mut rows = listed.clone();
        for (id, row) in &mut rows {
            if row.marked.is_none() {
                row.marked = self.rows.get(id).and_then(|known| known.marked);
            }
        }
        *self = Self {
            rows,
            gone_since: None,
            health: "ok",
            reason: None,
        };
    }

    fn nothing(&mut self, state: DatabaseState, now: u64) {
        if state == DatabaseState::Young {
            self.gone_since = None;
            if self.health == "failing" {
                self.health = if self.rows.is_empty() {
                    "starting"
                } else {
                    "stale"
                };
                self.reason = None;
            }
            return;
        }
        if !self.rows.is_empty() {
            let since = *self.gone_since.get_or_insert(now);
            if now - since < 1000 {
                return;
            }
        }
        let health = if state == DatabaseState::Missing {
            "missing"
        } else {
            "empty"
        };
        *self = Self {
            health,
            ..Self::default()
        };
    }
}

/// What the difference says happened to the sessions must be what happened.
fn apply(before: &BTreeMap<u8, Row>, after: &BTreeMap<u8, Row>, merged: &Merged) {
    let ids = |ids: &[opencode_sessions::session::SessionId]| {
        let mut ids: Vec<u8> = ids
            .iter()
            .map(|id| id.as_str()[4..].parse().unwrap())
            .collect();
        ids.sort_unstable();
        ids
    };
    let with = |wanted: &dyn Fn(Option<&Row>, Option<&Row>) -> bool| {
        (0..6)
            .filter(|id| wanted(before.get(id), after.get(id)))
            .collect::<Vec<u8>>()
    };
    let difference = &merged.difference;
    assert_eq!(
        ids(&difference.inserted),
        with(&|b, a| b.is_none() && a.is_some())
    );
    assert_eq!(
        ids(&difference.removed),
        with(&|b, a| b.is_some() && a.is_none())
    );
    assert_eq!(
        ids(&difference.updated),
        with(&|b, a| b.is_some() && a.is_some() && a != b)
    );
}

fn run(steps: &[(bool, Step)]) {
    let sources = sources();
    let mut index = Index::new(&sources);
    let mut models = [(); 2].map(|()| Model {
        health: "starting",
        ..Model::default()
    });
    let mut now = 0_u64;
    for (which, step) in steps {
        let which = usize::from(*which);
        let (source, model) = (&sources[which].name, &mut models[which]);
        let moment = Moment {
            // The wall clock goes backwards, which must not matter.
            wall: Millis(-i64::try_from(now).unwrap()),
            monotonic: Duration::from_millis(now),
        };
        let before = rows(&index, source);
        let revision = index.revision();
        let health = index.source(source).unwrap().health().clone();
        match step {
            Step::Pass(ms) => now += u64::from(*ms),
            Step::Fails(reason) => {
                let kind = ["busy", "corrupt"][usize::from(*reason)];
                let news = index.fail(source, kind, &format!("at {now}"), None, moment);
                assert_eq!(
                    news,
                    model.reason != Some(*reason),
                    "said once for each kind"
                );
                assert_eq!(index.revision(), revision);
                model.health = "failing";
                model.reason = Some(*reason);
                model.gone_since = None;
            }
            Step::Ready(_) | Step::Nothing(_) => {
                let (database, listed) = match step {
                    Step::Ready(listed) => (DatabaseState::Ready, listed.clone()),
                    Step::Nothing(state) => (*state, BTreeMap::new()),
                    _ => unreachable!(),
                };
                let entries = listed.iter().map(|(id, row)| entry(*id, *row)).collect();
                let merged = index.merge(source, Found { database, entries }, moment);
                match database {
                    DatabaseState::Ready => model.ready(&listed),
                    state => model.nothing(state, now),
                }
                let after = rows(&index, source);
                apply(&before, &after, &merged);
                assert_eq!(index.revision(), revision + u64::from(before != after));
                let healthier = index.source(source).unwrap().health();
                assert_eq!(merged.health_changed, health != *healthier);
                let unsure = database == DatabaseState::Young || model.gone_since.is_some();
                assert_eq!(merged.again.is_some(), unsure);
            }
            Step::Restart => {
                let bytes = opencode_sessions::index::snapshot::encode(&index, None).unwrap();
                index = Index::new(&sources);
                opencode_sessions::index::snapshot::restore(&mut index, &bytes, None).unwrap();
                for model in &mut models {
                    model.health = if model.rows.is_empty() {
                        "starting"
                    } else {
                        "stale"
                    };
                    model.reason = None;
                    model.gone_since = None;
                }
            }
        }
        for (source, model) in sources.iter().zip(&models) {
            assert_eq!(rows(&index, &source.name), model.rows, "after {step:?}");
            assert_eq!(
                index.source(&source.name).unwrap().health().name(),
                model.health,
                "after {step:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_index_does_what_the_rules_say(steps in prop::collection::vec((any::<bool>(), step()), 0..40)) {
        run(&steps);
    }
}

fn found(database: DatabaseState, ids: &[u8]) -> Found {
    let row = Row {
        title: 0,
        marked: Some(false),
    };
    Found {
        database,
        entries: ids.iter().map(|id| entry(*id, row)).collect(),
    }
}

fn at(ms: u64) -> Moment {
    Moment {
        wall: Millis(0),
        monotonic: Duration::from_millis(ms),
    }
}

#[test]
fn a_source_that_is_gone_is_believed_after_a_second_look_a_second_later() {
    let _limit = support::limit(30);
    let [source, _] = sources();
    for state in [DatabaseState::Missing, DatabaseState::Empty] {
        let mut index = Index::new(std::slice::from_ref(&source));
        index.merge(&source.name, found(DatabaseState::Ready, &[1, 2]), at(0));
        assert!(
            index
                .merge(&source.name, found(state, &[]), at(5000))
                .again
                .is_some()
        );
        assert!(
            index
                .merge(&source.name, found(state, &[]), at(5999))
                .again
                .is_some()
        );
        assert_eq!(*index.source(&source.name).unwrap().health(), Health::Ok);
        assert_eq!(rows(&index, &source.name).len(), 2);
        let merged = index.merge(&source.name, found(state, &[]), at(6000));
        assert_eq!(merged.difference.removed.len(), 2);
        assert!(rows(&index, &source.name).is_empty());
    }
}

#[test]
fn a_complete_listing_without_sessions_is_believed_at_once() {
    let _limit = support::limit(30);
    let [source, other] = sources();
    let mut index = Index::new(&[source.clone(), other.clone()]);
    index.merge(&source.name, found(DatabaseState::Ready, &[1, 2]), at(0));
    index.merge(&other.name, found(DatabaseState::Ready, &[1]), at(0));
    let merged = index.merge(&source.name, found(DatabaseState::Ready, &[]), at(1));
    assert_eq!(merged.difference.removed.len(), 2);
    assert_eq!(rows(&index, &other.name).len(), 1, "only of that source");
}

#[test]
fn a_snapshot_of_another_marker_keeps_the_sessions_and_forgets_their_marks() {
    let _limit = support::limit(30);
    let [source, _] = sources();
    let mut index = Index::new(std::slice::from_ref(&source));
    index.merge(&source.name, found(DatabaseState::Ready, &[1]), at(0));
    let marker = opencode_sessions::wire::MarkerText::default();
    let bytes = opencode_sessions::index::snapshot::encode(&index, Some(&marker)).unwrap();
    for (now, marked) in [(Some(&marker), Some(false)), (None, None)] {
        let mut index = Index::new(std::slice::from_ref(&source));
        opencode_sessions::index::snapshot::restore(&mut index, &bytes, now).unwrap();
        assert_eq!(rows(&index, &source.name)[&1].marked, marked);
    }
}
