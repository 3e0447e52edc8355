//! What a listing without a service says.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::{self, key, list};

/// What `list --no-service` prints of this database.
pub(crate) fn listed(db: &Path, args: &[&str]) -> Vec<u8> {
    let output = support::command(support::sessions())
        .args(["list", "--no-service", "--db"])
        .arg(db)
        .args(args)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output.stdout
}

/// The sessions of this database as the events of its only source have them.
pub(crate) fn expected(db: &Path) -> BTreeMap<String, Value> {
    let listed: Value = serde_json::from_slice(&listed(db, &["--format", "json"])).unwrap();
    list(&listed)
        .iter()
        .map(|session| (key(session), session.clone()))
        .collect()
}
