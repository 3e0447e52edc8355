//! The index against a simple model, over random sequences of listings and
//! failures.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;
use std::time::Duration;

use opencode_sessions::entry::Entry;
use opencode_sessions::internals::index::{
    Health, Index, MergeResult, Moment, SourceListing, View, snapshot,
};
use opencode_sessions::internals::wire::DatabaseState;
use opencode_sessions::session::{Millis, Session, SessionId};
use opencode_sessions::source::{Place, Source, SourceName};
use proptest::prelude::*;
use serde_json::json;

use crate::support;

/// What the model knows of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    title: u8,
    marked: Option<bool>,
    updated: Option<u8>,
    archived: bool,
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
    let row = (
        0_u8..3,
        prop::option::of(any::<bool>()),
        prop::option::of(0_u8..3),
        prop::bool::weighted(0.2),
    );
    row.prop_map(|(title, marked, updated, archived)| Row {
        title,
        marked,
        updated,
        archived,
    })
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
        "store": "v1", "timeUpdated": row.updated, "timeArchived": row.archived.then_some(1),
    }))
    .unwrap();
    Entry {
        gone: false,
        session,
        project: None,
    }
}

fn row_of(entry: &Entry) -> (u8, Row) {
    let session = &entry.session;
    let row = Row {
        title: session.title.as_deref().unwrap().parse().unwrap(),
        marked: session.marked,
        updated: session.time_updated.map(|time| time.0.try_into().unwrap()),
        archived: session.time_archived.is_some(),
    };
    (number(&session.id), row)
}

fn number(id: &SessionId) -> u8 {
    id.as_str().strip_prefix("ses_").unwrap().parse().unwrap()
}

fn rows(index: &Index, source: &SourceName) -> BTreeMap<u8, Row> {
    let known = index.source(source).unwrap();
    let rows = known.rows().values();
    rows.map(|row| row_of(&row.entry())).collect()
}

/// What is shown of a session: the row, and the sources that have it, its own first.
type Shown = (Row, Vec<SourceName>);

fn shown(index: &Index, view: View) -> BTreeMap<u8, Shown> {
    let sessions = index.sessions(view);
    let count = sessions.len();
    if view == View::default() {
        assert_eq!(index.shown_count(), count);
    }
    let shown: BTreeMap<_, _> = sessions
        .into_iter()
        .map(|session| {
            let (id, row) = row_of(&session.entry.entry());
            let mut sources = vec![session.source.clone()];
            sources.extend(session.also.clone());
            if view == View::default() {
                let name = SessionId::new(format!("ses_{id}")).unwrap();
                assert_eq!(index.session(&name, View::default()), Some(session));
            }
            (id, (row, sources))
        })
        .collect();
    assert_eq!(shown.len(), count, "each is there once");
    shown
}

/// The same by the rules.
fn by_the_rules(sources: &[Source], models: &[Model], view: View) -> BTreeMap<u8, Shown> {
    let mut merged = BTreeMap::new();
    for id in 0..6 {
        let mut best: Option<(Row, usize)> = None;
        let mut having = Vec::new();
        for (at, model) in models.iter().enumerate() {
            let Some(row) = model.rows.get(&id) else {
                continue;
            };
            having.push(at);
            if best.is_none_or(|(best, _)| row.updated > best.updated) {
                best = Some((*row, at));
            }
        }
        let Some((row, at)) = best else { continue };
        if row.archived && view == View::default() {
            continue;
        }
        having.retain(|other| *other != at);
        having.insert(0, at);
        let names = having.iter().map(|at| sources[*at].name.clone()).collect();
        merged.insert(id, (row, names));
    }
    merged
}

fn sources() -> [Source; 3] {
    ["b.db", "a.db", "c.db"]
        .map(|name| Source::new(name, Place::Database(PathBuf::from("/x").join(name))))
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
fn apply(before: &BTreeMap<u8, Shown>, after: &BTreeMap<u8, Shown>, merged: &MergeResult) {
    let ids = |ids: &[SessionId]| {
        let mut ids: Vec<u8> = ids.iter().map(number).collect();
        ids.sort_unstable();
        ids
    };
    let with = |wanted: &dyn Fn(Option<&Shown>, Option<&Shown>) -> bool| {
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

fn run(steps: &[(usize, Step)]) {
    let sources = sources();
    let mut index = Index::new(&sources);
    let mut models = [(); 3].map(|()| Model {
        health: "starting",
        ..Model::default()
    });
    let mut now = 0_u64;
    for (which, step) in steps {
        let which = *which;
        let (source, model) = (&sources[which].name, &mut models[which]);
        let moment = Moment {
            // The wall clock goes backwards, which must not matter.
            wall: Millis(-i64::try_from(now).unwrap()),
            monotonic: Duration::from_millis(now),
        };
        let before = shown(&index, View::default());
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
                let entries = listed.iter().map(|(id, row)| entry(*id, *row));
                let merged = index.merge(source, SourceListing::new(database, entries), moment);
                match database {
                    DatabaseState::Ready => model.ready(&listed),
                    state => model.nothing(state, now),
                }
                let after = shown(&index, View::default());
                apply(&before, &after, &merged);
                assert_eq!(index.revision(), revision + u64::from(before != after));
                let healthier = index.source(source).unwrap().health();
                assert_eq!(merged.has_new_health, health != *healthier);
                let unsure = database == DatabaseState::Young || model.gone_since.is_some();
                assert_eq!(merged.recheck.is_some(), unsure);
            }
            Step::Restart => {
                let bytes = snapshot::Snapshot::of(&index, None).to_bytes().unwrap();
                index = Index::new(&sources);
                snapshot::restore(&mut index, &bytes, None, Millis::now()).unwrap();
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
        for view in [View::default(), View::ALL] {
            let expected = by_the_rules(&sources, &models, view);
            assert_eq!(shown(&index, view), expected, "after {step:?}");
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
    fn index_agrees_with_the_model(steps in prop::collection::vec((0_usize..3, step()), 0..40)) {
        run(&steps);
    }
}

fn found(database: DatabaseState, ids: &[u8]) -> SourceListing {
    let row = Row {
        title: 0,
        marked: Some(false),
        updated: None,
        archived: false,
    };
    SourceListing::new(database, ids.iter().map(|id| entry(*id, row)))
}

fn at(ms: u64) -> Moment {
    Moment {
        wall: Millis(0),
        monotonic: Duration::from_millis(ms),
    }
}

/// By a second look.
#[test]
fn missing_source_is_confirmed_after_a_second() {
    let _limit = support::limit(30);
    let [source, ..] = sources();
    for state in [DatabaseState::Missing, DatabaseState::Empty] {
        let mut index = Index::new(std::slice::from_ref(&source));
        index.merge(&source.name, found(DatabaseState::Ready, &[1, 2]), at(0));
        assert!(
            index
                .merge(&source.name, found(state, &[]), at(5000))
                .recheck
                .is_some()
        );
        assert!(
            index
                .merge(&source.name, found(state, &[]), at(5999))
                .recheck
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
fn complete_empty_listing_counts_at_once() {
    let _limit = support::limit(30);
    let [source, other, _] = sources();
    let mut index = Index::new(&[source.clone(), other.clone()]);
    index.merge(&source.name, found(DatabaseState::Ready, &[1, 2]), at(0));
    index.merge(&other.name, found(DatabaseState::Ready, &[1]), at(0));
    let merged = index.merge(&source.name, found(DatabaseState::Ready, &[]), at(1));
    assert_eq!(
        merged.difference.removed.len(),
        1,
        "the other source has one"
    );
    assert_eq!(merged.difference.updated.len(), 1, "of which it is now");
    assert_eq!(rows(&index, &other.name).len(), 1, "only of that source");
}

/// It keeps the sessions.
#[test]
fn snapshot_of_another_marker_drops_the_marks() {
    let _limit = support::limit(30);
    let [source, ..] = sources();
    let mut index = Index::new(std::slice::from_ref(&source));
    index.merge(&source.name, found(DatabaseState::Ready, &[1]), at(0));
    let marker = opencode_sessions::marker_text::MarkerText::default();
    let bytes = snapshot::Snapshot::of(&index, Some(&marker))
        .to_bytes()
        .unwrap();
    for (now, marked) in [(Some(&marker), Some(false)), (None, None)] {
        let mut index = Index::new(std::slice::from_ref(&source));
        snapshot::restore(&mut index, &bytes, now, Millis::now()).unwrap();
        assert_eq!(rows(&index, &source.name)[&1].marked, marked);
    }
}

#[test]
fn archived_session_hides_its_older_unarchived_copy() {
    let _limit = support::limit(30);
    let [copy, live, _] = sources();
    let mut index = Index::new(&[copy.clone(), live.clone()]);
    let row = |updated, archived| Row {
        title: 0,
        marked: None,
        updated: Some(updated),
        archived,
    };
    let of = |row| SourceListing::new(DatabaseState::Ready, [entry(1, row)]);
    index.merge(&copy.name, of(row(1, false)), at(0));
    index.merge(&live.name, of(row(2, false)), at(0));
    let both = vec![live.name.clone(), copy.name.clone()];
    assert_eq!(
        shown(&index, View::default())[&1],
        (row(2, false), both.clone())
    );
    let merged = index.merge(&live.name, of(row(3, true)), at(1));
    assert_eq!(merged.difference.removed.len(), 1);
    assert!(index.sessions(View::default()).is_empty());
    assert_eq!(shown(&index, View::ALL)[&1], (row(3, true), both));
    let known = index.source(&live.name).unwrap();
    assert_eq!(
        (known.count(), index.source(&copy.name).unwrap().count()),
        (0, 1)
    );
    // Without the live one the copy is what there is.
    index.set_sources(std::slice::from_ref(&copy));
    assert_eq!(shown(&index, View::default())[&1].0, row(1, false));
}

#[test]
fn two_sources_of_one_database_keep_their_own_sessions() {
    let _limit = support::limit(30);
    let [one, two, _] = sources();
    let mut index = Index::new(&[one.clone(), two.clone()]);
    index.merge(&one.name, found(DatabaseState::Ready, &[1]), at(0));
    index.merge(&two.name, found(DatabaseState::Ready, &[2]), at(0));
    // The link of the first is turned to the second.
    let turned = Source::new(one.name.clone(), two.place.clone());
    index.set_sources(&[turned.clone(), two.clone()]);
    let count = |name| index.source(name).unwrap().count();
    assert_eq!((count(&turned.name), count(&two.name)), (0, 1));
    assert!(shown(&index, View::default()).keys().eq([&2]));
}

#[test]
fn new_source_set_keeps_the_sources_that_stay() {
    let _limit = support::limit(30);
    let [one, two, three] = sources();
    let mut index = Index::new(&[one.clone(), two.clone()]);
    index.merge(&one.name, found(DatabaseState::Ready, &[1, 2]), at(0));
    index.merge(&two.name, found(DatabaseState::Ready, &[2, 3]), at(0));
    let revision = index.revision();
    // The same place under another name, and a new one before it.
    let renamed = Source::new("renamed", two.place.clone());
    index.set_sources(&[three.clone(), renamed.clone()]);
    assert_eq!(index.revision(), revision + 1);
    assert_eq!(
        shown(&index, View::default())
            .keys()
            .copied()
            .collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(*index.source(&renamed.name).unwrap().health(), Health::Ok);
    assert_eq!(
        index.source(&three.name).unwrap().health().name(),
        "starting"
    );
    assert!(index.source(&two.name).is_none());
    // Another order shows the same.
    index.set_sources(&[renamed, three]);
    assert_eq!(index.revision(), revision + 1);
}

#[test]
fn oversized_source_costs_no_other_its_snapshot() {
    let _limit = support::limit(60);
    let [large, small, _] = sources();
    let mut index = Index::new(&[large.clone(), small.clone()]);
    let title = "x".repeat(4096);
    let entries = (0..500).map(|id| {
        let session = json!({"id": format!("ses_large_{id}"), "title": title, "store": "v1"});
        Entry {
            gone: false,
            session: serde_json::from_value(session).unwrap(),
            project: None,
        }
    });
    let all = SourceListing::new(DatabaseState::Ready, entries);
    index.merge(&large.name, all, at(0));
    index.merge(&small.name, found(DatabaseState::Ready, &[1]), at(0));
    let mut bytes = Cursor::new(Vec::new());
    let snapshot = snapshot::Snapshot::of(&index, None);
    // A megabyte is kept free beside the rows.
    let left_out = snapshot.write_within(2 << 20, &mut bytes).unwrap();
    assert_eq!(left_out, 1);
    let bytes = bytes.into_inner();
    let mut restored = Index::new(&[large.clone(), small.clone()]);
    snapshot::restore(&mut restored, &bytes, None, Millis::now()).unwrap();
    assert_eq!(restored.source(&small.name).unwrap().count(), 1);
    assert_eq!(restored.source(&large.name).unwrap().count(), 0);
}
