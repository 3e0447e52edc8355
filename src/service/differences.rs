//! Whether the listings of one source may ask for differences only, and whether a difference is
//! also searched for sessions that did not change but whose projects did.

use std::time::{Duration, Instant};

/// How often the projects of sessions are looked for that did not change.
const PROJECTS_INTERVAL: Duration = Duration::from_secs(15);

/// After this many invalid answers in a row, everything is asked for: another program stands for
/// the helper, or something on the way changes what it writes.
const MAX_REFUSED: u32 = 3;

/// What earlier listings of a source say about the next one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Differences {
    /// The helper of the last listing can send them.
    can_be_sent: bool,
    /// How many answers in a row broke a rule.
    refused: u32,
    /// When the projects of all sessions were last looked for.
    projects_found: Option<Instant>,
}

impl Differences {
    /// Returns true if the next listing may ask for differences.
    pub(super) fn are_possible(self) -> bool {
        self.can_be_sent && self.refused < MAX_REFUSED
    }

    /// Returns true if the listing that begins now must look for the projects of all sessions.
    pub(super) fn begin_with_projects(&mut self, is_refresh: bool) -> bool {
        let is_recent = |found: Instant| found.elapsed() < PROJECTS_INTERVAL;
        let are_due = is_refresh || !self.projects_found.is_some_and(is_recent);
        if are_due {
            self.projects_found = Some(Instant::now());
        }
        are_due
    }

    /// Records a complete listing by a helper that can send differences or not. `was_refused` is
    /// true if its difference broke a rule, so that another listing followed.
    pub(super) fn complete(&mut self, can_be_sent: bool, is_difference: bool, was_refused: bool) {
        self.can_be_sent = can_be_sent;
        match (was_refused, is_difference) {
            (true, _) => self.refused += 1,
            (false, true) => self.refused = 0,
            (false, false) => {}
        }
    }

    /// Records a failed listing: the next helper can be another one.
    pub(super) fn fail(&mut self) {
        self.can_be_sent = false;
    }
}
