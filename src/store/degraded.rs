//! The optional parts of a listing that could not be read. They never fail it: a part
//! is null where it cannot be read, and named once with the first reason.

use std::fmt::Display;

use crate::text::cut;
use crate::wire::{Degraded, OptionalPart, limits};

/// What could not be read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DegradedParts(Vec<Degraded>);

impl DegradedParts {
    /// Notes that a part cannot be read, for this reason.
    pub fn note(&mut self, what: OptionalPart, reason: &impl Display) {
        if self.0.iter().all(|known| known.what != what) {
            let reason = reason.to_string();
            self.0.push(Degraded {
                what,
                reason: cut(&reason, limits::TEXT).to_owned(),
            });
        }
    }

    /// The value, or nothing and a note.
    pub(super) fn accept<T, E: Display>(
        &mut self,
        what: OptionalPart,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.note(what, &error)).ok()
    }

    /// All of them, as the wire carries them.
    #[must_use]
    pub fn into_vec(self) -> Vec<Degraded> {
        self.0
    }
}
