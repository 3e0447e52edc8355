//! The names of tests: subject, condition, result. The story is in a comment.

use std::path::PathBuf;

use crate::files::{rust_files, text_of};
use crate::support;

/// Characters.
const LONGEST: usize = 60;

/// Every test of these folders, with the file that it is in.
fn tests(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut tests = Vec::new();
    for file in folders.iter().flat_map(|folder| rust_files(folder)) {
        let text = text_of(&file);
        let mut lines = text.lines().map(str::trim_start);
        while lines.any(|line| line.starts_with("#[test]")) {
            let name = lines
                .find_map(|line| line.strip_prefix("fn "))
                .and_then(|line| line.split('(').next())
                .unwrap();
            tests.push((file.clone(), name.to_owned()));
        }
    }
    tests
}

#[test]
fn no_test_name_is_too_long() {
    let _limit = support::limit(30);
    let tests = tests(&["src", "tests"]);
    assert!(tests.len() > 600, "only {} were found", tests.len());
    let long: Vec<_> = tests
        .iter()
        .filter(|(_, name)| name.chars().count() > LONGEST)
        .map(|(file, name)| format!("{}: {name}", file.display()))
        .collect();
    assert!(
        long.is_empty(),
        "longer than {LONGEST} characters:\n{}",
        long.join("\n")
    );
}
