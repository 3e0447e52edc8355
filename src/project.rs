//! Which project a session is of: where a person would say it happened.
//!
//! The project's worktree; else the git root of the session's directory, where
//! a linked worktree counts as its main repository and a submodule as itself;
//! else the directory. A session with a workspace ran somewhere else, so its
//! directory is not looked for here. Finding it reads a few small files and never runs `git`
//! (<https://git-scm.com/docs/gitrepository-layout>).
//!
//! A directory may be on a disk that does not answer. So the files are read by a
//! thread of their own, and where it takes too long the directory stands for the
//! project: nothing waits.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::session::Session;

/// How long all looking together may hold up its caller.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long what was found is taken for true.
const MEMORY: Duration = Duration::from_secs(60);

/// A `.git` file or a `commondir` is one line; more is none of ours.
const SMALL_FILE: u64 = 8 << 10;

/// Finds projects, and remembers what it found.
#[derive(Debug)]
pub struct Projects {
    is_elsewhere: bool,
    known: HashMap<String, String>,
    finder: Option<Finder>,
    patience: Duration,
    since: Instant,
}

#[derive(Debug)]
struct Finder {
    ask: Sender<PathBuf>,
    answers: Receiver<(PathBuf, Option<PathBuf>)>,
}

impl Default for Projects {
    fn default() -> Self {
        Self::new()
    }
}

impl Projects {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            is_elsewhere: false,
            known: HashMap::new(),
            finder: None,
            patience: PATIENCE,
            since: Instant::now(),
        }
    }

    /// For sessions of another machine: without their worktree, their directory is their
    /// project, and nothing is looked at here.
    #[must_use]
    pub fn of_another_machine() -> Self {
        Self {
            is_elsewhere: true,
            ..Self::new()
        }
    }

    /// Has all its patience again, and forgets what it found if that was long
    /// ago: a directory may have become a repository. Call it before each
    /// listing.
    pub fn refresh(&mut self) {
        self.patience = PATIENCE;
        if self.since.elapsed() >= MEMORY {
            self.since = Instant::now();
            self.known.clear();
        }
    }

    /// The session's project; `None` where it has neither worktree nor directory.
    pub fn of(&mut self, session: &Session) -> Option<String> {
        if let Some(worktree) = &session.worktree {
            return Some(worktree.clone());
        }
        let directory = session.directory.as_deref()?;
        if self.is_elsewhere || has_workspace(session) {
            return Some(directory.to_owned());
        }
        if let Some(known) = self.known.get(directory) {
            return Some(known.clone());
        }
        let project = self
            .git_root(Path::new(directory))
            .and_then(|root| root.into_os_string().into_string().ok())
            .unwrap_or_else(|| directory.to_owned());
        self.known.insert(directory.to_owned(), project.clone());
        Some(project)
    }

    /// The git root, as far as there is patience left.
    fn git_root(&mut self, directory: &Path) -> Option<PathBuf> {
        let asked = Instant::now();
        let until = asked + self.patience;
        let finder = match &self.finder {
            Some(finder) => finder,
            None => self.finder.insert(Finder::start()?),
        };
        finder.ask.send(directory.to_owned()).ok()?;
        let answer = loop {
            let left = until.saturating_duration_since(Instant::now());
            match finder.answers.recv_timeout(left) {
                Ok((of, root)) if of == directory => break root,
                // A late answer to an earlier question.
                Ok(_) => {}
                Err(_) => break None,
            }
        };
        self.patience = self.patience.saturating_sub(asked.elapsed());
        answer
    }
}

/// Whether the session's directory is one of its workspace, in a container or on
/// another machine: the same path here can be anything.
fn has_workspace(session: &Session) -> bool {
    let id = session.workspace_id.as_deref();
    id.is_some_and(|id| !id.trim().is_empty())
}

impl Finder {
    fn start() -> Option<Self> {
        let (ask, asked) = mpsc::channel::<PathBuf>();
        let (answer, answers) = mpsc::channel();
        thread::Builder::new()
            .name("projects".into())
            .spawn(move || {
                for directory in asked {
                    let root = git_root(&directory);
                    if answer.send((directory, root)).is_err() {
                        break;
                    }
                }
            })
            .ok()?;
        Some(Self { ask, answers })
    }
}

/// The root of the repository that `directory` is in, or would be in if it were
/// still there. Reads files, and may be slow.
#[must_use]
pub fn git_root(directory: &Path) -> Option<PathBuf> {
    if !directory.is_absolute() {
        return None;
    }
    directory.ancestors().find_map(|ancestor| {
        let git = ancestor.join(".git");
        let about = fs::metadata(&git).ok()?;
        if about.is_dir() {
            return is_repository(&git).then(|| ancestor.to_owned());
        }
        let line = read_line(&git)?;
        let git_dir = normal(&ancestor.join(line.strip_prefix("gitdir:")?.trim()));
        Some(main_repository(&git_dir).unwrap_or_else(|| ancestor.to_owned()))
    })
}

/// Git passes over a `.git` directory that is none.
fn is_repository(git_dir: &Path) -> bool {
    // A symbolic link that leads nowhere is a HEAD too.
    fs::symlink_metadata(git_dir.join("HEAD")).is_ok()
}

/// For the git directory of a linked worktree, its main repository. Only such a
/// directory has a `commondir`; a submodule's has not.
fn main_repository(git_dir: &Path) -> Option<PathBuf> {
    let common = normal(&git_dir.join(read_line(&git_dir.join("commondir"))?.trim()));
    if !is_repository(&common) {
        return None;
    }
    match common.file_name() {
        Some(name) if name == ".git" => common.parent().map(Path::to_owned),
        // A bare repository.
        _ => Some(common),
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
