//! Finds the project of a session, and whether the session's directory still exists.
//!
//! The project is the worktree stored with the session; without one, the git root of the
//! session's directory; without a git root, the directory. A linked worktree counts as its
//! main repository and a submodule as itself. A session with a workspace ran elsewhere, so
//! its directory is not inspected. Finding a git root reads a few small files and never runs
//! `git` (<https://git-scm.com/docs/gitrepository-layout>).
//!
//! On this machine the project is a real path, as in git, so that one directory is one
//! project whatever links lead to it.
//!
//! A directory may be on a disk that does not respond. So other threads read the files. If
//! that takes too long, the session keeps its last known project; without one, its directory
//! stands for the project and counts as existing. A slow directory delays no other, and is
//! waited for once.

mod finder;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::entry::Entry;
use crate::locate::{is_missing, normalize};
use crate::session::{Session, SessionPlace};
use finder::FinderPool;

/// How long a caller of [`Projects::resolve`] waits at most.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A caller waits for at most one part in this many of the time until its deadline, so that
/// time remains for other callers.
const DEADLINE_SHARE: u32 = 4;

/// How long a directory may delay the others, before another thread is spawned.
const SLOW_DIRECTORY: Duration = Duration::from_millis(100);

const _: () = assert!(SLOW_DIRECTORY.as_millis() < TIMEOUT.as_millis());

/// How long a result stays fresh.
const CACHE_TTL: Duration = Duration::from_secs(60);

/// The maximum number of bytes read of a `.git` file or a `commondir`, which have one line.
const MAX_FILE_BYTES: u64 = 8 << 10;

/// Finds the projects of a source's sessions. All values of this type share the results.
#[derive(Debug)]
pub struct Projects {
    is_remote: bool,
}

impl Default for Projects {
    fn default() -> Self {
        Self::new()
    }
}

impl Projects {
    /// Creates a finder for sessions on this machine.
    #[must_use]
    pub fn new() -> Self {
        Self { is_remote: false }
    }

    /// Creates a finder for sessions on another machine. The project of a session without a
    /// worktree is its directory, and no file on this machine is read.
    #[must_use]
    pub fn remote() -> Self {
        Self { is_remote: true }
    }

    /// Finds the projects of all these places. Waits for the disk, up to a second, and less if
    /// little is left until the caller's deadline. An answer older than a minute is asked for
    /// again: a directory may have become a repository.
    pub fn resolve<'a>(&self, places: impl IntoIterator<Item = &'a SessionPlace>, until: Instant) {
        let directories: HashSet<&str> = places
            .into_iter()
            .filter_map(|place| self.local_directory(place))
            .collect();
        let asked = Instant::now();
        let patience = TIMEOUT.min(until.saturating_duration_since(asked) / DEADLINE_SHARE);
        let directories: Vec<_> = directories.into_iter().collect();
        if !directories.is_empty() && !patience.is_zero() {
            finder::find_all(&directories, asked + patience);
        }
    }

    /// Returns the project of a place, as far as [`resolve`](Self::resolve) found it, and whether
    /// its directory was missing then. A place without worktree and directory has no project.
    #[must_use]
    pub fn of(&self, place: &SessionPlace) -> (Option<String>, bool) {
        let known = self.local_directory(place).map(|directory| {
            let pool = FinderPool::lock();
            let known = pool.cached(directory);
            known.map(|known| (known.project.clone(), known.is_gone))
        });
        let (found, is_gone) = known.flatten().unzip();
        let worktree = place.worktree.as_deref().map(normalize_text);
        let directory = place.directory.as_deref();
        let project = worktree.or(found).or_else(|| directory.map(normalize_text));
        (project, is_gone.unwrap_or(false))
    }

    /// Returns the session with what is known about its place.
    #[must_use]
    pub fn entry(&self, session: Session) -> Entry {
        let (project, gone) = self.of(&SessionPlace::of(&session));
        Entry {
            session,
            project,
            gone,
        }
    }

    /// Returns the directory of a place if it is one of this machine.
    fn local_directory<'a>(&self, place: &'a SessionPlace) -> Option<&'a str> {
        let is_local = !self.is_remote && !place.is_in_workspace;
        place.directory.as_deref().filter(|_| is_local)
    }
}

/// Removes `//`, `/./` and a trailing slash from a path, without accessing the disk.
fn normalize_text(path: &str) -> String {
    let normalized: PathBuf = Path::new(path).components().collect();
    normalized
        .into_os_string()
        .into_string()
        .ok()
        .filter(|normalized| !normalized.is_empty())
        .unwrap_or_else(|| path.to_owned())
}

/// The result of inspecting a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DirectoryInfo {
    project: PathBuf,
    /// Whether the directory does not exist.
    is_gone: bool,
}

/// Inspects a directory on this machine. Reads files and may block.
fn find(directory: &Path) -> DirectoryInfo {
    if !directory.is_absolute() {
        return DirectoryInfo {
            project: directory.to_owned(),
            is_gone: false,
        };
    }
    let real = real_path(directory);
    DirectoryInfo {
        project: find_git_root(&real).unwrap_or(real),
        is_gone: fs::metadata(directory).is_err_and(|error| is_missing(&error)),
    }
}

/// Returns the real path of the root of the repository that contains `directory`, or would
/// contain it if it still existed. `None` if `directory` is relative or in no repository.
///
/// Reads files and may block.
#[must_use]
pub(crate) fn git_root(directory: &Path) -> Option<PathBuf> {
    match directory.is_absolute() {
        true => find_git_root(&real_path(directory)),
        false => None,
    }
}

fn find_git_root(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().find_map(|ancestor| {
        let git = ancestor.join(".git");
        match fs::metadata(&git) {
            Ok(metadata) if metadata.is_dir() => is_git_dir(&git).then(|| ancestor.to_owned()),
            Ok(_) => {
                let git_dir = read_git_file(&git)?;
                Some(main_repository(&git_dir).unwrap_or_else(|| ancestor.to_owned()))
            }
            // The ancestor may be a bare repository.
            Err(_) => is_bare(ancestor).then(|| project_of_git_dir(ancestor)),
        }
    })
}

/// Returns the real path; if the path does not exist, resolves the part of it that does.
fn real_path(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return normalize(&real.join(rest));
        }
    }
    normalize(path)
}

/// Returns true if this is a valid git directory; git ignores a `.git` directory that is not.
fn is_git_dir(git_dir: &Path) -> bool {
    // A HEAD that is a dangling symbolic link is valid too.
    fs::symlink_metadata(git_dir.join("HEAD")).is_ok()
}

/// Returns true if this is a bare repository, by the checks that git applies to a directory
/// that is not named `.git`.
fn is_bare(directory: &Path) -> bool {
    is_git_dir(directory) && directory.join("objects").is_dir() && directory.join("refs").is_dir()
}

/// Returns the git directory that a `.git` file names. A relative path is relative to the
/// directory of the file, as in git. If no git directory is there and the file is a symbolic
/// link, it is relative to the directory of the link's target.
fn read_git_file(git: &Path) -> Option<PathBuf> {
    let line = read_line(git)?;
    let path = Path::new(line.strip_prefix("gitdir:")?.trim());
    let relative_to = |file: &Path| Some(real_path(&file.parent()?.join(path)));
    let git_dir = relative_to(git)?;
    if !is_git_dir(&git_dir)
        && let Some(other) = git.canonicalize().ok().as_deref().and_then(relative_to)
        && is_git_dir(&other)
    {
        return Some(other);
    }
    Some(git_dir)
}

/// Returns the project of the main repository of a linked worktree with this git directory.
/// `None` for a submodule: only the git directory of a worktree has a `commondir`.
fn main_repository(git_dir: &Path) -> Option<PathBuf> {
    let common = real_path(&git_dir.join(read_line(&git_dir.join("commondir"))?.trim()));
    is_git_dir(&common).then(|| project_of_git_dir(&common))
}

/// Returns the project of a git directory: its parent if the git directory is named `.git`,
/// or if the parent has a `.git` file that names it, as often with a bare repository next to
/// its worktrees; else the git directory itself.
fn project_of_git_dir(git_dir: &Path) -> PathBuf {
    let Some(parent) = git_dir.parent() else {
        return git_dir.to_owned();
    };
    let is_dot_git = git_dir.file_name().is_some_and(|name| name == ".git");
    let is_named_by_file =
        || read_git_file(&parent.join(".git")).is_some_and(|named| named == git_dir);
    match is_dot_git || is_named_by_file() {
        true => parent.to_owned(),
        false => git_dir.to_owned(),
    }
}

/// Returns the first line of a regular file, within its first 8 KiB.
fn read_line(path: &Path) -> Option<String> {
    // Opening a FIFO would block.
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(MAX_FILE_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn put(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn place_of(directory: &str) -> SessionPlace {
        SessionPlace {
            directory: Some(directory.to_owned()),
            worktree: None,
            is_in_workspace: false,
        }
    }

    #[test]
    fn bare_repository_with_worktrees_is_one_project() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        // Next to its worktrees, with a `.git` file that names it; and elsewhere.
        for (bare, git) in [("a/.bare", Some("a/.git")), ("b/repo.git", None)] {
            put(&root.join(bare).join("HEAD"), "ref: refs/heads/main\n");
            put(&root.join(bare).join("worktrees/one/commondir"), "../..\n");
            fs::create_dir_all(root.join(bare).join("objects/aa")).unwrap();
            fs::create_dir_all(root.join(bare).join("refs")).unwrap();
            if let Some(git) = git {
                put(&root.join(git), "gitdir: ./.bare\n");
            }
            let worktree = root.join(bare).parent().unwrap().join("one");
            let git_dir = root.join(bare).join("worktrees/one");
            put(&git_dir.join("HEAD"), "ref: refs/heads/x\n");
            let line = format!("gitdir: {}\n", git_dir.display());
            put(&worktree.join(".git"), &line);
            put(&worktree.join("deep/file"), "");
        }
        for (directory, project) in [
            ("a", "a"),
            ("a/one", "a"),
            ("a/one/deep", "a"),
            ("a/.bare", "a"),
            ("a/.bare/objects/aa", "a"),
            ("b/one", "b/repo.git"),
            ("b/one/deep/gone", "b/repo.git"),
            ("b/repo.git", "b/repo.git"),
            ("b/repo.git/objects/aa", "b/repo.git"),
        ] {
            let found = find(&root.join(directory));
            assert_eq!(found.project, root.join(project), "{directory}");
        }
        assert_eq!(git_root(&root.join("b")), None);
    }

    #[test]
    fn links_and_spellings_lead_to_one_project() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        put(&root.join("real/repo/.git/HEAD"), "ref: refs/heads/main\n");
        put(&root.join("real/repo/deep/file"), "");
        put(&root.join("real/repo/.git/worktrees/w/HEAD"), "x\n");
        put(
            &root.join("real/repo/.git/worktrees/w/commondir"),
            "../..\n",
        );
        fs::create_dir_all(root.join("real/plain")).unwrap();
        // Relative to the real path of the worktree, also through a link to it.
        put(
            &root.join("real/worktrees/w/.git"),
            "gitdir: ../../repo/.git/worktrees/w\n",
        );
        // The `.git` file is a link: relative to the target of the link.
        put(
            &root.join("real/files/dot-git"),
            "gitdir: ../repo/.git/worktrees/w\n",
        );
        fs::create_dir_all(root.join("far/away/w")).unwrap();
        symlink(
            root.join("real/files/dot-git"),
            root.join("far/away/w/.git"),
        )
        .unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink("real/repo/deep", root.join("into")).unwrap();
        symlink("real/worktrees/w", root.join("w")).unwrap();
        for (directory, project) in [
            ("real/repo", "real/repo"),
            ("link/repo/deep", "real/repo"),
            ("link//repo/./deep/", "real/repo"),
            ("into", "real/repo"),
            ("into/gone/since", "real/repo"),
            ("w", "real/repo"),
            ("link/worktrees/w", "real/repo"),
            ("far/away/w", "real/repo"),
            ("link/plain", "real/plain"),
            ("link/plain/gone", "real/plain/gone"),
            ("nowhere//at/./all/", "nowhere/at/all"),
        ] {
            let found = find(&root.join(directory));
            assert_eq!(found.project, root.join(project), "{directory}");
            let is_there = root.join(directory).is_dir();
            assert_eq!(found.is_gone, !is_there, "{directory}");
            let projects = Projects::new();
            let place = place_of(&format!("{}/{directory}", root.display()));
            projects.resolve([&place], Instant::now() + Duration::from_secs(60));
            let project = root.join(project).to_str().unwrap().to_owned();
            assert_eq!(projects.of(&place), (Some(project), !is_there));
        }
        // Paths on another machine are normalized without accessing the disk.
        let projects = Projects::remote();
        assert_eq!(projects.of(&place_of("/a//b/./c/")).0.unwrap(), "/a/b/c");
        let mut place = place_of("/a");
        place.worktree = Some("/x//y/".to_owned());
        assert_eq!(projects.of(&place).0.unwrap(), "/x/y");
    }

    #[test]
    fn projects_of_many_directories_are_found() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let places: Vec<_> = (0..2000)
            .map(|n| {
                let repository = root.join(format!("{}/{n}", n % 10));
                fs::create_dir_all(repository.join(".git/refs")).unwrap();
                fs::create_dir_all(repository.join(".git/objects")).unwrap();
                fs::write(repository.join(".git/HEAD"), "ref: refs/heads/main").unwrap();
                fs::create_dir(repository.join("src")).unwrap();
                place_of(repository.join("src").to_str().unwrap())
            })
            .collect();
        let projects = Projects::new();
        projects.resolve(&places, Instant::now() + Duration::from_secs(60));
        for place in &places {
            let project = projects.of(place).0.unwrap();
            assert_eq!(
                format!("{project}/src"),
                place.directory.as_deref().unwrap()
            );
        }
    }

    #[test]
    fn last_known_project_stays_while_a_disk_blocks() {
        let (dead, fine) = ("/nowhere/dead/repo", "/nowhere/fine");
        let blocked = finder::tests::BlockedThread::at(dead, "/nowhere/dead");
        let projects = Projects::new();
        let places = [place_of(dead), place_of(fine)];
        for _ in 0..3 {
            let started = Instant::now();
            projects.resolve(&places, started + Duration::from_secs(60));
            assert_eq!(projects.of(&places[0]).0.unwrap(), "/nowhere/dead");
            assert_eq!(projects.of(&places[1]).0.unwrap(), fine);
            assert!(started.elapsed() < TIMEOUT, "{:?}", started.elapsed());
        }
        assert!(FinderPool::lock().blocked_threads(TIMEOUT) >= 1);
        drop(blocked);
        // The directory is inspected again.
        projects.resolve(&places, Instant::now() + Duration::from_secs(60));
        assert_eq!(projects.of(&places[0]).0.unwrap(), dead);
    }
}
