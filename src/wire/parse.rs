//! Reading one line: one JSON object, from the line's first byte to its last.
//!
//! serde_json alone accepts blanks around a value, and a carriage return for one.

use serde::de::DeserializeOwned;

/// Why a line is not a valid object of its type.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// It does not begin with an object.
    #[error("it is not an object")]
    NotAnObject,
    /// What is in it is not valid.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is valid but for the carriage return at its end: a terminal adds one.
    #[error(
        "its line end is CR LF, not LF (is a terminal in between, as with ssh -t or docker exec -t?)"
    )]
    CarriageReturn,
    /// It is valid but for blanks around it.
    #[error("it has blanks before or after its object")]
    Blanks,
}

/// Parses a line, given without its line end.
pub(super) fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, LineError> {
    let object = line.trim_ascii();
    // A derive reads an array of a type's values for the type.
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
