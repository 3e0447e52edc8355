//! Listing within this process, for tests and for embedders that cannot launch
//! programs. The only place of the main process that reaches the database.
//!
//! What it gives up: a crash of SQLite is a crash of the host, memory is the
//! host's, and a read that the disk does not answer blocks the calling thread
//! past its deadline, which is looked at only between SQLite's instructions.
//!
//! Hosts that have connections of their own to the same file must not use it:
//! POSIX locks belong to a process, and closing the descriptor that this lister
//! opens drops the locks of every other connection
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2). For the same reason
//! it makes one listing of a file at a time, however many threads ask and whatever they
//! call the file. Listings of several files do not wait for each other.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::helper::listing::{self, Ended};
use crate::helper::look_up;
use crate::lister::{
    FailureReason, ListRequest, Lister, LookUpRequest, Outcome, Timeout, default_threads,
    outcome_of, until,
};
use crate::locate;
use crate::locate::DatabaseFiles;
use crate::marker;
use crate::store::{Filter, OpenOptions};
use crate::wire::{Answers, Checked, Content, ListingContent, LookUpContent, Progress, Writer};

/// The databases that threads are reading.
static TAKEN: Mutex<Vec<DatabaseId>> = Mutex::new(Vec::new());
static GIVEN_BACK: Condvar = Condvar::new();

/// What tells one database from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DatabaseId {
    /// Canonical, as far as it is there.
    path: PathBuf,
    /// The device and the inode, which are what the system's locks belong to; `None` where
    /// there is no file.
    file: Option<(u64, u64)>,
}

impl DatabaseId {
    fn of(db: &Path) -> Self {
        let path = DatabaseFiles::resolve(db).map_or_else(|_| db.to_owned(), |files| files.main);
        let file = std::fs::metadata(&path).ok();
        Self {
            file: file.map(|about| (about.dev(), about.ino())),
            path,
        }
    }

    /// Whether it can be the same database: a file can come to a path, or go from it, at
    /// any time.
    fn can_be(&self, other: &Self) -> bool {
        self.path == other.path || (self.file.is_some() && self.file == other.file)
    }
}

/// The right to read one database, given back when it is dropped.
struct Turn(DatabaseId);

impl Turn {
    /// Waits for it, but not past the deadline.
    fn take(database: DatabaseId, deadline: Instant) -> Option<Self> {
        let is_taken = |taken: &[DatabaseId]| taken.iter().any(|other| other.can_be(&database));
        let left = deadline.saturating_duration_since(Instant::now());
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, _) = GIVEN_BACK
            .wait_timeout_while(taken, left, |taken| is_taken(taken))
            .unwrap_or_else(PoisonError::into_inner);
        if is_taken(&taken) {
            return None;
        }
        taken.push(database.clone());
        Some(Self(database))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        // No two that are alike are in it at once.
        taken.retain(|other| *other != self.0);
        // Whoever is told may wait for another database.
        GIVEN_BACK.notify_all();
    }
}

/// Lists within this process; see the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcessLister;

impl Lister for InProcessLister {
    fn list(&self, request: &ListRequest) -> Outcome {
        let sessions = ListingContent::new(request.bounded_first_prompt_limit())
            .sharing(request.known.clone());
        let db = database(request.db.as_ref());
        in_turn(
            db.as_deref(),
            request.deadline,
            sessions,
            |deadline, out| {
                let task = listing_task(request, db.clone(), deadline);
                listing::list(&task, out, io::sink())
            },
        )
    }

    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers> {
        let limit = request.bounded_first_prompt_limit();
        let asked = LookUpContent::new(request.what, &request.ids).with_first_prompt_limit(limit);
        let db = database(request.db.as_ref());
        in_turn(db.as_deref(), request.deadline, asked, |deadline, out| {
            let task = look_up::Task {
                db: db.clone(),
                what: request.what,
                ids: request.ids.clone(),
                first_prompt_limit: limit,
                open: options(request.busy_timeout(), deadline),
            };
            look_up::look_up(&task, out)
        })
    }
}

/// The listing of this database, in the time that is left until the deadline.
fn listing_task(request: &ListRequest, db: Option<PathBuf>, deadline: Instant) -> listing::Task {
    let left = deadline.saturating_duration_since(Instant::now());
    let cache = request.scan_cache.clone();
    listing::Task {
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

/// The database; where several are found, none is.
fn database(asked: Option<&PathBuf>) -> Option<PathBuf> {
    asked
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

/// Does the helper's work when it is this thread's turn, and checks what it says.
fn in_turn<C: Content>(
    db: Option<&Path>,
    deadline: Duration,
    content: C,
    work: impl FnOnce(Instant, Writer<&mut Checked<C>>) -> io::Result<Ended>,
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
    // Without a database there is nothing to wait for.
    let turn = db.map(|db| Turn::take(DatabaseId::of(db), until));
    if matches!(turn, Some(None)) {
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
    fn turns_are_of_one_database_under_any_name() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        for name in ["a.db", "b.db"] {
            std::fs::write(path(name), name).unwrap();
        }
        std::fs::hard_link(path("a.db"), path("hard.db")).unwrap();
        std::os::unix::fs::symlink("a.db", path("link.db")).unwrap();
        let take = |db: &Path| Turn::take(DatabaseId::of(db), Instant::now());
        for (taken, asked, is_free) in [
            ("a.db", "a.db", false),
            ("a.db", "link.db", false),
            ("hard.db", "a.db", false),
            ("a.db", "b.db", true),
            ("none.db", "none.db", false),
            ("none.db", "a.db", true),
        ] {
            let held = take(&path(taken)).unwrap();
            let got = take(&path(asked)).is_some();
            assert_eq!(got, is_free, "{taken}, {asked}");
            drop(held);
            assert!(take(&path(asked)).is_some(), "{asked} was given back");
        }
        // The file comes while somebody waits for it to be there.
        let held = take(&path("later.db")).unwrap();
        std::fs::write(path("later.db"), "").unwrap();
        assert!(take(&path("later.db")).is_none());
        drop(held);
    }

    /// The time left can be much less than the request's deadline: another listing had
    /// its turn.
    #[test]
    fn scan_has_at_most_half_of_the_time_left() {
        let seconds = Duration::from_secs;
        let request = |scan_budget, first_prompt_limit| ListRequest {
            scan_budget,
            first_prompt_limit,
            deadline: seconds(100),
            ..ListRequest::of("/x")
        };
        let task = |request: &ListRequest, left: Duration| {
            let task = listing_task(request, request.db.clone(), Instant::now() + left);
            (task.marker.budget.unwrap(), task.first_prompt_limit)
        };
        let (budget, limit) = task(&request(None, 0), seconds(60));
        // A busy machine takes its time from one look at the clock to the next.
        assert!(budget <= seconds(30) && budget > seconds(20), "{budget:?}");
        assert_eq!(limit, 1);
        let (budget, limit) = task(&request(Some(seconds(2)), 4_000), seconds(60));
        assert_eq!((budget, limit), (seconds(2), 4_000));
        let (budget, _) = task(&request(Some(seconds(2)), 200), Duration::ZERO);
        assert_eq!(budget, Duration::from_millis(1));
    }
}
