//! `list --project PATH`: keeps the sessions of the project that a path is in.
//!
//! An error names the path. It occurs if the current directory no longer exists, or if the
//! disk of the path does not answer before the deadline.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

use crate::entry::Sourced;
use crate::locate;
use crate::project;
use crate::text::{DisplayPath, format_duration};

/// Keeps the sessions whose project or directory is the given path, its real path, or the
/// repository of one of these.
///
/// The disk may not answer, so a thread resolves the paths while the sessions are listed.
pub(super) struct ProjectFilter {
    /// The start of every error message.
    task: String,
    until: Instant,
    projects: Receiver<Vec<PathBuf>>,
}

impl ProjectFilter {
    /// Starts to resolve `path`, which must take no longer than until `until`.
    pub(super) fn start(path: &Path, until: Instant) -> anyhow::Result<Self> {
        let task = format!("cannot find the project of --project {}", DisplayPath(path));
        let absolute = std::path::absolute(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => anyhow!("the current directory no longer exists"),
            _ => error.into(),
        });
        let absolute = absolute.with_context(|| task.clone())?;
        let path = path.to_owned();
        let (sender, projects) = mpsc::channel();
        let thread = thread::Builder::new().name("project".into());
        let thread = thread.spawn(move || {
            let mut paths = vec![locate::normalize(&absolute)];
            paths.extend(std::fs::canonicalize(path));
            let roots = paths.iter().filter_map(|path| project::git_root(path));
            let roots: Vec<_> = roots.collect();
            paths.extend(roots);
            let _ = sender.send(paths);
        });
        thread.with_context(|| task.clone())?;
        Ok(Self {
            task,
            until,
            projects,
        })
    }

    /// Removes the sessions of other projects. Waits for the disk until the deadline; the
    /// error names the whole `deadline`.
    pub(super) fn retain(
        &self,
        sessions: &mut Vec<Sourced>,
        deadline: Duration,
    ) -> anyhow::Result<()> {
        let paths = self.paths(deadline).with_context(|| self.task.clone())?;
        sessions.retain(|Sourced { entry, .. }| {
            [&entry.project, &entry.session.directory]
                .into_iter()
                .flatten()
                .any(|path| paths.iter().any(|wanted| wanted == Path::new(path)))
        });
        Ok(())
    }

    fn paths(&self, deadline: Duration) -> anyhow::Result<Vec<PathBuf>> {
        let left = self.until.saturating_duration_since(Instant::now());
        self.projects
            .recv_timeout(left)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => anyhow!(
                    "its disk did not answer within {} (check the disk, or list without --project)",
                    format_duration(deadline)
                ),
                RecvTimeoutError::Disconnected => {
                    anyhow!("internal error in its thread (please report it)")
                }
            })
    }
}
