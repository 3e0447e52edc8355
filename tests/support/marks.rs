//! The marks of listed sessions.

use std::collections::BTreeMap;

use serde_json::Value;

/// Each session's mark, by its id.
pub(crate) fn marks(sessions: &[Value]) -> BTreeMap<String, bool> {
    sessions
        .iter()
        .map(|session| {
            let id = session["id"].as_str().unwrap().to_owned();
            (id, session["marked"].as_bool().unwrap())
        })
        .collect()
}
