//! Which project a session is of, where a person would say it happened, and whether its
//! directory is still there.
//!
//! The project's worktree; else the git root of the session's directory, where
//! a linked worktree counts as its main repository and a submodule as itself;
//! else the directory. A session with a workspace ran somewhere else, so its
//! directory is not looked for here. Finding it reads a few small files and never runs `git`
//! (<https://git-scm.com/docs/gitrepository-layout>).
//!
//! What is found on this machine is the real path, as git has it, so that one directory is
//! one project whatever links lead to it.
//!
//! A directory may be on a disk that does not answer. So the files are read by
//! other threads, and where that takes too long the session keeps the project it
//! had, or its directory stands for it, which counts as there. A directory that takes long delays no other, and is
//! waited for once.

mod finder;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use crate::entry::Entry;
use crate::locate::is_missing;
use crate::session::{Session, SessionPlace};
use finder::Finders;

/// How long all looking together may hold up its caller.
const PATIENCE: Duration = Duration::from_secs(1);

/// It may also take only this part of the time that the caller has: others look after it.
const SHARE: u32 = 4;

/// A directory that takes longer than this does not keep the others waiting.
const SLOW: Duration = Duration::from_millis(100);

/// How long what was found is taken for true.
const MEMORY: Duration = Duration::from_secs(60);

/// A `.git` file or a `commondir` is one line; more is none of ours.
const SMALL_FILE: u64 = 8 << 10;

/// Finds the projects of a source's sessions. What was found is known in the whole process.
#[derive(Debug)]
pub struct Projects {
    is_elsewhere: bool,
}

impl Default for Projects {
    fn default() -> Self {
        Self::new()
    }
}

impl Projects {
    /// For sessions of this machine.
    #[must_use]
    pub fn new() -> Self {
        Self {
            is_elsewhere: false,
        }
    }

    /// For sessions of another machine: without their worktree, their directory is their
    /// project, and nothing is looked at here.
    #[must_use]
    pub fn of_another_machine() -> Self {
        Self { is_elsewhere: true }
    }

    /// Finds the projects of all these places. Waits for the disk, up to a second, and less if
    /// little is left until the caller's deadline. An answer older than a minute is asked for
    /// again: a directory may have become a repository.
    pub fn look<'a>(&self, places: impl IntoIterator<Item = &'a SessionPlace>, until: Instant) {
        let directories: HashSet<&str> = places
            .into_iter()
            .filter_map(|place| self.directory_here(place))
            .collect();
        let asked = Instant::now();
        let patience = PATIENCE.min(until.saturating_duration_since(asked) / SHARE);
        let directories: Vec<_> = directories.into_iter().collect();
        if !directories.is_empty() && !patience.is_zero() {
            finder::find_all(&directories, asked + patience);
        }
    }

    /// Returns the project of a place, as far as [`look`](Self::look) found it, and whether
    /// its directory was missing then. A place without worktree and directory has no project.
    #[must_use]
    pub fn of(&self, place: &SessionPlace) -> (Option<String>, bool) {
        let known = self.directory_here(place).map(|directory| {
            let finders = Finders::lock();
            let known = finders.known(directory);
            known.map(|known| (known.project.clone(), known.is_gone))
        });
        let (found, is_gone) = known.flatten().unzip();
        let worktree = place.worktree.as_deref().map(tidy);
        let directory = place.directory.as_deref();
        let project = worktree.or(found).or_else(|| directory.map(tidy));
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
    fn directory_here<'a>(&self, place: &'a SessionPlace) -> Option<&'a str> {
        let is_here = !self.is_elsewhere && !place.is_in_workspace;
        place.directory.as_deref().filter(|_| is_here)
    }
}

/// The path without `//`, `/./` and a slash at its end, by its letters alone.
fn tidy(path: &str) -> String {
    let tidy: PathBuf = Path::new(path).components().collect();
    tidy.into_os_string()
        .into_string()
        .ok()
        .filter(|tidy| !tidy.is_empty())
        .unwrap_or_else(|| path.to_owned())
}

/// What is found out about a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct About {
    project: PathBuf,
    /// It is not there.
    is_gone: bool,
}

/// Finds out about a directory of this machine. Reads files, and may be slow.
fn find(directory: &Path) -> About {
    if !directory.is_absolute() {
        return About {
            project: directory.to_owned(),
            is_gone: false,
        };
    }
    let real = real(directory);
    About {
        project: git_root_of(&real).unwrap_or(real),
        is_gone: fs::metadata(directory).is_err_and(|error| is_missing(&error)),
    }
}

/// The root of the repository that `directory` is in, or would be in if it were
/// still there, by its real path. Reads files, and may be slow.
#[must_use]
pub fn git_root(directory: &Path) -> Option<PathBuf> {
    match directory.is_absolute() {
        true => git_root_of(&real(directory)),
        false => None,
    }
}

fn git_root_of(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().find_map(|ancestor| {
        let git = ancestor.join(".git");
        match fs::metadata(&git) {
            Ok(about) if about.is_dir() => is_repository(&git).then(|| ancestor.to_owned()),
            Ok(_) => {
                let git_dir = linked(&git)?;
                Some(main_repository(&git_dir).unwrap_or_else(|| ancestor.to_owned()))
            }
            // Within a repository without a `.git`.
            Err(_) => is_bare(ancestor).then(|| of_repository(ancestor)),
        }
    })
}

/// The real path. Of a directory that is not there any more the part that is.
fn real(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return normal(&real.join(rest));
        }
    }
    normal(path)
}

/// Git passes over a `.git` directory that is none.
fn is_repository(git_dir: &Path) -> bool {
    // A symbolic link that leads nowhere is a HEAD too.
    fs::symlink_metadata(git_dir.join("HEAD")).is_ok()
}

/// Whether this is the directory of a repository, by what git asks of one that is not
/// called `.git`.
fn is_bare(directory: &Path) -> bool {
    is_repository(directory)
        && directory.join("objects").is_dir()
        && directory.join("refs").is_dir()
}

/// The git directory that a `.git` file leads to. A relative one is relative to the file's
/// place, as git has it; and, where no repository is there, to the file that a link in its
/// place leads to.
fn linked(git: &Path) -> Option<PathBuf> {
    let line = read_line(git)?;
    let to = Path::new(line.strip_prefix("gitdir:")?.trim());
    let from = |file: &Path| Some(real(&file.parent()?.join(to)));
    let git_dir = from(git)?;
    if !is_repository(&git_dir)
        && let Some(other) = git.canonicalize().ok().as_deref().and_then(from)
        && is_repository(&other)
    {
        return Some(other);
    }
    Some(git_dir)
}

/// For the git directory of a linked worktree, its main repository. Only such a
/// directory has a `commondir`; a submodule's has not.
fn main_repository(git_dir: &Path) -> Option<PathBuf> {
    let common = real(&git_dir.join(read_line(&git_dir.join("commondir"))?.trim()));
    is_repository(&common).then(|| of_repository(&common))
}

/// The project of a repository: the directory that has it as `.git`, or has a `.git` file
/// that leads to it, as a bare repository beside its worktrees often is; else the
/// repository.
fn of_repository(common: &Path) -> PathBuf {
    let Some(parent) = common.parent() else {
        return common.to_owned();
    };
    let is_git = common.file_name().is_some_and(|name| name == ".git");
    let leads_here = || linked(&parent.join(".git")).is_some_and(|to| to == common);
    match is_git || leads_here() {
        true => parent.to_owned(),
        false => common.to_owned(),
    }
}

/// The first line of a small ordinary file.
fn read_line(path: &Path) -> Option<String> {
    // Opening a FIFO would block.
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(SMALL_FILE)
        .read_to_string(&mut text)
        .ok()?;
    text.lines().next().map(str::to_owned)
}

/// The path without `.` and `..`, by its letters alone.
#[must_use]
pub fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            component => normal.push(component),
        }
    }
    normal
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
        // Beside its worktrees, where a `.git` file leads to it, and elsewhere.
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
        // Relative to the worktree's real place, wherever a link to it is.
        put(
            &root.join("real/worktrees/w/.git"),
            "gitdir: ../../repo/.git/worktrees/w\n",
        );
        // A link in the place of the file: relative to what it leads to.
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
            projects.look([&place], Instant::now() + Duration::from_secs(60));
            let project = root.join(project).to_str().unwrap().to_owned();
            assert_eq!(projects.of(&place), (Some(project), !is_there));
        }
        // Of another machine there are only letters.
        let projects = Projects::of_another_machine();
        assert_eq!(projects.of(&place_of("/a//b/./c/")).0.unwrap(), "/a/b/c");
        let mut place = place_of("/a");
        place.worktree = Some("/x//y/".to_owned());
        assert_eq!(projects.of(&place).0.unwrap(), "/x/y");
    }

    #[test]
    fn as_many_directories_as_there_are_sessions_are_found() {
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
        projects.look(&places, Instant::now() + Duration::from_secs(60));
        for place in &places {
            let project = projects.of(place).0.unwrap();
            assert_eq!(
                format!("{project}/src"),
                place.directory.as_deref().unwrap()
            );
        }
    }

    #[test]
    fn last_known_project_stays_while_a_disk_does_not_answer() {
        let (dead, fine) = ("/nowhere/dead/repo", "/nowhere/fine");
        let held = finder::tests::Held::at(dead, "/nowhere/dead");
        let projects = Projects::new();
        let places = [place_of(dead), place_of(fine)];
        for _ in 0..3 {
            let started = Instant::now();
            projects.look(&places, started + Duration::from_secs(60));
            assert_eq!(projects.of(&places[0]).0.unwrap(), "/nowhere/dead");
            assert_eq!(projects.of(&places[1]).0.unwrap(), fine);
            assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
        }
        assert!(Finders::lock().stuck(PATIENCE) >= 1);
        drop(held);
        // It is asked for again.
        projects.look(&places, Instant::now() + Duration::from_secs(60));
        assert_eq!(projects.of(&places[0]).0.unwrap(), dead);
    }
}
