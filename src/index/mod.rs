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
//! * The revision grows by one with every change of a session, and with nothing
//!   else.

mod health;
pub mod snapshot;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::output::Entry;
use crate::packed::{Packed, PackedList};
use crate::session::{Millis, SessionId};
use crate::source::{Source, SourceName};
use crate::wire::DatabaseState;

pub use health::{Failing, Health};

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
    revision: u64,
    sources: BTreeMap<SourceName, Known>,
}

/// One source and its sessions.
#[derive(Debug, Clone)]
pub struct Known {
    path: PathBuf,
    health: Health,
    sessions: BTreeMap<SessionId, Packed<Entry>>,
    /// When it was first seen without its sessions, on the monotonic clock.
    gone_since: Option<Duration>,
}

/// What was found at a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The state of the database.
    pub database: DatabaseState,
    /// Its sessions, each id once.
    pub entries: PackedList<Entry>,
}

/// What a listing changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Sessions that are new.
    pub inserted: Vec<SessionId>,
    /// Sessions that are not as they were.
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
    /// What it changed.
    pub difference: Difference,
    /// The source has another health.
    pub health_changed: bool,
    /// What it said is not final: list again in about a second.
    pub again: Option<Again>,
}

/// Why a listing is to be repeated soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// The sessions seem to be gone, which waits for confirmation.
    Unconfirmed,
    /// The database is just being made or restored.
    Young,
}

impl Index {
    /// An index of these sources, of which nothing is known.
    #[must_use]
    pub fn new(sources: &[Source]) -> Self {
        let mut index = Self::default();
        for source in sources {
            let known = Known {
                path: source.path.clone(),
                health: Health::Starting,
                sessions: BTreeMap::new(),
                gone_since: None,
            };
            index.sources.insert(source.name.clone(), known);
        }
        index
    }

    /// Grows with every change of a session.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All sources, by name.
    pub fn sources(&self) -> impl Iterator<Item = (&SourceName, &Known)> {
        self.sources.iter()
    }

    /// One source.
    #[must_use]
    pub fn source(&self, name: &SourceName) -> Option<&Known> {
        self.sources.get(name)
    }

    /// Takes over what was known before a restart. Sources that have sessions
    /// are stale until their first listing.
    pub fn restore(&mut self, name: &SourceName, entries: Vec<Packed<Entry>>) {
        let Some(known) = self.sources.get_mut(name).filter(|_| !entries.is_empty()) else {
            return;
        };
        known.health = Health::Stale;
        known.sessions = entries
            .into_iter()
            .map(|entry| (entry.unpack().session.id, entry))
            .collect();
        self.revision += 1;
    }

    /// Takes a complete listing.
    pub fn merge(&mut self, name: &SourceName, found: Found, now: Moment) -> Merged {
        let Some(known) = self.sources.get_mut(name) else {
            return Merged::default();
        };
        let merged = known.merge(found, now.monotonic);
        if !merged.difference.is_empty() {
            self.revision += 1;
        }
        merged
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
        let Some(known) = self.sources.get_mut(name) else {
            return false;
        };
        // What was seen before it does not confirm what is seen after it.
        known.gone_since = None;
        known.health.fail(kind, reason, next_try, now.wall)
    }
}

impl Known {
    /// The database's path.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Its health.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Its sessions, by id.
    #[must_use]
    pub fn sessions(&self) -> &BTreeMap<SessionId, Packed<Entry>> {
        &self.sessions
    }

    fn merge(&mut self, found: Found, now: Duration) -> Merged {
        let health = match found.database {
            DatabaseState::Young => {
                self.gone_since = None;
                return self.young();
            }
            DatabaseState::Ready => Health::Ok,
            DatabaseState::Missing => Health::Missing,
            DatabaseState::Empty => Health::Empty,
        };
        if health != Health::Ok && !self.sessions.is_empty() {
            let since = *self.gone_since.get_or_insert(now);
            if now.saturating_sub(since) < CONFIRM {
                return Merged {
                    again: Some(Again::Unconfirmed),
                    ..Merged::default()
                };
            }
        }
        self.gone_since = None;
        let difference = self.take(found.entries);
        Merged {
            difference,
            health_changed: self.become_(health),
            again: None,
        }
    }

    /// Says nothing about which sessions exist, and ends a failure all the same.
    fn young(&mut self) -> Merged {
        let health_changed = matches!(self.health, Health::Failing(_))
            && self.become_(if self.sessions.is_empty() {
                Health::Starting
            } else {
                Health::Stale
            });
        Merged {
            health_changed,
            again: Some(Again::Young),
            ..Merged::default()
        }
    }

    fn become_(&mut self, health: Health) -> bool {
        let changed = self.health != health;
        self.health = health;
        changed
    }

    fn take(&mut self, entries: PackedList<Entry>) -> Difference {
        let mut difference = Difference::default();
        let mut old = std::mem::take(&mut self.sessions);
        for mut entry in entries.into_values() {
            let id = entry.session.id.clone();
            let known = old.remove(&id);
            if entry.session.marked.is_none() {
                let known = known.as_ref().map(Packed::unpack);
                entry.session.marked = known.and_then(|known| known.session.marked);
            }
            let entry = Packed::new(&entry);
            let entry = match known {
                // What is the same stays the same piece of memory.
                Some(known) if known == entry => known,
                Some(_) => {
                    difference.updated.push(id.clone());
                    entry
                }
                None => {
                    difference.inserted.push(id.clone());
                    entry
                }
            };
            self.sessions.insert(id, entry);
        }
        difference.removed = old.into_keys().collect();
        difference
    }
}
