//! The marker: a text that identifies a session as another tool's subagent.

use serde::{Deserialize, Serialize};

/// The text of a marker: 16 to 200 characters of printable ASCII.
///
/// SQL's `LIKE` defines which sessions are marked. For other texts it matches byte sequences
/// that are not valid text. A shorter text would occur in ordinary sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MarkerText(String);

/// Why a text cannot be a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMarker {
    /// The text has a character outside U+0020 to U+007E.
    #[error("invalid marker: expected printable ASCII characters only")]
    NotPrintableAscii,
    /// The text is too short or too long. Holds its length in characters.
    #[error(
        "invalid marker: expected {min} to {max} characters, got {0}",
        min = MarkerText::MIN, max = MarkerText::MAX
    )]
    Length(usize),
}

impl MarkerText {
    /// The minimum length in characters.
    pub const MIN: usize = 16;
    /// The maximum length in characters.
    pub const MAX: usize = 200;
    /// The text that Freshell writes into the sessions of its 3-views.
    pub const DEFAULT: &str = "<freshell-session-metadata origin=3-views";

    /// Creates a marker from `text`.
    ///
    /// # Errors
    ///
    /// Returns an error if `text` is not printable ASCII, too short or too long.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidMarker> {
        let text = text.into();
        if !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            Err(InvalidMarker::NotPrintableAscii)
        } else if !(Self::MIN..=Self::MAX).contains(&text.len()) {
            Err(InvalidMarker::Length(text.len()))
        } else {
            Ok(Self(text))
        }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for MarkerText {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl TryFrom<String> for MarkerText {
    type Error = InvalidMarker;

    fn try_from(text: String) -> Result<Self, InvalidMarker> {
        Self::new(text)
    }
}

impl std::str::FromStr for MarkerText {
    type Err = InvalidMarker;

    fn from_str(text: &str) -> Result<Self, InvalidMarker> {
        Self::new(text)
    }
}

impl From<MarkerText> for String {
    fn from(marker: MarkerText) -> Self {
        marker.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marker_has_16_to_200_printable_ascii_characters() {
        assert_eq!(
            MarkerText::new(MarkerText::DEFAULT),
            Ok(MarkerText::default())
        );
        assert!(MarkerText::new("x".repeat(16)).is_ok());
        assert!(MarkerText::new("x".repeat(200)).is_ok());
        assert_eq!(
            MarkerText::new("x".repeat(15)),
            Err(InvalidMarker::Length(15))
        );
        assert_eq!(
            MarkerText::new("x".repeat(201)),
            Err(InvalidMarker::Length(201))
        );
        for text in [
            "sixteen letters\n",
            "sixteen letters\u{7f}",
            "sixteen létters",
        ] {
            assert_eq!(MarkerText::new(text), Err(InvalidMarker::NotPrintableAscii));
        }
    }
}
