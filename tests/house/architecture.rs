//! The rooms of `src` and the ways between them: what must never import what. An exception that
//! is not needed any more fails, too.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, sources};
use crate::support;

/// No room that runs in the main process.
const MAIN_PROCESS: &[&str] = &["launch", "lister", "query", "index", "service", "cli"];

/// Who must not name what: a room of this crate, or a path of another one.
const NEVER: &[(&str, &[&str])] = &[
    // Only the helper reads databases. Without the feature `in-process` the compiler holds
    // that, too.
    ("store", MAIN_PROCESS),
    ("store", &["crate::helper", "crate::output"]),
    ("marker", MAIN_PROCESS),
    ("marker", &["crate::helper", "crate::output"]),
    (
        "launch",
        &["crate::store", "crate::marker", "crate::helper", "rusqlite"],
    ),
    (
        "lister",
        &["crate::store", "crate::marker", "crate::helper", "rusqlite"],
    ),
    (
        "query",
        &["crate::store", "crate::marker", "crate::helper", "rusqlite"],
    ),
    (
        "index",
        &["crate::store", "crate::marker", "crate::helper", "rusqlite"],
    ),
    (
        "service",
        &["crate::store", "crate::marker", "crate::helper", "rusqlite"],
    ),
    (
        "output",
        &["crate::store", "crate::marker", "crate::helper", "rusqlite"],
    ),
    // Data goes one way: lister, query, index, service, cli.
    ("launch", &["query", "index", "service", "cli"]),
    ("lister", &["launch", "query", "index", "service", "cli"]),
    ("query", &["launch", "service", "cli"]),
    ("index", &["launch", "lister", "query", "service", "cli"]),
    ("service", &["launch", "cli", "output"]),
    ("helper", &["launch", "query", "index", "service", "cli"]),
    // Pure: no process, no file, no clock.
    ("wire", PURE),
    ("wire", MAIN_PROCESS),
    ("index", PURE),
    ("codec", &["std::fs", "std::process", "rustix", "libc"]),
    ("json", PURE),
    ("entry", PURE),
    ("session", &["std::fs", "std::process", "rustix", "libc"]),
];

const PURE: &[&str] = &[
    "std::fs",
    "std::process::Command",
    "std::thread",
    "rusqlite",
    "rustix",
    "libc",
    "std::time::Instant::now",
    "Instant::now",
    "SystemTime::now",
    "Millis::now",
    "crate::files",
    "crate::dirs",
];

/// The only files that may name this: one owner for each thing.
const OWNERS: &[(&str, &[&str])] = &[
    // Spawning, bounding, killing.
    (
        "std::process::Command",
        &["launch/guard.rs", "launch/process.rs"],
    ),
    ("wait_timeout", &["launch/guard.rs"]),
    // A connection is opened in one place.
    ("Connection::open_with_flags", &["store/connect.rs"]),
    // Replacing a file.
    ("fs::rename", &["files.rs"]),
    ("tempfile", &["files.rs"]),
    // How people and programs see sessions.
    ("crate::output", &["cli/", "helper/pretty.rs", "output/"]),
    (
        "bincode",
        &[
            "codec.rs",
            "index/snapshot.rs",
            "marker/cache.rs",
            "marker/cache_key.rs",
            "stamp.rs",
            "store/known_schema.rs",
            "store/log.rs",
            "store/schema.rs",
            "store/stamp.rs",
        ],
    ),
    ("clap", &["cli/"]),
    ("toml", &["config.rs", "config/document.rs"]),
    ("sd_notify", &["cli/"]),
    ("signal_hook", &["cli/"]),
    ("tracing_subscriber", &["cli/"]),
    ("anstream", &["cli/usage.rs", "output/mod.rs"]),
];

fn names(path: &str, what: &str) -> bool {
    let what = match what.contains("::") || !MAIN_PROCESS.contains(&what) {
        true => what.to_owned(),
        false => format!("crate::{what}"),
    };
    let rest = path.strip_prefix(&what);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        || path.ends_with(&format!("::{what}"))
}

#[test]
fn no_room_names_what_it_must_not() {
    let _limit = support::limit(60);
    let sources = sources();
    for (room, forbidden) in NEVER {
        let of_room: Vec<_> = sources.iter().filter(|one| one.room() == *room).collect();
        assert!(!of_room.is_empty(), "there is no room {room}");
        for source in of_room {
            for path in source.paths() {
                let found = forbidden.iter().find(|what| names(&path, what));
                assert_eq!(found, None, "{} names {path}", source.file.display());
            }
        }
    }
}

#[test]
fn every_thing_has_its_owners_and_no_others() {
    let _limit = support::limit(60);
    let sources = sources();
    for (what, owners) in OWNERS {
        let mut needed = BTreeSet::new();
        for source in &sources {
            let file = source.file.to_str().unwrap();
            if let Some(path) = source.paths().into_iter().find(|path| names(path, what)) {
                let owner = owners.iter().find(|owner| file.starts_with(**owner));
                assert!(owner.is_some(), "{file} names {path}");
                needed.extend(owner);
            }
        }
        let all: BTreeSet<_> = owners.iter().collect();
        assert_eq!(needed, all, "owners of {what} that do not name it");
    }
}

/// Which files lead to which, by the names of their modules.
fn edges<'a>(
    sources: impl Iterator<Item = &'a Source> + Clone,
    node: impl Fn(&[&str]) -> Option<String>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let module: Vec<_> = source.module.iter().map(String::as_str).collect();
        let Some(from) = node(&module) else { continue };
        for path in source.paths() {
            let Some(path) = path.strip_prefix("crate::") else {
                continue;
            };
            let to: Vec<_> = path.split("::").collect();
            if let Some(to) = node(&to).filter(|to| *to != from) {
                edges.entry(from.clone()).or_default().insert(to);
            }
        }
    }
    edges
}

/// A way that ends where it began.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        at: &str,
        edges: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|one| one == at) {
            return Some(way[start..].to_vec());
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        way.push(at.to_owned());
        for to in edges.get(at).into_iter().flatten() {
            if let Some(circle) = walk(to, edges, way, done) {
                return Some(circle);
            }
        }
        way.pop();
        None
    }
    let mut done = BTreeSet::new();
    edges
        .keys()
        .find_map(|from| walk(from, edges, &mut Vec::new(), &mut done))
}

#[test]
fn rooms_form_no_circle() {
    let _limit = support::limit(60);
    let sources = sources();
    let rooms: BTreeSet<_> = sources.iter().map(Source::room).collect();
    let room = |module: &[&str]| {
        let first = *module.first()?;
        rooms.contains(first).then(|| first.to_owned())
    };
    // The root re-exports; the guide has no code.
    let inner = sources.iter().filter(|source| !source.module.is_empty());
    let edges = edges(inner, room);
    assert!(edges.len() > 15, "only {} rooms lead anywhere", edges.len());
    assert_eq!(circle(&edges), None);
}

#[test]
fn files_of_a_room_form_no_circle() {
    let _limit = support::limit(60);
    let sources = sources();
    for room in [
        "cli", "service", "index", "wire", "launch", "lister", "query", "helper", "marker", "store",
    ] {
        let files: BTreeSet<_> = sources
            .iter()
            .filter(|source| source.room() == room && source.module.len() > 1)
            .map(|source| source.module[1].clone())
            .collect();
        let file = |module: &[&str]| {
            let [of, file, ..] = module else { return None };
            (*of == room && files.contains(*file)).then(|| (*file).to_owned())
        };
        assert_eq!(circle(&edges(sources.iter(), file)), None, "in {room}");
    }
}

#[test]
fn main_process_reaches_sqlite_by_no_feature() {
    let _limit = support::limit(30);
    let manifest = crate::files::text_of("Cargo.toml".as_ref());
    assert!(manifest.contains("in-process = [\"dep:rusqlite\"]"));
    let lib = crate::files::text_of("src/lib.rs".as_ref());
    for room in ["store", "marker", "helper"] {
        let gated = format!("#[cfg(feature = \"in-process\")]\nmod {room};");
        assert!(lib.contains(&gated), "{room}");
    }
}
