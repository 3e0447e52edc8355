//! One database under several names: symbolic links to its file or to a directory on
//! the way, hard links, mounts of one file in two places, and spellings of one path.
//!
//! Two paths are one database if they lead to one canonical path, or to one file. Of
//! the hard links to a file only the one that OpenCode opened has the log beside it:
//! the database is read by that one.
//!
//! A disk may not answer. So other threads look at the paths, and a path that takes too
//! long is taken as it is written.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::locate::{DatabaseFiles, is_missing};

/// How long all paths together may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long one path may delay those behind it.
const STEP: Duration = Duration::from_millis(50);

/// A database, and the paths that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its canonical path, as far as it is there; as written where the disk does not
    /// answer or refuses to resolve it.
    pub path: PathBuf,
    /// The paths that were given for it, absolute: first the one that it is read by,
    /// then the others in their order. Never empty.
    pub written: Vec<PathBuf>,
    /// Whether there is a file; `None` where the disk was not asked or does not say.
    pub is_there: Option<bool>,
}

impl Database {
    /// The database at this path, without a look at the disk.
    #[must_use]
    pub fn as_written(path: &Path) -> Self {
        let path = absolute(path);
        Self {
            path: path.clone(),
            written: vec![path],
            is_there: None,
        }
    }

    /// The path that it is read by, as it was given.
    #[must_use]
    pub fn read_by(&self) -> &Path {
        self.written.first().unwrap_or(&self.path)
    }
}

/// The databases that these paths lead to, each once, in the order in which they are
/// first named. It takes a second at most.
#[must_use]
pub fn databases(paths: &[PathBuf]) -> Vec<Database> {
    let paths: Vec<_> = paths.iter().map(|path| absolute(path)).collect();
    let mut groups: Vec<Vec<Target>> = Vec::new();
    for (path, target) in paths.iter().zip(targets(&paths)) {
        let target = target.unwrap_or_else(|| Target::unknown(path, None));
        let is_of = |group: &&mut Vec<Target>| group.iter().any(|other| target.is(other));
        match groups.iter_mut().find(is_of) {
            Some(group) => group.push(target),
            None => groups.push(vec![target]),
        }
    }
    groups.into_iter().filter_map(database).collect()
}

/// The path as an absolute one, unresolved.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The one database that all these paths lead to.
fn database(mut names: Vec<Target>) -> Option<Database> {
    let read_by = names.iter().position(|name| name.has_log).unwrap_or(0);
    names.get_mut(..=read_by)?.rotate_right(1);
    let mut written = Vec::new();
    for name in &names {
        if !written.contains(&name.written) {
            written.push(name.written.clone());
        }
    }
    let read_by = names.swap_remove(0);
    Some(Database {
        path: read_by.path,
        written,
        is_there: read_by.is_there,
    })
}

/// Where a path leads.
#[derive(Debug)]
struct Target {
    written: PathBuf,
    path: PathBuf,
    /// The device and the inode there.
    file: Option<(u64, u64)>,
    is_there: Option<bool>,
    /// An empty log counts as none, since a reader makes one.
    has_log: bool,
}

impl Target {
    fn of(written: &Path) -> Self {
        let files = match DatabaseFiles::resolve(written) {
            Ok(files) => files,
            Err(error) => return Self::unknown(written, leads_nowhere(&error).then_some(false)),
        };
        let about = fs::metadata(&files.main);
        Self {
            written: written.to_owned(),
            file: about.as_ref().ok().map(|about| (about.dev(), about.ino())),
            is_there: match about {
                Ok(_) => Some(true),
                Err(error) => leads_nowhere(&error).then_some(false),
            },
            has_log: files.has_log(),
            path: files.main,
        }
    }

    fn unknown(written: &Path, is_there: Option<bool>) -> Self {
        Self {
            written: written.to_owned(),
            path: written.to_owned(),
            file: None,
            is_there,
            has_log: false,
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.path == other.path || (self.file.is_some() && self.file == other.file)
    }
}

fn leads_nowhere(error: &io::Error) -> bool {
    is_missing(error) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Where each path leads; `None` where the disk does not say in time. One thread looks
/// at all paths, and one more at those behind a path that takes long.
fn targets(paths: &[PathBuf]) -> Vec<Option<Target>> {
    let mut targets: Vec<_> = paths.iter().map(|_| None).collect();
    let mut missing = paths.len();
    let looking = Looking::at(paths);
    let until = Instant::now() + PATIENCE;
    while missing > 0 {
        let left = until.saturating_duration_since(Instant::now());
        match looking.answers.recv_timeout(left.min(STEP)) {
            Ok((at, target)) => {
                targets[at] = Some(target);
                missing -= 1;
            }
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => looking.start(),
            Err(_) => break,
        }
    }
    targets
}

/// Threads that look at paths.
struct Looking {
    paths: Arc<Vec<PathBuf>>,
    /// Which path is next.
    next: Arc<AtomicUsize>,
    to: mpsc::Sender<(usize, Target)>,
    answers: Receiver<(usize, Target)>,
}

impl Looking {
    fn at(paths: &[PathBuf]) -> Self {
        let (to, answers) = mpsc::channel();
        let looking = Self {
            paths: Arc::new(paths.to_owned()),
            next: Arc::default(),
            to,
            answers,
        };
        looking.start();
        looking
    }

    /// One more thread, where there is a path left.
    fn start(&self) {
        if self.next.load(Ordering::Relaxed) >= self.paths.len() {
            return;
        }
        let (paths, next) = (Arc::clone(&self.paths), Arc::clone(&self.next));
        let to = self.to.clone();
        let look = move || {
            while let Some((at, path)) = claim(&next, &paths) {
                if to.send((at, Target::of(path))).is_err() {
                    break;
                }
            }
        };
        // Without a thread the paths stay as written.
        let _ = thread::Builder::new().name("paths".into()).spawn(look);
    }
}

fn claim<'a>(next: &AtomicUsize, paths: &'a [PathBuf]) -> Option<(usize, &'a Path)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, paths.get(at)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// The paths of each database, as they were given.
    type Groups<'a> = &'a [&'a [&'a str]];

    #[test]
    fn every_name_of_a_database_is_counted_once() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        for name in ["a", "b", "locked", "quiet"] {
            fs::write(root.join(format!("real/{name}.db")), "").unwrap();
        }
        for (target, link) in [
            ("real", "directory"),
            ("real/a.db", "file.db"),
            ("file.db", "chain.db"),
            ("directory/deep/../a.db", "winding.db"),
            ("real/none.db", "dangling.db"),
            ("loop.db", "loop.db"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        for (of, name) in [
            ("a", "hard"),
            ("locked", "hard to locked"),
            ("quiet", "hard to quiet"),
        ] {
            fs::hard_link(
                root.join(format!("real/{of}.db")),
                root.join(format!("{name}.db")),
            )
            .unwrap();
        }
        fs::write(root.join("hard to locked.db-wal"), "frames").unwrap();
        fs::write(root.join("hard to quiet.db-wal"), "").unwrap();
        let groups: &[Groups<'_>] = &[
            &[&["real/a.db", "file.db"]],
            &[&["file.db", "real/a.db"]],
            &[&["real/a.db", "directory/a.db"]],
            &[&["chain.db", "winding.db", "file.db"]],
            &[&["real/a.db", "real/deep/../a.db"]],
            &[&["real/none.db", "dangling.db"]],
            &[&["dangling.db", "directory/none.db"]],
            &[&["nowhere/a.db", "nowhere/b/../a.db"]],
            &[&["real/a.db", "hard.db", "file.db"]],
            &[&["real/quiet.db", "hard to quiet.db"]],
            // Different databases.
            &[&["real/a.db"], &["real/b.db"], &["directory/none.db"]],
            &[&["real/none.db"], &["real/neither.db"]],
            &[&["loop.db"], &["real/a.db", "hard.db"]],
        ];
        for expected in groups {
            let expected: Vec<Vec<_>> = expected
                .iter()
                .map(|group| group.iter().map(|path| root.join(path)).collect())
                .collect();
            let found = databases(&expected.concat());
            let written: Vec<_> = found.iter().map(|one| one.written.clone()).collect();
            assert_eq!(written, expected);
            for database in found {
                let is_there = database.path.exists();
                assert_eq!(database.is_there, Some(is_there), "{database:?}");
            }
        }
        // It is read by the name that has the log.
        let (without, with) = (root.join("real/locked.db"), root.join("hard to locked.db"));
        let found = databases(&[root.join("real/b.db"), without.clone(), with.clone()]);
        assert_eq!(found[1].written, [with.clone(), without]);
        assert_eq!(found[1].path, with);
    }

    #[test]
    fn other_spellings_of_a_path_are_the_same_path() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let db = root.join("a.db");
        fs::write(&db, "").unwrap();
        let up = "../".repeat(std::env::current_dir().unwrap().components().count());
        let spellings = [
            format!("{}/a.db", root.display()),
            format!("{}//a.db", root.display()),
            format!("{}/./a.db", root.display()),
            format!("{}/a.db/", root.display()),
            format!("//{}/a.db", root.display()),
            format!("{up}{}/a.db", root.display()),
        ];
        let spellings = spellings.map(PathBuf::from);
        let [found] = &databases(&spellings)[..] else {
            panic!("{:?}", databases(&spellings));
        };
        assert_eq!(found.path, db);
        assert!(databases(&["a.db".into()])[0].read_by().is_absolute());
    }
}
