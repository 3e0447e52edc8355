//! Finds git roots on disks that may not respond, with a few threads for the whole process.
//!
//! Usually one thread inspects all directories and ends with the last. If it blocks on a
//! directory, another thread continues, first with the directories that share the least of
//! their path with the blocked one. At most [`MAX_THREADS`] threads run, and at most
//! [`MAX_THREADS_PER_DISK`] on one disk, so that a dead mount with many directories does not
//! occupy all of them.
//!
//! A result is kept until a newer one replaces it, even if the disk has stopped responding
//! since. Only if very many directories are cached, those not requested for an hour are
//! dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{CACHE_TTL, SLOW_DIRECTORY, TIMEOUT, normalize_text};

/// The maximum number of threads.
const MAX_THREADS: usize = 8;

/// The maximum number of threads on one disk, or in one directory.
const MAX_THREADS_PER_DISK: usize = 2;

/// If more directories are cached than this, those not requested within the last hour are
/// dropped.
const MANY_CACHED: usize = 50_000;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The cached results, the directories still to inspect, and the threads of the process.
pub(super) struct FinderPool {
    cache: BTreeMap<String, CachedProject>,
    queue: BTreeSet<String>,
    running: Vec<Inspection>,
    threads: usize,
    next_id: u64,
    /// The mount points, and when they were read.
    mounts: Option<(Instant, Arc<[PathBuf]>)>,
}

pub(super) struct CachedProject {
    pub(super) project: String,
    pub(super) is_gone: bool,
    found_at: Instant,
    requested_at: Instant,
}

/// A directory that a thread is inspecting.
struct Inspection {
    id: u64,
    directory: String,
    started: Instant,
}

static POOL: Mutex<FinderPool> = Mutex::new(FinderPool {
    cache: BTreeMap::new(),
    queue: BTreeSet::new(),
    running: Vec::new(),
    threads: 0,
    next_id: 0,
    mounts: None,
});

/// Notified when the queue is empty. A caller that waits for only some of the directories
/// also checks at intervals.
static QUEUE_EMPTY: Condvar = Condvar::new();

/// Finds the projects of these directories unless a fresh result is cached, and waits for
/// the results until `until`. Does not wait for a directory that has blocked a thread for
/// longer than [`TIMEOUT`].
pub(super) fn find_all(directories: &[&str], until: Instant) {
    let requested_at = Instant::now();
    let slow = SLOW_DIRECTORY.min(until.saturating_duration_since(requested_at) / 4);
    let mut pool = FinderPool::lock();
    let mut pending = pool.enqueue(directories, requested_at);
    pool.spawn_if_blocked(slow);
    loop {
        let mounts = pool.mounts();
        pending.retain(|directory| pool.is_expected(directory, requested_at, &mounts));
        let left = until.saturating_duration_since(Instant::now());
        if pending.is_empty() || left.is_zero() {
            return;
        }
        let waited = QUEUE_EMPTY.wait_timeout(pool, left.min(slow));
        pool = waited.unwrap_or_else(PoisonError::into_inner).0;
        pool.spawn_if_blocked(slow);
    }
}

impl FinderPool {
    pub(super) fn lock() -> MutexGuard<'static, Self> {
        POOL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the last result for this directory.
    pub(super) fn cached(&self, directory: &str) -> Option<&CachedProject> {
        self.cache.get(directory)
    }

    /// Returns how many threads have been inspecting one directory for this long.
    pub(super) fn blocked_threads(&self, min_duration: Duration) -> usize {
        let is_blocked = |inspection: &&Inspection| inspection.started.elapsed() >= min_duration;
        self.running.iter().filter(is_blocked).count()
    }

    /// Queues the directories without a fresh result. Returns those to wait for.
    fn enqueue<'a>(&mut self, directories: &[&'a str], now: Instant) -> Vec<&'a str> {
        if self.cache.len() > MANY_CACHED {
            self.cache
                .retain(|_, cached| now.saturating_duration_since(cached.requested_at) < HOUR);
        }
        let mut pending = Vec::new();
        for directory in directories {
            if let Some(cached) = self.cache.get_mut(*directory) {
                cached.requested_at = now;
                if now.saturating_duration_since(cached.found_at) < CACHE_TTL {
                    continue;
                }
            }
            let is_running = self.running.iter().any(|at| at.directory == *directory);
            if !is_running {
                self.queue.insert((*directory).to_owned());
            }
            pending.push(*directory);
        }
        pending
    }

    /// Returns true if a result for this directory, not older than `requested_at`, can still
    /// be expected.
    fn is_expected(&self, directory: &str, requested_at: Instant, mounts: &[PathBuf]) -> bool {
        let cached = self.cache.get(directory);
        if cached.is_some_and(|cached| cached.found_at >= requested_at) {
            return false;
        }
        match self.running.iter().find(|at| at.directory == directory) {
            Some(inspection) => inspection.started.elapsed() < TIMEOUT,
            None => {
                self.threads > 0
                    && self.blocked_threads(TIMEOUT) < MAX_THREADS
                    && self.may_inspect(Path::new(directory), mounts)
            }
        }
    }

    /// Spawns a thread for the queue if every thread has been inspecting one directory for
    /// at least `slow`.
    fn spawn_if_blocked(&mut self, slow: Duration) {
        let are_all_blocked =
            self.threads == self.running.len() && self.blocked_threads(slow) == self.threads;
        if self.queue.is_empty() || !are_all_blocked || self.threads >= MAX_THREADS {
            return;
        }
        let mounts = self.mounts();
        let mut queue = self.queue.iter();
        if queue.any(|directory| self.may_inspect(Path::new(directory), &mounts)) {
            let thread = thread::Builder::new().name("projects".into());
            // If the thread cannot be spawned, the next request tries again.
            if thread.spawn(run).is_ok() {
                self.threads += 1;
            }
        }
    }

    /// Takes the next directory from the queue: the first of those that share the least with
    /// the directories that other threads are inspecting, since these may be blocked.
    fn next(&mut self) -> Option<(u64, String)> {
        let directory = match self.running.is_empty() {
            true => self.queue.pop_first()?,
            false => {
                let next = self.most_distant()?.clone();
                self.queue.take(&next)?
            }
        };
        let id = self.next_id;
        self.next_id += 1;
        self.running.push(Inspection {
            id,
            directory: directory.clone(),
            started: Instant::now(),
        });
        Some((id, directory))
    }

    /// Returns the queued directory that shares the least with the running inspections:
    /// first by the number of threads on its disk, then by the length of a common prefix.
    fn most_distant(&mut self) -> Option<&String> {
        let mounts = self.mounts();
        let mut least = None;
        for directory in &self.queue {
            let path = Path::new(directory);
            let threads = self.threads_on_disk_of(path, &mounts);
            let shared = (threads, self.common_components(path));
            if threads < MAX_THREADS_PER_DISK && least.is_none_or(|(best, _)| shared < best) {
                least = Some((shared, directory));
                // No absolute paths share less than the root.
                if shared <= (0, 1) {
                    break;
                }
            }
        }
        least.map(|(_, directory)| directory)
    }

    fn may_inspect(&self, path: &Path, mounts: &[PathBuf]) -> bool {
        self.threads_on_disk_of(path, mounts) < MAX_THREADS_PER_DISK
    }

    /// Returns how many threads are inspecting a directory on the same disk, in the same
    /// parent directory, or above `path`.
    fn threads_on_disk_of(&self, path: &Path, mounts: &[PathBuf]) -> usize {
        let mount = mount_of(path, mounts);
        let inspections = self.running.iter().filter(|inspection| {
            let other = Path::new(&inspection.directory);
            path.parent() == other.parent()
                || path.starts_with(other)
                || (mount.is_some() && mount == mount_of(other, mounts))
        });
        inspections.count()
    }

    /// Returns how many leading components `path` shares with a running inspection at most.
    fn common_components(&self, path: &Path) -> usize {
        let common = self.running.iter().map(|inspection| {
            let other = Path::new(&inspection.directory).components();
            path.components()
                .zip(other)
                .take_while(|(a, b)| a == b)
                .count()
        });
        common.max().unwrap_or(0)
    }

    /// Returns the mount points, read within the last second; empty if no thread is running.
    /// A mount that changes within that second is not one on which a thread is blocked.
    fn mounts(&mut self) -> Arc<[PathBuf]> {
        if self.running.is_empty() {
            return Arc::default();
        }
        match &self.mounts {
            Some((read, mounts)) if read.elapsed() < Duration::from_secs(1) => Arc::clone(mounts),
            _ => {
                let mounts: Arc<[PathBuf]> = mounts().into();
                self.mounts = Some((Instant::now(), Arc::clone(&mounts)));
                mounts
            }
        }
    }
}

/// Inspects queued directories until none may be inspected.
fn run() {
    loop {
        let mut pool = FinderPool::lock();
        let Some((id, directory)) = pool.next() else {
            pool.threads -= 1;
            return;
        };
        drop(pool);
        let found = super::find(Path::new(&directory));
        // A project whose path is not UTF-8 is represented by the session's directory.
        let project = found.project.into_os_string().into_string();
        let project = project.unwrap_or_else(|_| normalize_text(&directory));
        let mut pool = FinderPool::lock();
        pool.running.retain(|inspection| inspection.id != id);
        let now = Instant::now();
        let cached = CachedProject {
            project,
            is_gone: found.is_gone,
            found_at: now,
            requested_at: now,
        };
        pool.cache.insert(directory, cached);
        if pool.queue.is_empty() {
            QUEUE_EMPTY.notify_all();
        }
    }
}

/// Returns the mount point above a path, except the root.
fn mount_of<'a>(path: &Path, mounts: &'a [PathBuf]) -> Option<&'a PathBuf> {
    let above = mounts.iter().filter(|mount| path.starts_with(mount));
    above
        .max_by_key(|mount| mount.as_os_str().len())
        .filter(|mount| mount.parent().is_some())
}

/// Reads the mount points from a file that is not on a disk, so that the call cannot block.
/// Empty on systems other than Linux.
fn mounts() -> Vec<PathBuf> {
    let text = match cfg!(target_os = "linux") {
        true => std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        false => String::new(),
    };
    // https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
    let mounts = text.lines().filter_map(|line| line.split(' ').nth(4));
    mounts.map(|mount| unescape(mount).into()).collect()
}

/// Decodes the space, the tab, the newline and the backslash, which are written in octal.
fn unescape(text: &str) -> String {
    [
        (r"\040", " "),
        (r"\011", "\t"),
        (r"\012", "\n"),
        (r"\134", r"\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (code, c)| text.replace(code, c))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Simulates a thread that has been blocked for a long time on a directory with an old
    /// cached project.
    pub(crate) struct BlockedThread(u64);

    impl BlockedThread {
        pub(crate) fn at(directory: &str, project: &str) -> Self {
            let mut pool = FinderPool::lock();
            let id = pool.next_id;
            pool.next_id += 1;
            pool.threads += 1;
            let started = Instant::now().checked_sub(CACHE_TTL * 2).unwrap();
            pool.running.push(Inspection {
                id,
                directory: directory.to_owned(),
                started,
            });
            let cached = CachedProject {
                project: project.to_owned(),
                is_gone: false,
                found_at: started,
                requested_at: started,
            };
            pool.cache.insert(directory.to_owned(), cached);
            Self(id)
        }
    }

    impl Drop for BlockedThread {
        fn drop(&mut self) {
            let mut pool = FinderPool::lock();
            pool.threads -= 1;
            pool.running.retain(|inspection| inspection.id != self.0);
        }
    }

    #[test]
    fn mount_of_a_path_is_the_longest_but_not_the_root() {
        let mounts = ["/", "/mnt", "/mnt/nfs", "/mnt/other"].map(PathBuf::from);
        for (path, mount) in [
            ("/mnt/nfs/a/b", Some("/mnt/nfs")),
            ("/mnt/nfsa", Some("/mnt")),
            ("/home", None),
        ] {
            let found = mount_of(Path::new(path), &mounts);
            assert_eq!(found.map(PathBuf::as_path), mount.map(Path::new));
        }
        assert_eq!(unescape(r"/a\040b\134040"), r"/a b\040");
    }
}
