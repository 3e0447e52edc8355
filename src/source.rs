//! Sources: the databases on this machine and the commands that run the helper elsewhere.
//!
//! The canonical path of its database, or the name of a command, identifies a source
//! ([`Source::identity`]). The [`SourceName`] is for people and unique among the sources of
//! one service.

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

/// The name of a source, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// Returns the name.
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

/// A set of sessions: one database, local or remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name, for people.
    pub name: SourceName,
    /// The database or the command.
    pub place: Place,
    /// The absolute, unresolved paths that were given for the database: first the one to
    /// read it by, then its other names. A symbolic link among them may later point to
    /// another database. Empty for a command.
    pub written: Vec<PathBuf>,
}

/// The location of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The canonical path of a database on this machine. Components that do not exist yet
    /// are as given.
    Database(PathBuf),
    /// Another machine, container or user.
    Remote(Remote),
}

/// How far the clock of another machine may be ahead, in milliseconds: one day.
const MAX_CLOCK_SKEW_MS: i64 = 24 * 60 * 60 * 1000;

impl Place {
    /// Returns true if a session's time `updated`, read at `now`, may be compared with the
    /// times of the same session in other sources.
    ///
    /// A time from a command that is more than one day ahead may not: a machine with a wrong
    /// clock, or a malicious one, would hide this machine's row for years.
    #[must_use]
    pub fn is_credible(&self, updated: Option<Millis>, now: Millis) -> bool {
        match self {
            Self::Database(_) => true,
            Self::Remote(_) => {
                updated.is_none_or(|updated| updated.0 <= now.0.saturating_add(MAX_CLOCK_SKEW_MS))
            }
        }
    }
}

/// A command that runs the helper elsewhere and forwards its standard input and output:
/// `ssh host opencode-lister`, `docker exec -i box opencode-lister`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The program, found in `PATH`, and its arguments. The helper's arguments are appended.
    /// Never empty.
    pub command: Vec<String>,
    /// The remote path of the database, of [plain characters](is_plain_argument); `None` for
    /// the one that the helper finds.
    pub db: Option<String>,
    /// The interval between two listings: changes elsewhere cannot be watched. 1 s to 24 h in
    /// the configuration.
    pub every: Duration,
}

impl Remote {
    /// The default of [`every`](Self::every): 15 seconds.
    pub const EVERY: Duration = Duration::from_secs(15);
}

/// Returns true if the text may be an argument of a remote helper: no shell interprets its
/// characters, which are ASCII letters, digits and `_ . / = : -`.
#[must_use]
pub fn is_plain_argument(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./=:-".contains(c);
    !text.is_empty() && text.chars().all(plain)
}

impl Source {
    /// Creates a source of this name. A database is read by the path in `place`.
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

    /// Returns the path of the database for a helper's request; `None` if the helper is to
    /// find the database.
    #[must_use]
    pub fn db(&self) -> Option<PathBuf> {
        match &self.place {
            Place::Database(path) => Some(path.clone()),
            Place::Remote(remote) => remote.db.as_deref().map(PathBuf::from),
        }
    }

    /// Returns a text that identifies the source: no two sources have the same. For a
    /// database whose path is UTF-8 it is that path.
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
    /// Returns the source with a name that is not taken: its own, else its whole path, else
    /// that path with a number.
    fn with_unique_name(&self, taken: &[&SourceName]) -> Self {
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

/// Displays the path or the command, for people.
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

/// Returns the sources of these databases. Several paths of one database give one source.
///
/// A source is named after its file, with as many directories in front as make the names
/// unique. Names are safe to show on a terminal.
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

/// Returns the names of the databases at these canonical paths, which must differ.
pub(crate) fn names_after_files(paths: &[PathBuf]) -> Vec<SourceName> {
    let names = paths.iter().map(|path| {
        let uses = |name: &[u8]| paths.iter().filter(|other| ends_in(other, name)).count();
        let name = endings(path).into_iter().find(|name| uses(name) == 1);
        name.as_deref().map_or_else(|| whole_name(path), name_of)
    });
    names.collect()
}

/// Merges newly `found` sources into the `known` ones: returns the known sources in their
/// order, then the new ones.
///
/// A known source that was not found again stays, since its directory can be unavailable for
/// a moment. One that was found at another place stays too; its watcher reports the move. A
/// known source is removed only if its path is another name of a found database, which then
/// takes its place.
#[must_use]
pub fn merge_found(known: &[Source], found: &[Source]) -> Vec<Source> {
    let is_known = |source: &Source| {
        let mut known = known.iter();
        known.any(|known| known.written.first() == source.written.first())
    };
    let mut merged: Vec<Source> = Vec::new();
    for old in known {
        let is_alias_of = |source: &&Source| {
            let mut names = source.written.iter();
            names.next() != old.written.first()
                && names.any(|name| Some(name) == old.written.first())
        };
        match found.iter().find(is_alias_of) {
            None => merged.push(old.clone()),
            Some(new) if is_known(new) || merged.iter().any(|other| other.place == new.place) => {}
            Some(new) => {
                let others = known.iter().filter(|other| *other != old);
                let taken: Vec<_> = others.chain(&merged).map(|other| &other.name).collect();
                let new = new.with_unique_name(&taken);
                merged.push(new);
            }
        }
    }
    for source in found {
        let is_new = !is_known(source) && !merged.iter().any(|other| other.place == source.place);
        if is_new && matches!(source.place, Place::Database(_)) {
            let taken: Vec<_> = merged.iter().map(|other| &other.name).collect();
            let source = source.with_unique_name(&taken);
            merged.push(source);
        }
    }
    merged
}

/// Returns the name of a database that is named after its whole path. No name in a
/// configuration begins with a slash.
pub(crate) fn whole_name(path: &Path) -> SourceName {
    name_of(path.as_os_str().as_bytes())
}

fn name_of(bytes: &[u8]) -> SourceName {
    escaped_bytes(bytes).into()
}

/// Returns the ends of a path, shortest first: `c.db`, `b/c.db`, `/a/b/c.db`.
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
    fn source_names_are_unique_file_names() {
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
            // The text that the first is shown as, and similar ones.
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

    /// Returns a source named after its path, with the paths that lead to it.
    fn found_by(place: &str, written: &[&str]) -> Source {
        Source {
            written: written.iter().map(PathBuf::from).collect(),
            ..Source::new(place, Place::Database(place.into()))
        }
    }

    #[test]
    fn found_sources_are_added_and_aliases_replaced() {
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
            ("one not found", vec![a(), b()], vec![b()], vec![a(), b()]),
            (
                "none found",
                vec![a(), remote()],
                vec![remote()],
                vec![a(), remote()],
            ),
            ("one has moved", vec![a()], vec![moved()], vec![a()]),
            (
                "one is a link to the other",
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
                "a link now leads to another database",
                vec![a_by_link()],
                vec![a(), b()],
                vec![a_by_link(), b()],
            ),
            (
                "the log is now beside another hard link",
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
            assert_eq!(merge_found(&known, &found), expected, "{what}");
        }
    }

    #[test]
    fn found_source_gets_a_unique_name() {
        let named = |name: &str, path: &str| Source::new(name, Place::Database(path.into()));
        let names = |known: &[Source], found: &[Source]| {
            let merged = merge_found(known, found);
            merged
                .iter()
                .map(|source| source.name.to_string())
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
