//! The optional parts of a listing that could not be read. Such a failure does not fail
//! the listing: the part is null, and is reported once with the first reason.

use std::fmt::Display;

use crate::text::cut;
use crate::wire::{Degraded, OptionalPart, limits};

/// The optional parts that could not be read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DegradedParts(Vec<Degraded>);

impl DegradedParts {
    /// Records that a part cannot be read. Only the first reason for each part is kept.
    pub fn record(&mut self, part: OptionalPart, reason: &impl Display) {
        if self.0.iter().all(|recorded| recorded.what != part) {
            let reason = reason.to_string();
            self.0.push(Degraded {
                what: part,
                reason: cut(&reason, limits::TEXT).to_owned(),
            });
        }
    }

    /// Returns the value, or records the error and returns `None`.
    pub(super) fn ok_or_record<T, E: Display>(
        &mut self,
        part: OptionalPart,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.record(part, &error)).ok()
    }

    /// Returns all parts, in the form that the wire carries.
    #[must_use]
    pub fn into_vec(self) -> Vec<Degraded> {
        self.0
    }
}
