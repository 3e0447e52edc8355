//! `list --project PATH`: which sessions are of the project that a path is in.
//!
//! An error names the path where the current directory is gone, or where the path's disk
//! does not answer before the deadline.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::cannot;
use crate::entry::Sourced;
use crate::locate;
use crate::project;
use crate::text::{DisplayPath, format_duration};

/// What the project of a wanted session may be: the path that was given, its real path,
/// and the repositories that these are in.
///
/// Its disk may not answer, so another thread asks it while the sessions are listed.
pub(super) struct Wanted {
    what: String,
    until: Instant,
    projects: Receiver<Vec<PathBuf>>,
}

impl Wanted {
    pub(super) fn start(path: &Path, until: Instant) -> io::Result<Self> {
        let what = format!("tell which project --project {} is", DisplayPath(path));
        let absolute = std::path::absolute(path).map_err(|error| match error.kind() {
            kind @ io::ErrorKind::NotFound => {
                io::Error::new(kind, "the current directory is not there any more")
            }
            _ => error,
        });
        let absolute = absolute.map_err(cannot(&what))?;
        let path = path.to_owned();
        let (to, projects) = mpsc::channel();
        let thread = thread::Builder::new().name("project".into());
        let thread = thread.spawn(move || {
            let mut wanted = vec![locate::normalize(&absolute)];
            wanted.extend(std::fs::canonicalize(path));
            let roots = wanted.iter().filter_map(|path| project::git_root(path));
            let roots: Vec<_> = roots.collect();
            wanted.extend(roots);
            let _ = to.send(wanted);
        });
        thread.map_err(cannot(&what))?;
        Ok(Self {
            what,
            until,
            projects,
        })
    }

    /// Keeps the entries of this project. Waits for the disk until the deadline, which was
    /// so long.
    pub(super) fn retain(&self, sessions: &mut Vec<Sourced>, deadline: Duration) -> io::Result<()> {
        let wanted = self.paths(deadline)?;
        sessions.retain(|Sourced { entry, .. }| {
            [&entry.project, &entry.session.directory]
                .into_iter()
                .flatten()
                .any(|path| wanted.iter().any(|wanted| wanted == Path::new(path)))
        });
        Ok(())
    }

    fn paths(&self, deadline: Duration) -> io::Result<Vec<PathBuf>> {
        let left = self.until.saturating_duration_since(Instant::now());
        let projects = self.projects.recv_timeout(left);
        projects.map_err(|error| {
            let why = match error {
                RecvTimeoutError::Timeout => format!(
                    "its disk does not answer within {} (check the disk, or list without \
                     --project)",
                    format_duration(deadline)
                ),
                RecvTimeoutError::Disconnected => "this is a fault: please report it".to_owned(),
            };
            cannot(&self.what)(io::Error::new(io::ErrorKind::TimedOut, why))
        })
    }
}
