//! [`InProcessLister`]: lists within the calling process, for tests and for embedders that
//! cannot spawn processes. No other code opens a database in the main process.
//!
//! It has no isolation: a crash of SQLite is a crash of the host, and the listing uses the
//! host's memory. A read that the disk does not answer blocks the calling thread past the
//! deadline, because the deadline is checked only between SQLite's instructions.
//!
//! A host with its own connections to the same file must not use it. POSIX locks belong to
//! the process, and closing the descriptor that this lister opens drops the locks of every
//! other connection (<https://sqlite.org/howtocorrupt.html>, section 2.2). For the same
//! reason the lister runs one listing of a file at a time, whatever the number of threads
//! and the path that each of them uses. Listings of different files do not wait for each
//! other.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::helper::listing::{self, ListJob, RunStatus};
use crate::helper::look_up::{self, LookUpJob};
use crate::lister::{
    FailureReason, ListRequest, Lister, LookUpRequest, Outcome, Timeout, default_threads,
    outcome_of, until,
};
use crate::locate;
use crate::locate::DatabaseFiles;
use crate::marker;
use crate::store::{Filter, OpenOptions};
use crate::wire::{Answers, Checked, Content, ListingContent, LookUpContent, Progress, Writer};

/// The databases that threads are reading now.
static LEASED: Mutex<Vec<DatabaseId>> = Mutex::new(Vec::new());
/// Notified when a lease is returned.
static LEASE_RETURNED: Condvar = Condvar::new();

/// The identity of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DatabaseId {
    /// The canonical path, as far as it exists.
    path: PathBuf,
    /// The device and the inode, to which the system's locks belong; `None` if the file does
    /// not exist.
    file: Option<(u64, u64)>,
}

impl DatabaseId {
    fn of(db: &Path) -> Self {
        let path = DatabaseFiles::resolve(db).map_or_else(|_| db.to_owned(), |files| files.main);
        let file = std::fs::metadata(&path).ok();
        Self {
            file: file.map(|metadata| (metadata.dev(), metadata.ino())),
            path,
        }
    }

    /// Returns true if the two may be the same database. Equal paths suffice, because a file
    /// can be created at a path or removed from it at any time.
    fn may_equal(&self, other: &Self) -> bool {
        self.path == other.path || (self.file.is_some() && self.file == other.file)
    }
}

/// The exclusive right to read one database; dropping it returns the right.
struct DatabaseLease(DatabaseId);

impl DatabaseLease {
    /// Waits for the lease. Returns `None` if the deadline passes before.
    fn acquire(database: DatabaseId, deadline: Instant) -> Option<Self> {
        let is_leased =
            |leased: &[DatabaseId]| leased.iter().any(|other| other.may_equal(&database));
        let left = deadline.saturating_duration_since(Instant::now());
        let leased = LEASED.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut leased, _) = LEASE_RETURNED
            .wait_timeout_while(leased, left, |leased| is_leased(leased))
            .unwrap_or_else(PoisonError::into_inner);
        if is_leased(&leased) {
            return None;
        }
        leased.push(database.clone());
        Some(Self(database))
    }
}

impl Drop for DatabaseLease {
    fn drop(&mut self) {
        let mut leased = LEASED.lock().unwrap_or_else(PoisonError::into_inner);
        // Equal databases are never leased at once, so this removes only its own entry.
        leased.retain(|other| *other != self.0);
        // One notified thread may wait for another database, so all must check.
        LEASE_RETURNED.notify_all();
    }
}

/// A [`Lister`] that lists within the calling process, without a helper.
///
/// A crash of SQLite crashes the host, and a call can block past its deadline while the disk
/// does not respond. A host with its own connections to the same database must not use it.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcessLister;

impl Lister for InProcessLister {
    fn list(&self, request: &ListRequest) -> Outcome {
        let sessions = ListingContent::new(request.bounded_first_prompt_limit())
            .sharing(request.known.as_ref());
        let db = database(request.db.as_ref());
        run_exclusively(
            db.as_deref(),
            request.deadline,
            sessions,
            |deadline, out| {
                let job = list_job(request, db.clone(), deadline);
                listing::list(&job, None, out, io::sink())
            },
        )
    }

    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers> {
        let limit = request.bounded_first_prompt_limit();
        let answers = LookUpContent::new(request.what, &request.ids).with_first_prompt_limit(limit);
        let db = database(request.db.as_ref());
        run_exclusively(db.as_deref(), request.deadline, answers, |deadline, out| {
            let job = LookUpJob {
                db: db.clone(),
                what: request.what,
                ids: request.ids.clone(),
                first_prompt_limit: limit,
                open: options(request.busy_timeout(), deadline),
            };
            look_up::look_up(&job, out)
        })
    }
}

/// Returns the listing of this database for the time that is left until the deadline.
fn list_job(request: &ListRequest, db: Option<PathBuf>, deadline: Instant) -> ListJob {
    let left = deadline.saturating_duration_since(Instant::now());
    let cache = request.scan_cache.clone();
    ListJob {
        marker: marker::Options {
            marker: request.marker.clone(),
            cache: cache.and_then(|cache| cache.prepare(db.as_ref()?)),
            budget: Some(request.bounded_scan_budget(left)),
            threads: default_threads(),
        },
        filter: Filter {
            children: request.children,
            archived: request.archived,
        },
        open: options(request.busy_timeout(), deadline),
        first_prompt_limit: request.bounded_first_prompt_limit(),
        db,
    }
}

/// Returns the requested database, by default the only one that is found; `None` if none or
/// several are found.
fn database(requested: Option<&PathBuf>) -> Option<PathBuf> {
    requested
        .cloned()
        .or_else(|| locate::one_database().ok().flatten())
}

fn options(busy_timeout: Duration, deadline: Instant) -> OpenOptions {
    OpenOptions {
        busy_timeout,
        heap_limit: None,
        deadline: Some(deadline),
    }
}

/// Runs `work` while this thread holds the lease of the database, and checks its output.
fn run_exclusively<C: Content>(
    db: Option<&Path>,
    deadline: Duration,
    content: C,
    work: impl FnOnce(Instant, Writer<&mut Checked<C>>) -> io::Result<RunStatus>,
) -> Outcome<C::Whole> {
    let until = until(deadline);
    let timed_out = |progress| {
        Outcome::TimedOut(Timeout {
            deadline,
            progress,
            is_command: false,
            stderr_tail: String::new(),
        })
    };
    // Without a database no lease is needed.
    let lease = db.map(|db| DatabaseLease::acquire(DatabaseId::of(db), until));
    if matches!(lease, Some(None)) {
        return timed_out(Progress::Nothing);
    }
    let mut checked = Checked::of(content);
    let mut writer = Writer::new(&mut checked);
    // A failed write is a violation, which `finish` returns.
    if writer.hello().is_ok() {
        let _ = work(until, writer);
    }
    let progress = Progress::Sessions(checked.count());
    match checked.finish().map(outcome_of) {
        Ok(Outcome::Refused(_)) if Instant::now() >= until => timed_out(progress),
        Ok(outcome) => outcome,
        Err(violation) => Outcome::Failed(FailureReason::Wire(violation).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lease_excludes_every_name_of_one_database() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        for name in ["a.db", "b.db"] {
            std::fs::write(path(name), name).unwrap();
        }
        std::fs::hard_link(path("a.db"), path("hard.db")).unwrap();
        std::os::unix::fs::symlink("a.db", path("link.db")).unwrap();
        let acquire = |db: &Path| DatabaseLease::acquire(DatabaseId::of(db), Instant::now());
        for (leased, requested, is_free) in [
            ("a.db", "a.db", false),
            ("a.db", "link.db", false),
            ("hard.db", "a.db", false),
            ("a.db", "b.db", true),
            ("none.db", "none.db", false),
            ("none.db", "a.db", true),
        ] {
            let lease = acquire(&path(leased)).unwrap();
            let is_acquired = acquire(&path(requested)).is_some();
            assert_eq!(is_acquired, is_free, "{leased}, {requested}");
            drop(lease);
            assert!(
                acquire(&path(requested)).is_some(),
                "{requested} is free again"
            );
        }
        // The file is created while the lease of its path is held.
        let lease = acquire(&path("later.db")).unwrap();
        std::fs::write(path("later.db"), "").unwrap();
        assert!(acquire(&path("later.db")).is_none());
        drop(lease);
    }

    /// The time left can be much less than the request's deadline if the listing waited for
    /// another one.
    #[test]
    fn scan_budget_is_at_most_half_of_the_time_left() {
        let seconds = Duration::from_secs;
        let request = |scan_budget, first_prompt_limit| ListRequest {
            scan_budget,
            first_prompt_limit,
            deadline: seconds(100),
            ..ListRequest::of("/x")
        };
        let job = |request: &ListRequest, left: Duration| {
            let job = list_job(request, request.db.clone(), Instant::now() + left);
            (job.marker.budget.unwrap(), job.first_prompt_limit)
        };
        let (budget, limit) = job(&request(None, 0), seconds(60));
        // On a loaded machine much time can pass between two readings of the clock.
        assert!(budget <= seconds(30) && budget > seconds(20), "{budget:?}");
        assert_eq!(limit, 1);
        let (budget, limit) = job(&request(Some(seconds(2)), 4_000), seconds(60));
        assert_eq!((budget, limit), (seconds(2), 4_000));
        let (budget, _) = job(&request(Some(seconds(2)), 200), Duration::ZERO);
        assert_eq!(budget, Duration::from_millis(1));
    }
}
