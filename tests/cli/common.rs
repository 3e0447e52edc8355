//! `opencode-sessions list` of one database, and what it prints.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::{command, sessions};

pub(crate) fn list(db: &Path, args: &[&str]) -> Output {
    command(sessions())
        .arg("list")
        .arg("--db")
        .arg(db)
        .args(args)
        .output()
        .unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn json(db: &Path, args: &[&str]) -> Vec<Value> {
    let output = list(db, &[args, &["--format", "json"]].concat());
    match serde_json::from_str(&stdout(&output)).unwrap() {
        Value::Array(sessions) => sessions,
        other => panic!("{other}"),
    }
}

pub(crate) fn texts(sessions: &[Value], field: &str) -> Vec<String> {
    sessions
        .iter()
        .map(|session| session[field].as_str().unwrap_or("null").to_owned())
        .collect()
}
