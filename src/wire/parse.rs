//! Parses one line: exactly one JSON object, from the first byte to the last.
//!
//! serde_json alone accepts white space around a value, including a carriage return.

use serde::de::DeserializeOwned;

/// Why a line is not a valid object of its type.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// The line does not begin with an object.
    #[error("expected a JSON object")]
    NotAnObject,
    /// The object is invalid.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The line is valid except for a carriage return at its end, as a terminal adds.
    #[error("ends in CR LF, not LF (is a terminal in between, as with ssh -t or docker exec -t?)")]
    CarriageReturn,
    /// The line is valid except for white space around the object.
    #[error("white space before or after the JSON object")]
    Blanks,
}

/// Parses a line without its line feed.
pub(super) fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, LineError> {
    let object = line.trim_ascii();
    // serde's derive would also accept an array of the fields' values.
    if object.first() != Some(&b'{') {
        return Err(LineError::NotAnObject);
    }
    let value = serde_json::from_slice(object)?;
    match line.strip_prefix(object) {
        Some(b"") => Ok(value),
        Some(b"\r") => Err(LineError::CarriageReturn),
        _ => Err(LineError::Blanks),
    }
}
