//! The rooms of `src` and the ways between them: what must never import what.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support;

/// Who must not reach whom, but for the one exception named.
const NEVER: [(&str, &[&str], Option<&str>); 13] = [
    // The main process cannot open a database by accident.
    (
        "lister",
        &["store", "marker", "helper", "rusqlite"],
        Some("lister/in_process.rs"),
    ),
    (
        "service",
        &["store", "marker", "helper", "cli", "rusqlite"],
        None,
    ),
    // Pure: no files and no processes.
    (
        "index",
        &[
            "store",
            "marker",
            "helper",
            "lister",
            "service",
            "cli",
            "file",
            "rusqlite",
            "rustix",
            "libc",
            "std::process",
            "std::fs",
        ],
        None,
    ),
    (
        "source.rs",
        &[
            "store", "marker", "helper", "lister", "service", "index", "rusqlite",
        ],
        None,
    ),
    (
        "config.rs",
        &[
            "store", "marker", "helper", "lister", "service", "index", "output", "cli", "rusqlite",
        ],
        None,
    ),
    (
        "gather",
        &["store", "marker", "helper", "service", "cli", "rusqlite"],
        None,
    ),
    (
        "output",
        &["store", "marker", "helper", "lister", "rusqlite"],
        None,
    ),
    (
        "project",
        &["store", "marker", "helper", "lister", "rusqlite"],
        None,
    ),
    (
        "store",
        &["lister", "helper", "output", "cli", "index", "service"],
        None,
    ),
    (
        "marker",
        &["lister", "helper", "output", "cli", "index", "service"],
        None,
    ),
    // Pure: no SQLite, no processes, no files.
    (
        "wire",
        &[
            "store",
            "marker",
            "lister",
            "helper",
            "output",
            "cli",
            "file",
            "rusqlite",
            "rustix",
            "libc",
            "std::process",
            "std::fs",
        ],
        None,
    ),
    ("codec.rs", PURE, None),
    ("packed.rs", PURE, None),
];

/// What serves every room and knows none.
const PURE: &[&str] = &[
    "store", "marker", "helper", "lister", "index", "service", "output", "cli", "session", "wire",
    "file", "rusqlite", "rustix", "libc", "std::fs",
];

fn sources(at: &Path) -> Vec<PathBuf> {
    if at.is_file() {
        return vec![at.to_owned()];
    }
    let entries = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| sources(&path)).collect()
}

#[test]
fn no_room_imports_what_it_must_not() {
    let _limit = support::limit(30);
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut read = 0;
    for (room, forbidden, exception) in NEVER {
        for path in sources(&src.join(room)) {
            read += 1;
            if exception.is_some_and(|exception| path.ends_with(exception)) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                for name in forbidden {
                    let reaches =
                        if name.contains("::") || ["rusqlite", "rustix", "libc"].contains(name) {
                            line.contains(&format!("{name}::"))
                        } else {
                            line.contains(&format!("crate::{name}"))
                        };
                    assert!(!reaches, "{}: {line}", path.display());
                }
            }
        }
    }
    assert!(read > 22, "only {read} files were read");
}
