//! How a source is doing.

use serde::Serialize;

use crate::session::Millis;

/// How a source is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Health {
    /// Nothing is known yet.
    Starting,
    /// The last listing was complete.
    Ok,
    /// The sessions are those of before the restart; no listing has been complete yet.
    Stale,
    /// Listings fail. What was known is kept.
    Failing(Failing),
    /// There is no database.
    Missing,
    /// The database has no session tables.
    Empty,
}

/// Since when and why listings fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Failing {
    /// When it began.
    pub since: Millis,
    /// What kind of failure it is, in one word.
    pub kind: &'static str,
    /// Why the last one failed, for people.
    pub reason: String,
    /// How many failed since then.
    pub attempts: u32,
    /// When the next one is due.
    pub next_try: Option<Millis>,
}

impl Failing {
    /// Returns a first failure.
    #[must_use]
    pub fn new(kind: &'static str, reason: impl Into<String>, since: Millis) -> Self {
        Self {
            since,
            kind,
            reason: reason.into(),
            attempts: 1,
            next_try: None,
        }
    }
}

impl Health {
    /// Takes a failure; true where that is news. The reason may tell of other
    /// numbers each time, which is none.
    pub(super) fn fail(
        &mut self,
        kind: &'static str,
        reason: &str,
        next_try: Option<Millis>,
        now: Millis,
    ) -> bool {
        let (since, attempts, known) = match self {
            Self::Failing(failing) => (failing.since, failing.attempts, Some(failing.kind)),
            _ => (now, 0, None),
        };
        *self = Self::Failing(Failing {
            since,
            kind,
            reason: reason.to_owned(),
            attempts: attempts.saturating_add(1),
            next_try,
        });
        known != Some(kind)
    }

    /// The state's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ok => "ok",
            Self::Stale => "stale",
            Self::Failing(_) => "failing",
            Self::Missing => "missing",
            Self::Empty => "empty",
        }
    }
}
