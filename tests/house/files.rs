//! The files of the project.

use std::fs;
use std::path::{Path, PathBuf};

/// The Rust files below this folder of the project, relative to the project, sorted.
pub(crate) fn rust_files(folder: &str) -> Vec<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut files) = (vec![project.join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(project).unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

/// The text of one of them.
pub(crate) fn text_of(file: &Path) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}
