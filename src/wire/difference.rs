//! The checks of a difference (protocol 2), by its caller.
//!
//! A difference counts only if it leads from the rows that the caller has to exactly the sessions
//! that the helper read: each line is new or differs, each `gone` session is one that the caller
//! has, the counts add up, and the hash of the resulting set is the one of the `end`. Anything
//! else is a [`Violation`], and the caller asks for everything.

use std::collections::{HashMap, HashSet};

use super::violation::invalid;
use super::{DifferenceCounts, Known, Violation};
use crate::line_hash::{LineHash, SetHash};
use crate::row::Row;
use crate::session::SessionId;

/// How a listing differs from the rows that the caller has, besides the rows that were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListingDifference {
    /// The sessions that are gone, ordered by id.
    pub gone: Vec<SessionId>,
    /// The hash of the set of all sessions' lines.
    pub set: SetHash,
    /// The generation of the rows that this is the difference to; see [`Known::generation`].
    pub generation: u64,
}

/// The part of a difference that has arrived.
#[derive(Debug)]
pub(super) struct DifferenceContent {
    known: Known,
    /// The known ids by their hashes, made when the first session is gone.
    ids: Option<HashMap<LineHash, SessionId>>,
    gone: HashSet<SessionId>,
    /// How many of the sent sessions are known ones.
    replaced: usize,
    /// The hash of the set that results from what has arrived.
    set: SetHash,
    sent: usize,
    want: Want,
}

/// Whether the set must be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// It follows the request line.
    Sent,
    /// The helper has not asked for it.
    Possible,
    /// The helper asks for it.
    Asked,
}

impl DifferenceContent {
    /// Returns `None` if `known` cannot be announced: see [`Known::have`].
    pub(super) fn new(known: Known) -> Option<Self> {
        let have = known.have()?;
        Some(Self {
            known,
            ids: None,
            gone: HashSet::new(),
            replaced: 0,
            set: have.set,
            sent: 0,
            want: match have.follows {
                true => Want::Sent,
                false => Want::Possible,
            },
        })
    }

    /// Takes a session that was sent in line number `at`.
    pub(super) fn session(&mut self, row: &Row, at: usize) -> Result<(), Violation> {
        self.begin();
        let Some(line) = row.line_hash() else {
            return Err(invalid(at, "its hash is unknown"));
        };
        if let Some(known) = self.known.rows.get(row.id()) {
            let known_line = known.line_hash();
            if known_line == Some(line) {
                return Err(invalid(at, "the caller has this line"));
            }
            self.replaced += 1;
            self.set = known_line.map_or(self.set, |line| self.set.without(line));
        }
        if self.gone.contains(row.id()) {
            return Err(invalid(at, "its session is also gone"));
        }
        self.set = self.set.with(line);
        self.sent += 1;
        Ok(())
    }

    /// Takes a session that is gone; `is_sent` returns true for a session that was sent.
    pub(super) fn gone(
        &mut self,
        session: LineHash,
        is_sent: impl Fn(&SessionId) -> bool,
        at: usize,
    ) -> Result<(), Violation> {
        self.begin();
        let known = &self.known;
        let ids = self.ids.get_or_insert_with(|| {
            let hash = |id: &SessionId| known.key.hash(id.as_str().as_bytes());
            let ids = known.rows.keys().map(|id| (hash(id), id.clone()));
            ids.collect()
        });
        let Some(id) = ids.get(&session) else {
            return Err(invalid(
                at,
                "a session is gone that the caller does not have",
            ));
        };
        if is_sent(id) {
            return Err(invalid(at, "a session is gone that was sent"));
        }
        if !self.gone.insert(id.clone()) {
            return Err(invalid(at, "a session is gone twice"));
        }
        let line = known.rows.get(id).and_then(Row::line_hash);
        self.set = line.map_or(self.set, |line| self.set.without(line));
        Ok(())
    }

    /// Takes a `want`.
    pub(super) fn want(&mut self, at: usize) -> Result<(), Violation> {
        match self.want {
            Want::Possible => {
                self.want = Want::Asked;
                Ok(())
            }
            Want::Sent | Want::Asked => {
                Err(invalid(at, "the set was sent already, or is too late"))
            }
        }
    }

    /// Returns the set, once after the helper has asked for it.
    pub(super) fn take_wanted(&mut self) -> Option<Vec<u8>> {
        (self.want == Want::Asked).then(|| {
            self.want = Want::Sent;
            self.known.set_bytes()
        })
    }

    /// Checks the counts of the `end`, which says that there are `sessions` in all.
    pub(super) fn end(
        &self,
        counts: DifferenceCounts,
        sessions: u64,
        at: usize,
    ) -> Result<(), Violation> {
        let kept = self.known.rows.len() - self.gone.len() - self.replaced;
        let expected = [
            (counts.sent, self.sent as u64, "sent"),
            (counts.gone, self.gone.len() as u64, "gone"),
            (counts.same, kept as u64, "same"),
        ];
        for (said, got, what) in expected {
            if said != got {
                let why = format!("its difference counts {said} {what} sessions, not {got}");
                return Err(invalid(at, &why));
            }
        }
        if counts.same.checked_add(counts.sent) != Some(sessions) {
            let got = counts.same.saturating_add(counts.sent);
            return Err(Violation::WrongCount {
                got,
                said: sessions,
            });
        }
        match counts.set == self.set {
            true => Ok(()),
            false => Err(invalid(at, "its set is not the one that results")),
        }
    }

    /// Returns true if neither a session was sent nor one is gone.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == 0 && self.gone.is_empty()
    }

    /// Returns the whole difference.
    pub(super) fn whole(self) -> ListingDifference {
        let mut gone: Vec<_> = self.gone.into_iter().collect();
        gone.sort();
        ListingDifference {
            gone,
            set: self.set,
            generation: self.known.generation,
        }
    }

    /// The set can be asked for only before the first session.
    fn begin(&mut self) {
        self.want = Want::Sent;
    }
}
