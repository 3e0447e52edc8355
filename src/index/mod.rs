//! The known sessions, and what each listing changes about them.
//!
//! Pure: no I/O, and no clock of its own. It promises:
//!
//! * A session is removed only when a complete listing no longer has it. A failed listing
//!   removes nothing, and neither does a `young` database.
//! * If a source that had sessions is suddenly missing or empty, a second listing must confirm
//!   it, at least a second later. So a mount that fails for a moment removes no session.
//! * `marked: null` in a listing keeps the last known mark of that session.
//! * A session that several sources have is shown once, with all its sources: the row with the
//!   newest `time_updated`, or of the first source if several rows are equally new. If that row
//!   is archived, the session is archived, even if an older copy is not. A row of a
//!   command whose time is more than a day ahead counts as older than all others
//!   ([`Place::is_credible`](crate::source::Place::is_credible)).
//! * There is a view of the roots that are not archived, and there are wider views. The
//!   revision of a view grows by one with every listing that changes a session that it shows,
//!   with such a change of the sources, and when a snapshot is restored.

mod health;
pub mod snapshot;
mod source;

use std::time::Duration;

use crate::entry::{Entry, Sourced};
use crate::row::{Row, RowMaker};
use crate::session::{Millis, SessionId};
use crate::source::{Source, SourceName};
use crate::wire::{DatabaseState, ListingDifference};

pub use health::{Failing, Health};
pub use source::SourceState;

/// The time after which a second listing confirms that all sessions of a source are gone.
pub const CONFIRM_DELAY: Duration = Duration::from_secs(1);

/// A moment on the wall clock and on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, to be shown. It can be set back.
    pub wall: Millis,
    /// The time since a fixed moment. It never goes back.
    pub monotonic: Duration,
}

/// The known sessions of all sources.
#[derive(Debug, Clone, Default)]
pub struct Index {
    views: Vec<ViewState>,
    /// Grows with every change of a row, also of a row that no view shows.
    changes: u64,
    /// In the configured order.
    sources: Vec<SourceState>,
}

/// Which sessions are shown: the roots that are not archived, and those named here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View {
    /// Also child sessions.
    pub children: bool,
    /// Also archived sessions.
    pub archived: bool,
}

impl View {
    /// All sessions.
    pub const ALL: Self = Self {
        children: true,
        archived: true,
    };

    /// Returns true if this view shows all that `other` shows.
    #[must_use]
    pub fn includes(self, other: Self) -> bool {
        (self.children || !other.children) && (self.archived || !other.archived)
    }

    fn shows(self, row: &Row) -> bool {
        (self.children || !row.is_child()) && (self.archived || !row.is_archived())
    }
}

/// The revision and the size of a view.
#[derive(Debug, Clone, Copy)]
struct ViewState {
    view: View,
    revision: u64,
    /// How many sessions the view shows.
    session_count: usize,
}

/// The rows of a complete listing of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceListing {
    /// The state of the database.
    pub database: DatabaseState,
    /// The sessions, each id once. With a difference, only those that are new or changed.
    pub rows: Vec<Row>,
    /// What else differs from the known rows of the source; `None` if `rows` are all sessions.
    pub difference: Option<ListingDifference>,
}

impl SourceListing {
    /// Returns the listing of these entries.
    #[must_use]
    pub fn new(database: DatabaseState, entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut rows = RowMaker::default();
        let entries = entries.into_iter();
        Self {
            database,
            rows: entries.map(|entry| rows.restore(&entry)).collect(),
            difference: None,
        }
    }
}

/// What a listing changed about the sessions that a view shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// The sessions that are new.
    pub inserted: Vec<SessionId>,
    /// The sessions whose row or whose sources changed.
    pub updated: Vec<SessionId>,
    /// The sessions that are gone.
    pub removed: Vec<SessionId>,
}

impl Difference {
    /// Returns true if nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inserted.is_empty() && self.updated.is_empty() && self.removed.is_empty()
    }
}

/// What merging a listing changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MergeResult {
    /// The changes of the default view: roots that are not archived.
    pub difference: Difference,
    /// The changes of the other views that changed.
    pub others: Vec<(View, Difference)>,
    /// The source has another health.
    pub has_new_health: bool,
    /// The listing is not final: the caller must list again in about a second.
    pub recheck: Option<Recheck>,
}

/// Why a listing is to be repeated soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recheck {
    /// All sessions seem to be gone, or the listing was the difference to other rows. The next
    /// listing confirms it or not.
    Unconfirmed,
    /// The database is being created or restored.
    Young,
}

/// The rows that a listing changed, with their earlier values.
type ChangedRows = Vec<(SessionId, Option<Row>)>;

impl Index {
    /// Creates an empty index of these sources. It keeps the default view: roots that are not
    /// archived.
    #[must_use]
    pub fn new(sources: &[Source]) -> Self {
        Self::with_view(sources, View::default())
    }

    /// Creates an empty index of these sources. It keeps this view and all views that it
    /// includes.
    #[must_use]
    pub fn with_view(sources: &[Source], widest: View) -> Self {
        let views = [false, true]
            .into_iter()
            .flat_map(|children| [false, true].map(|archived| View { children, archived }));
        let empty = |view| ViewState {
            view,
            revision: 0,
            session_count: 0,
        };
        Self {
            views: views
                .filter(|view| widest.includes(*view))
                .map(empty)
                .collect(),
            changes: 0,
            sources: sources.iter().map(SourceState::new).collect(),
        }
    }

    /// Replaces the sources. A source that was among them before keeps its sessions, also
    /// under another name or at another place.
    pub fn set_sources(&mut self, sources: &[Source]) {
        let before = self.sessions_of_views();
        let mut old = std::mem::take(&mut self.sources);
        let kept = sources.iter().map(|source| {
            let identity = source.identity();
            let is_same = |known: &SourceState| known.identity() == identity;
            // Two sources can have the same database. Each keeps its own state.
            let is_of_another = |known: &SourceState| {
                let mut others = sources.iter().filter(|other| other.name != source.name);
                others.any(|other| {
                    other.name == *known.name() && other.identity() == known.identity()
                })
            };
            match old
                .iter()
                .position(|known| is_same(known) && !is_of_another(known))
            {
                Some(at) => old.swap_remove(at).rename(source),
                None => SourceState::new(source),
            }
        });
        self.sources = kept.collect();
        self.changes += 1;
        let after = self.sessions_of_views();
        for (state, (before, after)) in self.views.iter_mut().zip(before.iter().zip(&after)) {
            state.revision += u64::from(before != after);
            state.session_count = after.len();
        }
    }

    /// Returns the sessions of each view, in the order of the views.
    fn sessions_of_views(&self) -> Vec<Vec<Sourced<Row>>> {
        let views = self.views.iter();
        views.map(|state| self.sessions(state.view)).collect()
    }

    /// Returns the revision of the default view: roots that are not archived.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision_of(View::default())
    }

    /// Returns the revision of a view, or 0 if the index does not keep this view.
    #[must_use]
    pub fn revision_of(&self, view: View) -> u64 {
        self.view_state(view).map_or(0, |state| state.revision)
    }

    fn view_state(&self, view: View) -> Option<&ViewState> {
        self.views.iter().find(|state| state.view == view)
    }

    /// Returns a counter that grows with every change of what a snapshot contains, also of rows
    /// that no view shows.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns how many sessions the default view shows: roots that are not archived.
    #[must_use]
    pub fn shown_count(&self) -> usize {
        let state = self.view_state(View::default());
        state.map_or(0, |state| state.session_count)
    }

    /// Returns all sources, in the configured order.
    pub fn sources(&self) -> impl Iterator<Item = &SourceState> {
        self.sources.iter()
    }

    /// Returns the source of this name.
    #[must_use]
    pub fn source(&self, name: &SourceName) -> Option<&SourceState> {
        self.sources.iter().find(|state| state.name() == name)
    }

    fn position(&self, name: &SourceName) -> Option<usize> {
        self.sources.iter().position(|state| state.name() == name)
    }

    /// Returns all sessions that this view shows, each once, ordered by id.
    #[must_use]
    pub fn sessions(&self, view: View) -> Vec<Sourced<Row>> {
        let rows = self.sources.iter().enumerate().flat_map(|(at, state)| {
            let rows = state.rows.iter();
            rows.map(move |(id, row)| (id, SourceRow { source: at, row }))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|(id, _)| *id);
        let each = rows.chunk_by(|(one, _), (other, _)| one == other);
        each.filter_map(|rows_of_one| {
            let rows = rows_of_one.iter().map(|(_, row)| *row);
            self.resolve(rows, view)
        })
        .collect()
    }

    /// Returns a session as this view shows it.
    #[must_use]
    pub fn session(&self, id: &SessionId, view: View) -> Option<Sourced<Row>> {
        self.resolve(self.rows_of(id), view)
    }

    fn rows_of<'a>(&'a self, id: &'a SessionId) -> impl Iterator<Item = SourceRow<'a>> + Clone {
        let sources = self.sources.iter().enumerate();
        sources.filter_map(|(at, state)| {
            let row = state.rows.get(id)?;
            Some(SourceRow { source: at, row })
        })
    }

    /// Returns what a view shows of one session, from its rows in the order of the sources.
    /// The newest row alone decides whether the session is archived, since another source can
    /// be an old copy.
    fn resolve<'a>(
        &self,
        rows: impl Iterator<Item = SourceRow<'a>> + Clone,
        view: View,
    ) -> Option<Sourced<Row>> {
        // Among equally new rows, the first source has the greatest key.
        let newest = rows.clone().max_by_key(|SourceRow { source, row }| {
            (row.is_credible(), row.updated(), std::cmp::Reverse(*source))
        })?;
        if !view.shows(newest.row) {
            return None;
        }
        let name = |at: usize| self.sources[at].name().clone();
        let others = rows.filter(|other| other.source != newest.source);
        Some(Sourced {
            entry: newest.row.clone(),
            source: name(newest.source),
            also: others.map(|other| name(other.source)).collect(),
        })
    }

    /// Restores the rows that the source with this identity had before a restart. A source with
    /// rows is stale until its first complete listing.
    pub fn restore(&mut self, identity: &str, rows: Vec<Row>, now: Millis) {
        let mut sources = self.sources.iter_mut();
        let state = sources.find(|state| state.identity() == identity);
        let Some(state) = state.filter(|_| !rows.is_empty()) else {
            return;
        };
        state.restore(rows, now);
        self.changes += 1;
        let sessions = self.sessions_of_views();
        for (state, sessions) in self.views.iter_mut().zip(sessions) {
            state.revision += 1;
            state.session_count = sessions.len();
        }
    }

    /// Merges a complete listing of a source.
    pub fn merge(&mut self, name: &SourceName, listing: SourceListing, now: Moment) -> MergeResult {
        let Some(at) = self.position(name) else {
            return MergeResult::default();
        };
        let (merged, changed_rows) = self.sources[at].merge(listing, now);
        self.changes += u64::from(!changed_rows.is_empty());
        let views = self.views.iter().map(|state| state.view);
        let differences = views.map(|view| (view, self.difference(at, &changed_rows, view)));
        let mut differences: Vec<_> = differences.collect();
        for (state, (_, difference)) in self.views.iter_mut().zip(&differences) {
            state.revision += u64::from(!difference.is_empty());
            state.session_count += difference.inserted.len();
            state.session_count -= difference.removed.len();
        }
        differences.retain(|(_, difference)| !difference.is_empty());
        let default = differences
            .iter()
            .position(|(view, _)| *view == View::default());
        let difference = default.map(|at| differences.remove(at).1);
        MergeResult {
            difference: difference.unwrap_or_default(),
            others: differences,
            ..merged
        }
    }

    /// Returns what changed in a view when these rows of one source changed.
    fn difference(&self, source: usize, changed_rows: &ChangedRows, view: View) -> Difference {
        let mut difference = Difference::default();
        for (id, old) in changed_rows {
            let after = self.session(id, view);
            let others = self.rows_of(id).filter(|other| other.source != source);
            let old = old.as_ref().map(|row| SourceRow { source, row });
            let mut rows: Vec<_> = others.chain(old).collect();
            rows.sort_by_key(|row| row.source);
            let before = self.resolve(rows.into_iter(), view);
            match (before, after) {
                (None, Some(_)) => difference.inserted.push(id.clone()),
                (Some(_), None) => difference.removed.push(id.clone()),
                (before, after) if before != after => difference.updated.push(id.clone()),
                _ => {}
            }
        }
        difference
    }

    /// Sets when the listing began that the sessions of this source are from.
    pub fn set_as_of(&mut self, name: &SourceName, began: Millis) {
        if let Some(at) = self.position(name) {
            self.sources[at].set_as_of(began);
        }
    }

    /// Records a failed listing. Returns true if the source did not fail before, or failed with
    /// another kind.
    pub fn fail(
        &mut self,
        name: &SourceName,
        kind: &'static str,
        reason: &str,
        next_try: Option<Millis>,
        now: Moment,
    ) -> bool {
        let Some(at) = self.position(name) else {
            return false;
        };
        self.sources[at].fail(kind, reason, next_try, now)
    }
}

/// A row, and the position of its source.
#[derive(Debug, Clone, Copy)]
struct SourceRow<'a> {
    source: usize,
    row: &'a Row,
}
