//! The text that marks a session as another tool's subagent.

use serde::{Deserialize, Serialize};

/// The text that marks a session: 16 to 200 characters of printable ASCII.
///
/// For other texts SQL's `LIKE`, which defines what marked means, matches byte
/// sequences that are no text. A shorter one would be found everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MarkerText(String);

/// Why a text cannot be a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMarker {
    /// It has a character outside U+0020 to U+007E.
    #[error("a marker is printable ASCII only")]
    NotPrintableAscii,
    /// It is shorter or longer than the limits.
    #[error(
        "a marker has {min} to {max} characters, not {0}",
        min = MarkerText::MIN, max = MarkerText::MAX
    )]
    Length(usize),
}

impl MarkerText {
    /// The fewest characters.
    pub const MIN: usize = 16;
    /// The most characters.
    pub const MAX: usize = 200;
    /// The text that Freshell writes into the sessions of its 3-views.
    pub const DEFAULT: &str = "<freshell-session-metadata origin=3-views";

    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// Where it is not printable ASCII, or too short or too long.
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

    /// The text.
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
    fn a_marker_is_16_to_200_printable_ascii_characters() {
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
