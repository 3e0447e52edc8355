//! Finds the different names of one database: symbolic links to its file or to a parent
//! directory, hard links, several mounts of one file, and spellings of one path.
//!
//! Two paths are one database if they have the same canonical path or the same device and
//! inode. Of several hard links only the one that OpenCode opened has the log next to it, so
//! the database must be read by that one.
//!
//! A disk may not respond. So other threads inspect the paths, and a path that takes too long
//! stays unresolved.

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

/// How long inspecting all paths together may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long one path may delay the paths behind it, before another thread is spawned.
const SLOW_PATH: Duration = Duration::from_millis(50);

/// A database, and the paths that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Database {
    /// The canonical path, as far as it exists. The path as given if the disk does not
    /// respond or the system cannot resolve it.
    pub path: PathBuf,
    /// The given paths of the database, absolute: first the one to read it by, then the
    /// others in their order. Never empty.
    pub written: Vec<PathBuf>,
    /// Whether the file exists; `None` if that is unknown or the disk was not accessed.
    pub exists: Option<bool>,
}

impl Database {
    /// Returns the database at this path, without accessing the disk.
    #[must_use]
    pub(crate) fn unresolved(path: &Path) -> Self {
        let path = absolute(path);
        Self {
            path: path.clone(),
            written: vec![path],
            exists: None,
        }
    }

    /// Returns the given path by which the database must be read.
    #[must_use]
    pub(crate) fn primary_path(&self) -> &Path {
        self.written.first().unwrap_or(&self.path)
    }
}

/// Returns the databases that these paths lead to, each once, in the order of their first
/// path. Takes at most one second.
#[must_use]
pub(crate) fn databases(paths: &[PathBuf]) -> Vec<Database> {
    let paths: Vec<_> = paths.iter().map(|path| absolute(path)).collect();
    let mut groups: Vec<Vec<Target>> = Vec::new();
    for (path, target) in paths.iter().zip(targets(&paths)) {
        let target = target.unwrap_or_else(|| Target::unresolved(path, None));
        let is_same = |group: &&mut Vec<Target>| group.iter().any(|other| target.is_same(other));
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(target),
            None => groups.push(vec![target]),
        }
    }
    groups.into_iter().filter_map(merge).collect()
}

/// Returns the path as an absolute one, without resolving it.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Merges the targets of all paths to one database. `None` if there is no target.
fn merge(mut targets: Vec<Target>) -> Option<Database> {
    let primary = targets
        .iter()
        .position(|target| target.has_log)
        .unwrap_or(0);
    targets.get_mut(..=primary)?.rotate_right(1);
    let mut written = Vec::new();
    for target in &targets {
        if !written.contains(&target.written) {
            written.push(target.written.clone());
        }
    }
    let primary = targets.swap_remove(0);
    Some(Database {
        path: primary.path,
        written,
        exists: primary.exists,
    })
}

/// The target of a path.
#[derive(Debug)]
struct Target {
    /// The path as given.
    written: PathBuf,
    /// The canonical path.
    path: PathBuf,
    /// The device and the inode.
    file: Option<(u64, u64)>,
    exists: Option<bool>,
    /// An empty log counts as missing, because a reader creates one.
    has_log: bool,
}

impl Target {
    /// Resolves a path. Blocks while the disk does not respond.
    fn resolve(written: &Path) -> Self {
        let files = match DatabaseFiles::resolve(written) {
            Ok(files) => files,
            Err(error) => {
                return Self::unresolved(written, means_nonexistent(&error).then_some(false));
            }
        };
        let metadata = fs::metadata(&files.main);
        Self {
            written: written.to_owned(),
            file: metadata
                .as_ref()
                .ok()
                .map(|metadata| (metadata.dev(), metadata.ino())),
            exists: match metadata {
                Ok(_) => Some(true),
                Err(error) => means_nonexistent(&error).then_some(false),
            },
            has_log: files.has_log(),
            path: files.main,
        }
    }

    fn unresolved(written: &Path, exists: Option<bool>) -> Self {
        Self {
            written: written.to_owned(),
            path: written.to_owned(),
            file: None,
            exists,
            has_log: false,
        }
    }

    /// Returns true if both are the same database.
    fn is_same(&self, other: &Self) -> bool {
        self.path == other.path || (self.file.is_some() && self.file == other.file)
    }
}

/// Returns true if the error means that a path leads to no file.
fn means_nonexistent(error: &io::Error) -> bool {
    is_missing(error) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Returns the target of each path; `None` if the disk does not respond in time. One thread
/// inspects the paths in order. Each time a path takes long, another thread is spawned for
/// the paths behind it.
fn targets(paths: &[PathBuf]) -> Vec<Option<Target>> {
    let mut targets: Vec<_> = paths.iter().map(|_| None).collect();
    let mut missing = paths.len();
    let inspectors = Inspectors::start(paths);
    let until = Instant::now() + TIMEOUT;
    while missing > 0 {
        let left = until.saturating_duration_since(Instant::now());
        match inspectors.results.recv_timeout(left.min(SLOW_PATH)) {
            Ok((at, target)) => {
                targets[at] = Some(target);
                missing -= 1;
            }
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => inspectors.spawn(),
            Err(_) => break,
        }
    }
    targets
}

/// The threads that inspect paths.
struct Inspectors {
    paths: Arc<Vec<PathBuf>>,
    /// The index of the next path.
    next: Arc<AtomicUsize>,
    sender: mpsc::Sender<(usize, Target)>,
    results: Receiver<(usize, Target)>,
}

impl Inspectors {
    fn start(paths: &[PathBuf]) -> Self {
        let (sender, results) = mpsc::channel();
        let inspectors = Self {
            paths: Arc::new(paths.to_owned()),
            next: Arc::default(),
            sender,
            results,
        };
        inspectors.spawn();
        inspectors
    }

    /// Spawns another thread if there are paths left.
    fn spawn(&self) {
        if self.next.load(Ordering::Relaxed) >= self.paths.len() {
            return;
        }
        let (paths, next) = (Arc::clone(&self.paths), Arc::clone(&self.next));
        let sender = self.sender.clone();
        let inspect = move || {
            while let Some((at, path)) = claim(&next, &paths) {
                if sender.send((at, Target::resolve(path))).is_err() {
                    break;
                }
            }
        };
        // If the thread cannot be spawned, the paths stay unresolved.
        let _ = thread::Builder::new().name("paths".into()).spawn(inspect);
    }
}

/// Claims the next path, with its index.
fn claim<'a>(next: &AtomicUsize, paths: &'a [PathBuf]) -> Option<(usize, &'a Path)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, paths.get(at)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// The given paths of each database.
    type Groups<'a> = &'a [&'a [&'a str]];

    #[test]
    fn all_names_of_a_database_are_one_database() {
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
                let exists = database.path.exists();
                assert_eq!(database.exists, Some(exists), "{database:?}");
            }
        }
        // The name with the log comes first.
        let (without, with) = (root.join("real/locked.db"), root.join("hard to locked.db"));
        let found = databases(&[root.join("real/b.db"), without.clone(), with.clone()]);
        assert_eq!(found[1].written, [with.clone(), without]);
        assert_eq!(found[1].path, with);
    }

    #[test]
    fn spellings_of_a_path_are_one_database() {
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
        assert!(databases(&["a.db".into()])[0].primary_path().is_absolute());
    }
}
