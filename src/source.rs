//! Where sessions come from: databases of this machine, and commands that run the
//! helper on another.
//!
//! What a source *is* is the canonical path of its database, or the name that a
//! command was given; what it is *called* is for people, and distinct among the
//! sources of one service.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::locate::aliases;
use crate::session::Millis;
use crate::text::{DisplayPath, escaped_bytes};

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

/// One of several places where sessions are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is called.
    pub name: SourceName,
    /// Where it is.
    pub place: Place,
    /// The paths that were given for its database, absolute and unresolved: first the
    /// one that it is read by, then its other names. A link among them can be turned
    /// to another database later. Empty for a command.
    pub written: Vec<PathBuf>,
}

/// Where a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A database of this machine, by its canonical path; what is not there yet is
    /// taken as written.
    Database(PathBuf),
    /// Another machine, container or user.
    Remote(Remote),
}

/// How far another machine's clock may be ahead of this one's, in milliseconds: a day.
const CLOCK_SKEW_MS: i64 = 24 * 60 * 60 * 1000;

impl Place {
    /// Whether this time of a session, which is read at `now`, counts against other
    /// sources' times of the same session. From a command one that is more than a day ahead
    /// does not: with it a machine whose clock is wrong, or that lies, would hide this
    /// machine's row for years.
    #[must_use]
    pub fn is_credible(&self, updated: Option<Millis>, now: Millis) -> bool {
        match self {
            Self::Database(_) => true,
            Self::Remote(_) => {
                updated.is_none_or(|updated| updated.0 <= now.0.saturating_add(CLOCK_SKEW_MS))
            }
        }
    }
}

/// A command that runs the helper somewhere else and passes its standard input and
/// output on: `ssh host opencode-lister`, `docker exec -i box opencode-lister`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The program, looked for in `PATH`, and its arguments; those of the helper are
    /// appended. Never empty.
    pub command: Vec<String>,
    /// The database there, of [plain characters](is_plain_argument); without it, what the
    /// helper finds by itself.
    pub db: Option<String>,
    /// How often it is asked: nothing tells of changes there. In the configuration 1 s to
    /// 24 h.
    pub every: Duration,
}

impl Remote {
    /// How often a remote is asked where nobody says: 15 seconds.
    pub const EVERY: Duration = Duration::from_secs(15);
}

/// True for what may be an argument of a helper elsewhere: it may pass through
/// another machine's shell.
#[must_use]
pub fn is_plain_argument(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./=:-".contains(c);
    !text.is_empty() && text.chars().all(plain)
}

impl Source {
    /// A source of this name. A database is read by the path in `place`.
    #[must_use]
    pub fn new(name: impl Into<SourceName>, place: Place) -> Self {
        let written = match &place {
            Place::Database(path) => vec![path.clone()],
            Place::Remote(_) => Vec::new(),
        };
        Self {
            name: name.into(),
            place,
            written,
        }
    }

    /// The database, as its helper is to be told; `None` where that one finds it.
    #[must_use]
    pub fn db(&self) -> Option<PathBuf> {
        match &self.place {
            Place::Database(path) => Some(path.clone()),
            Place::Remote(remote) => remote.db.as_deref().map(PathBuf::from),
        }
    }

    /// What it is, in one text that no other source has: a path as it is, where it is
    /// UTF-8.
    #[must_use]
    pub fn identity(&self) -> String {
        match &self.place {
            Place::Database(path) => match path.to_str() {
                Some(path) => path.to_owned(),
                // No absolute path begins with either prefix.
                None => format!("bytes:{}", escaped_bytes(path.as_os_str().as_bytes())),
            },
            Place::Remote(_) => format!("command:{}", self.name),
        }
    }
}

impl Source {
    /// The source under a name that is not taken: its own, else its whole path.
    fn with_other_name_than(&self, taken: &[&SourceName]) -> Self {
        let whole = match &self.place {
            Place::Database(path) => whole_name(path),
            Place::Remote(_) => self.name.clone(),
        };
        let numbered = (2..).map(|n| format!("{whole} {n}").into());
        let mut names = [self.name.clone(), whole.clone()]
            .into_iter()
            .chain(numbered);
        let name = names.find(|name| !taken.contains(&name));
        Self {
            name: name.unwrap_or(whole),
            ..self.clone()
        }
    }
}

/// For people: a path, or a command.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(path) => DisplayPath(path).fmt(f),
            Self::Remote(remote) => {
                for (at, word) in remote.command.iter().enumerate() {
                    let space = if at == 0 { "" } else { " " };
                    write!(f, "{space}{}", DisplayPath(Path::new(word)))?;
                }
                Ok(())
            }
        }
    }
}

/// The sources of these databases: each once, under whatever names it is given, called
/// after its file, with as much of its directory as tells them apart. A name is safe to
/// show.
#[must_use]
pub fn sources_of(databases: &[PathBuf]) -> Vec<Source> {
    let databases = aliases::databases(databases);
    let paths: Vec<_> = databases
        .iter()
        .map(|database| database.path.clone())
        .collect();
    let named = names_after_files(&paths).into_iter().zip(databases);
    let sources = named.map(|(name, database)| Source {
        name,
        place: Place::Database(database.path),
        written: database.written,
    });
    sources.collect()
}

/// The names of the databases at these canonical paths, which are different.
pub(crate) fn names_after_files(paths: &[PathBuf]) -> Vec<SourceName> {
    let names = paths.iter().map(|path| {
        let alike = |name: &[u8]| paths.iter().filter(|other| ends_in(other, name)).count();
        let name = endings(path).into_iter().find(|name| alike(name) == 1);
        name.as_deref().map_or_else(|| whole_name(path), name_of)
    });
    names.collect()
}

/// The known sources, with those that were `found` and are not among them: in the order
/// of the known ones, then of the new ones.
///
/// A source that is not found again stays, since a directory can be away for a moment.
/// One that is found at another place stays, too: its watcher reports when it has moved.
/// Only a source whose path is another name of a found database is dropped.
#[must_use]
pub fn with_found(known: &[Source], found: &[Source]) -> Vec<Source> {
    let is_known = |one: &Source| {
        let mut known = known.iter();
        known.any(|known| known.written.first() == one.written.first())
    };
    let mut all: Vec<Source> = Vec::new();
    for old in known {
        let is_other_name = |one: &&Source| {
            let mut names = one.written.iter();
            names.next() != old.written.first()
                && names.any(|name| Some(name) == old.written.first())
        };
        match found.iter().find(is_other_name) {
            None => all.push(old.clone()),
            Some(one) if is_known(one) || all.iter().any(|other| other.place == one.place) => {}
            Some(one) => {
                let others = known.iter().filter(|other| *other != old);
                let taken: Vec<_> = others.chain(&all).map(|other| &other.name).collect();
                let one = one.with_other_name_than(&taken);
                all.push(one);
            }
        }
    }
    for one in found {
        let is_new = !is_known(one) && !all.iter().any(|other| other.place == one.place);
        if is_new && matches!(one.place, Place::Database(_)) {
            let taken: Vec<_> = all.iter().map(|other| &other.name).collect();
            let one = one.with_other_name_than(&taken);
            all.push(one);
        }
    }
    all
}

/// The name of a database that is called after its whole path. No name in a
/// configuration begins with a slash.
pub(crate) fn whole_name(path: &Path) -> SourceName {
    name_of(path.as_os_str().as_bytes())
}

fn name_of(bytes: &[u8]) -> SourceName {
    escaped_bytes(bytes).into()
}

/// The ends of a path, shortest first: `c.db`, `b/c.db`, `/a/b/c.db`.
fn endings(path: &Path) -> Vec<Vec<u8>> {
    let parts: Vec<_> = path.iter().map(OsStr::as_bytes).collect();
    let mut endings: Vec<_> = (1..parts.len())
        .rev()
        .map(|from| parts[from..].join(&b'/'))
        .collect();
    endings.push(path.as_os_str().as_bytes().to_owned());
    endings
}

fn ends_in(path: &Path, name: &[u8]) -> bool {
    endings(path).iter().any(|ending| ending == name)
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

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
    fn different_bytes_are_different_sources() {
        let paths: [(&[u8], &str, &str); 7] = [
            (b"/n/a\xff.db", r"bytes:/n/a\xff.db", r"a\xff.db"),
            (b"/n/a\xfe.db", r"bytes:/n/a\xfe.db", r"a\xfe.db"),
            // What the first is shown as, and other ways to show it.
            (br"/n/a\xff.db", r"/n/a\xff.db", r"a\\xff.db"),
            (
                "/n/a\u{fffd}.db".as_bytes(),
                "/n/a\u{fffd}.db",
                "a\u{fffd}.db",
            ),
            (b"/n/\xff/a.db", r"bytes:/n/\xff/a.db", r"\xff/a.db"),
            (b"/n/\xfe/a.db", r"bytes:/n/\xfe/a.db", r"\xfe/a.db"),
            (b"/n/a\x1b.db", "/n/a\x1b.db", r"a\u{1b}.db"),
        ];
        let given = paths.map(|(path, ..)| PathBuf::from(OsStr::from_bytes(path)));
        let sources = sources_of(&given);
        let sources = sources.iter().map(|s| (s.identity(), s.name.to_string()));
        let expected = paths.map(|(_, identity, name)| (identity.to_owned(), name.to_owned()));
        assert_eq!(sources.collect::<Vec<_>>(), expected);
    }

    /// A source that is called as its path, and the paths that lead to it.
    fn found_by(place: &str, written: &[&str]) -> Source {
        Source {
            written: written.iter().map(PathBuf::from).collect(),
            ..Source::new(place, Place::Database(place.into()))
        }
    }

    #[test]
    fn found_sources_are_added_and_other_names_dropped() {
        let a = || found_by("/a", &["/a"]);
        let b = || found_by("/b", &["/link"]);
        let a_by_link = || found_by("/a", &["/a", "/link"]);
        let hard = || found_by("/hard", &["/hard", "/a"]);
        let remote = || {
            Source::new(
                "devbox",
                Place::Remote(Remote {
                    command: vec!["ssh".into()],
                    db: None,
                    every: Remote::EVERY,
                }),
            )
        };
        let moved = || found_by("/elsewhere", &["/a"]);
        for (what, known, found, expected) in [
            ("the same", vec![a(), b()], vec![a(), b()], vec![a(), b()]),
            (
                "another order",
                vec![a(), b()],
                vec![b(), a()],
                vec![a(), b()],
            ),
            ("a new one", vec![b()], vec![a(), b()], vec![b(), a()]),
            (
                "one that is away",
                vec![a(), b()],
                vec![b()],
                vec![a(), b()],
            ),
            (
                "all are away",
                vec![a(), remote()],
                vec![remote()],
                vec![a(), remote()],
            ),
            ("one that has moved", vec![a()], vec![moved()], vec![a()]),
            (
                "one is the other's link",
                vec![a(), b()],
                vec![a_by_link()],
                vec![a()],
            ),
            (
                "the link comes first",
                vec![b(), a()],
                vec![a_by_link()],
                vec![a()],
            ),
            (
                "a link is another one now",
                vec![a_by_link()],
                vec![a(), b()],
                vec![a_by_link(), b()],
            ),
            (
                "the log is elsewhere now",
                vec![a(), b()],
                vec![hard(), b()],
                vec![hard(), b()],
            ),
            (
                "the same place",
                vec![moved()],
                vec![found_by("/elsewhere", &["/new"])],
                vec![moved()],
            ),
        ] {
            assert_eq!(with_found(&known, &found), expected, "{what}");
        }
    }

    #[test]
    fn found_source_gets_a_name_that_is_not_taken() {
        let named = |name: &str, path: &str| Source::new(name, Place::Database(path.into()));
        let names = |known: &[Source], found: &[Source]| {
            let all = with_found(known, found);
            all.iter()
                .map(|one| one.name.to_string())
                .collect::<Vec<_>>()
        };
        let (old, new) = (named("x.db", "/old/x.db"), named("x.db", "/new/x.db"));
        assert_eq!(names(from_ref(&old), from_ref(&new)), ["x.db", "/new/x.db"]);
        let taken = named("/new/x.db", "/third/x.db");
        assert_eq!(
            names(&[old, taken], &[new]),
            ["x.db", "/new/x.db", "/new/x.db 2"]
        );
    }
}
