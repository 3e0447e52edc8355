//! Values of cells in the form that the wire carries.

use rusqlite::types::ValueRef;

use crate::session::{Millis, SessionId};
use crate::text::cut;
use crate::wire::limits;

/// Converts a stored time. REAL values are rounded down and clamped to the range.
pub(super) fn to_millis(value: ValueRef<'_>) -> Option<Millis> {
    to_integer(value).map(Millis)
}

pub(super) fn to_integer(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(value) => Some(value),
        #[expect(clippy::cast_possible_truncation, reason = "`as` clamps to the range")]
        ValueRef::Real(value) => Some(value.floor() as i64),
        _ => None,
    }
}

/// Reads a session id. Only a TEXT is an id; a number or a BLOB is not the id of an OpenCode
/// session.
pub(super) fn parse_id(value: ValueRef<'_>) -> Option<&str> {
    let ValueRef::Text(bytes) = value else {
        return None;
    };
    let id = std::str::from_utf8(bytes).ok()?;
    SessionId::check(id).ok().map(|()| id)
}

/// Converts texts to the form that the wire carries: UTF-8, at most 4 KiB.
#[derive(Debug, Default)]
pub(super) struct TextTruncator {
    /// How many texts were truncated.
    pub(super) count: u64,
}

impl TextTruncator {
    pub(super) fn truncate(&mut self, bytes: &[u8]) -> String {
        // Replacing invalid bytes makes a text longer, so it is truncated before and
        // after.
        let start = &bytes[..bytes.len().min(limits::TEXT + 4)];
        let text = String::from_utf8_lossy(start);
        let cut = cut(&text, limits::TEXT);
        self.count += u64::from(start.len() < bytes.len() || cut.len() < text.len());
        cut.to_owned()
    }
}
