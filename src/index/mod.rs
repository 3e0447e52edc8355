//! The known sessions, and what each listing changes about them.
//!
//! Pure: no I/O, and no clock of its own. What it promises:
//!
//! * A session is removed only when a complete listing no longer has it. A
//!   failed listing removes nothing; neither does a `young` database.
//! * Where a source that had sessions is suddenly missing or empty, that is
//!   believed when a second listing, at least a second later, says so too: a
//!   mount that blinks empties no sidebar.
//! * `marked: null` in a listing keeps what was last known of that session.
//! * A session that several sources have is shown once: the row with the newest
//!   `time_updated`, of the first source where there are several, and all its sources
//!   named. An archived one is hidden by that row alone, so that no older copy of it
//!   comes to light. A row of a command whose time is more than a day ahead counts as older
//!   than every other ([`Place::is_credible`]).
//! * There are views: of roots that are not archived, and of more. A view's revision grows
//!   by one with every change of a session that it shows, and with nothing else.

mod health;
pub mod snapshot;
mod source;

use std::time::Duration;

use crate::entry::{Entry, Row, RowMaker, Sourced};
use crate::session::{Millis, SessionId};
use crate::source::{Source, SourceName};
use crate::wire::DatabaseState;

pub use health::{Failing, Health};
pub use source::SourceState;

/// How long a second look must wait to confirm that sessions are gone.
pub const CONFIRM: Duration = Duration::from_secs(1);

/// A moment, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For people. May be set back.
    pub wall: Millis,
    /// Since some fixed moment; never goes back.
    pub monotonic: Duration,
}

/// The known sessions of all sources.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// Each way to look at them that is kept.
    views: Vec<ViewCount>,
    /// Grows with every change of a row, also of one that is not shown.
    changes: u64,
    /// In the order in which they were named.
    sources: Vec<SourceState>,
}

/// Which of the sessions are shown: roots that are not archived, and these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View {
    /// Child sessions, too.
    pub children: bool,
    /// Archived sessions, too.
    pub archived: bool,
}

impl View {
    /// All sessions.
    pub const ALL: Self = Self {
        children: true,
        archived: true,
    };

    /// True where all that `other` shows is shown.
    #[must_use]
    pub fn includes(self, other: Self) -> bool {
        (self.children || !other.children) && (self.archived || !other.archived)
    }

    fn shows(self, row: &Row) -> bool {
        (self.children || !row.is_child()) && (self.archived || !row.is_archived())
    }
}

/// What is counted of a view.
#[derive(Debug, Clone, Copy)]
struct ViewCount {
    view: View,
    revision: u64,
    /// How many sessions it shows.
    shown: usize,
}

/// What a complete listing found at a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The state of the database.
    pub database: DatabaseState,
    /// The sessions, each id once.
    pub rows: Vec<Row>,
}

impl Listed {
    /// Returns what a listing of these entries found.
    #[must_use]
    pub fn new(database: DatabaseState, entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut rows = RowMaker::default();
        let entries = entries.into_iter();
        Self {
            database,
            rows: entries.map(|entry| rows.restore(&entry)).collect(),
        }
    }
}

/// What a listing changed of the sessions that are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Sessions that are new.
    pub inserted: Vec<SessionId>,
    /// Sessions that are not as they were, or not where they were.
    pub updated: Vec<SessionId>,
    /// Sessions that are gone.
    pub removed: Vec<SessionId>,
}

impl Difference {
    /// True where nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inserted.is_empty() && self.updated.is_empty() && self.removed.is_empty()
    }
}

/// What came of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// What it changed of the roots that are not archived.
    pub difference: Difference,
    /// What it changed of what the other views show, where it did.
    pub others: Vec<(View, Difference)>,
    /// The source has another health.
    pub health_changed: bool,
    /// What it said is not final: list again in about a second.
    pub recheck: Option<Recheck>,
}

/// Why a listing is to be repeated soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recheck {
    /// The sessions seem to be gone, which waits for confirmation.
    Unconfirmed,
    /// The database is just being made or restored.
    Young,
}

/// The rows that a listing changed, as they were before.
type ChangedRows = Vec<(SessionId, Option<Row>)>;

impl Index {
    /// An index of these sources, of which nothing is known; it keeps the view of the
    /// roots that are not archived.
    #[must_use]
    pub fn new(sources: &[Source]) -> Self {
        Self::showing(sources, View::default())
    }

    /// The same, which keeps this view and all that it includes.
    #[must_use]
    pub fn showing(sources: &[Source], most: View) -> Self {
        let views = [false, true]
            .into_iter()
            .flat_map(|children| [false, true].map(|archived| View { children, archived }));
        let seen = |view| ViewCount {
            view,
            revision: 0,
            shown: 0,
        };
        Self {
            views: views
                .filter(|view| most.includes(*view))
                .map(seen)
                .collect(),
            changes: 0,
            sources: sources.iter().map(SourceState::new).collect(),
        }
    }

    /// From now on these are the sources. What is known of one that was among them
    /// before stays, also under another name or at another place.
    pub fn set_sources(&mut self, sources: &[Source]) {
        let before: Vec<_> = self
            .views
            .iter()
            .map(|seen| self.sessions(seen.view))
            .collect();
        let mut old = std::mem::take(&mut self.sources);
        let kept = sources.iter().map(|source| {
            let identity = source.identity();
            let is_it = |known: &SourceState| known.identity() == identity;
            // Two sources can lead to one database: each keeps what is known of it.
            let is_anothers = |known: &SourceState| {
                let mut others = sources.iter().filter(|other| other.name != source.name);
                others.any(|other| {
                    other.name == *known.name() && other.identity() == known.identity()
                })
            };
            match old
                .iter()
                .position(|known| is_it(known) && !is_anothers(known))
            {
                Some(at) => old.swap_remove(at).rename(source),
                None => SourceState::new(source),
            }
        });
        self.sources = kept.collect();
        self.changes += 1;
        let after: Vec<_> = self
            .views
            .iter()
            .map(|seen| self.sessions(seen.view))
            .collect();
        for (seen, (before, after)) in self.views.iter_mut().zip(before.iter().zip(&after)) {
            seen.revision += u64::from(before != after);
            seen.shown = after.len();
        }
    }

    /// Grows with every change of a root that is not archived.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision_of(View::default())
    }

    /// Grows with every change of a session that this view shows; 0 for one that is not
    /// kept.
    #[must_use]
    pub fn revision_of(&self, view: View) -> u64 {
        self.seen(view).map_or(0, |seen| seen.revision)
    }

    fn seen(&self, view: View) -> Option<&ViewCount> {
        self.views.iter().find(|seen| seen.view == view)
    }

    /// Grows with everything that a snapshot holds, also with what is not shown.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How many roots there are that are not archived.
    #[must_use]
    pub fn shown_count(&self) -> usize {
        self.seen(View::default()).map_or(0, |seen| seen.shown)
    }

    /// All sources, in the order in which they were named.
    pub fn sources(&self) -> impl Iterator<Item = &SourceState> {
        self.sources.iter()
    }

    /// One source.
    #[must_use]
    pub fn source(&self, name: &SourceName) -> Option<&SourceState> {
        self.sources.iter().find(|state| state.name() == name)
    }

    fn at(&self, name: &SourceName) -> Option<usize> {
        self.sources.iter().position(|state| state.name() == name)
    }

    /// All sessions that this view shows, each once, by id.
    #[must_use]
    pub fn sessions(&self, view: View) -> Vec<Sourced<Row>> {
        let rows = self.sources.iter().enumerate().flat_map(|(at, state)| {
            let rows = state.rows.iter();
            rows.map(move |(id, row)| (id, Candidate { at, row }))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|(id, _)| *id);
        let each = rows.chunk_by(|(one, _), (other, _)| one == other);
        each.filter_map(|of_one| {
            let candidates = of_one.iter().map(|(_, candidate)| *candidate);
            self.shown(candidates, view)
        })
        .collect()
    }

    /// This session, as this view shows it.
    #[must_use]
    pub fn session(&self, id: &SessionId, view: View) -> Option<Sourced<Row>> {
        self.shown(self.candidates(id), view)
    }

    fn candidates<'a>(&'a self, id: &'a SessionId) -> impl Iterator<Item = Candidate<'a>> + Clone {
        let sources = self.sources.iter().enumerate();
        sources.filter_map(|(at, state)| {
            let row = state.rows.get(id)?;
            Some(Candidate { at, row })
        })
    }

    /// What is shown of one session, whose rows these are, in the order of the sources.
    /// Whether it is archived, too, is for the newest row to say: another source can be a
    /// copy from before.
    fn shown<'a>(
        &self,
        candidates: impl Iterator<Item = Candidate<'a>> + Clone,
        view: View,
    ) -> Option<Sourced<Row>> {
        // Of equals the last is taken: the first source.
        let newest = candidates.clone().max_by_key(|Candidate { at, row }| {
            (row.is_credible(), row.updated(), std::cmp::Reverse(*at))
        })?;
        if !view.shows(newest.row) {
            return None;
        }
        let name = |at: usize| self.sources[at].name().clone();
        let others = candidates.filter(|candidate| candidate.at != newest.at);
        Some(Sourced {
            entry: newest.row.clone(),
            source: name(newest.at),
            also: others.map(|candidate| name(candidate.at)).collect(),
        })
    }

    /// Takes over the rows that were known before a restart of the source with this identity.
    /// A source that
    /// has sessions is stale until its first listing.
    pub fn restore(&mut self, identity: &str, rows: Vec<Row>, now: Millis) {
        let mut sources = self.sources.iter_mut();
        let state = sources.find(|state| state.identity() == identity);
        let Some(state) = state.filter(|_| !rows.is_empty()) else {
            return;
        };
        state.restore(rows, now);
        self.changes += 1;
        let shown: Vec<_> = self
            .views
            .iter()
            .map(|view| self.sessions(view.view).len())
            .collect();
        for (view, shown) in self.views.iter_mut().zip(shown) {
            view.revision += 1;
            view.shown = shown;
        }
    }

    /// Takes a complete listing.
    pub fn merge(&mut self, name: &SourceName, listed: Listed, now: Moment) -> Merged {
        let Some(at) = self.at(name) else {
            return Merged::default();
        };
        let (merged, changed_rows) = self.sources[at].merge(listed, now);
        self.changes += u64::from(!changed_rows.is_empty());
        let views = self.views.iter().map(|seen| seen.view);
        let differences = views.map(|view| (view, self.difference(at, &changed_rows, view)));
        let mut differences: Vec<_> = differences.collect();
        for (seen, (_, difference)) in self.views.iter_mut().zip(&differences) {
            seen.revision += u64::from(!difference.is_empty());
            seen.shown += difference.inserted.len();
            seen.shown -= difference.removed.len();
        }
        differences.retain(|(_, difference)| !difference.is_empty());
        let usual = differences
            .iter()
            .position(|(view, _)| *view == View::default());
        let difference = usual.map(|at| differences.remove(at).1);
        Merged {
            difference: difference.unwrap_or_default(),
            others: differences,
            ..merged
        }
    }

    /// What changed of what is shown, where these rows of one source were so before.
    fn difference(&self, at: usize, changed_rows: &ChangedRows, view: View) -> Difference {
        let mut difference = Difference::default();
        for (id, old) in changed_rows {
            let after = self.session(id, view);
            let others = self.candidates(id).filter(|other| other.at != at);
            let old = old.as_ref().map(|row| Candidate { at, row });
            let mut candidates: Vec<_> = others.chain(old).collect();
            candidates.sort_by_key(|candidate| candidate.at);
            let before = self.shown(candidates.into_iter(), view);
            match (before, after) {
                (None, Some(_)) => difference.inserted.push(id.clone()),
                (Some(_), None) => difference.removed.push(id.clone()),
                (before, after) if before != after => difference.updated.push(id.clone()),
                _ => {}
            }
        }
        difference
    }

    /// The sessions of this source are of a listing that began then.
    pub fn set_as_of(&mut self, name: &SourceName, began: Millis) {
        if let Some(at) = self.at(name) {
            self.sources[at].set_as_of(began);
        }
    }

    /// Takes a failed listing. True where the source's health is another now, or
    /// of another kind.
    pub fn fail(
        &mut self,
        name: &SourceName,
        kind: &'static str,
        reason: &str,
        next_try: Option<Millis>,
        now: Moment,
    ) -> bool {
        let Some(at) = self.at(name) else {
            return false;
        };
        self.sources[at].fail(kind, reason, next_try, now)
    }
}

/// A row of the source at this place.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    at: usize,
    row: &'a Row,
}
