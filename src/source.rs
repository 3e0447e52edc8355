//! Where sessions come from: for now, databases.
//!
//! What a source *is* is its canonical path; what it is *called* is for people,
//! and distinct among the sources of one service.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text::escaped;

/// What a source is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: AsRef<str>> From<T> for SourceName {
    fn from(name: T) -> Self {
        Self(name.as_ref().into())
    }
}

impl From<SourceName> for String {
    fn from(name: SourceName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is called.
    pub name: SourceName,
    /// Its canonical path; what is not there yet is taken as written.
    pub path: PathBuf,
}

/// The sources of these databases: each once, called after its file, with as
/// much of its directory as tells them apart. A name is safe to show.
#[must_use]
pub fn sources_of(databases: &[PathBuf]) -> Vec<Source> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in databases {
        let path = canonical(path);
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
        .iter()
        .map(|path| {
            let alike = |name: &str| paths.iter().filter(|other| ends_in(other, name)).count();
            let name = endings(path).into_iter().find(|name| alike(name) == 1);
            let name = name.unwrap_or_else(|| path.to_string_lossy().into_owned());
            Source {
                name: escaped(&name).into(),
                path: path.clone(),
            }
        })
        .collect()
}

/// The ends of a path, shortest first: `c.db`, `b/c.db`, `/a/b/c.db`.
fn endings(path: &Path) -> Vec<String> {
    let parts: Vec<_> = path
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let mut endings: Vec<_> = (1..parts.len())
        .rev()
        .map(|from| parts[from..].join("/"))
        .collect();
    endings.push(path.to_string_lossy().into_owned());
    endings
}

fn ends_in(path: &Path, name: &str) -> bool {
    endings(path).iter().any(|ending| ending == name)
}

/// The canonical path, as far as it is there.
fn canonical(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_called_after_its_file_and_no_two_alike() {
        let names = |paths: &[&str]| {
            let paths: Vec<_> = paths.iter().map(PathBuf::from).collect();
            let sources = sources_of(&paths);
            sources
                .iter()
                .map(|source| source.name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&["/nowhere/a/opencode.db"]), ["opencode.db"]);
        assert_eq!(
            names(&[
                "/nowhere/a/opencode.db",
                "/nowhere/b/opencode.db",
                "/nowhere/b/x.db"
            ]),
            ["a/opencode.db", "b/opencode.db", "x.db"]
        );
        assert_eq!(names(&["/nowhere/a/x.db", "/nowhere/./a/x.db"]), ["x.db"]);
        assert_eq!(
            names(&["/x.db", "/nowhere/x.db"]),
            ["/x.db", "nowhere/x.db"]
        );
    }

    #[test]
    fn one_file_by_two_names_is_one_source() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("real")).unwrap();
        std::os::unix::fs::symlink(place.path().join("real"), place.path().join("link")).unwrap();
        let by = |name: &str| place.path().join(name).join("not yet.db");
        let sources = sources_of(&[by("real"), by("link")]);
        assert_eq!(sources.len(), 1);
        assert_eq!(
            sources[0].path,
            place.path().canonicalize().unwrap().join("real/not yet.db")
        );
    }
}
