//! The health of a source.

use serde::Serialize;

use crate::session::Millis;

/// The health of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Health {
    /// Nothing is known yet.
    Starting,
    /// The last listing was complete.
    Ok,
    /// The sessions are from before the restart; no listing has been complete yet.
    Stale,
    /// Listings fail. The known sessions are kept.
    Failing(Failing),
    /// The database does not exist.
    Missing,
    /// The database has no session tables.
    Empty,
}

/// Since when and why listings fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Failing {
    /// When the first listing failed.
    pub since: Millis,
    /// The kind of the last failure, in one word.
    pub kind: &'static str,
    /// Why the last listing failed, for people.
    pub reason: String,
    /// How many listings have failed since then.
    pub attempts: u32,
    /// When the next listing is due.
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
    /// Records a failure. Returns true if it is the first or of another kind. The reason is not
    /// compared, since it can contain numbers that differ each time.
    pub(super) fn fail(
        &mut self,
        kind: &'static str,
        reason: &str,
        next_try: Option<Millis>,
        now: Millis,
    ) -> bool {
        let (since, attempts, last_kind) = match self {
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
        last_kind != Some(kind)
    }

    /// Returns the name of the state, as in the events.
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
