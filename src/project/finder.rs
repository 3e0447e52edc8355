//! Finding git roots on disks that may not answer: a few threads for the whole process.
//!
//! Usually one thread does all, and ends when nothing is left to do. Where it does not come
//! back from a directory, another one goes on with the rest: first with the directories that
//! have least in common with that one. There are at most [`MOST`] threads, and at most
//! [`MOST_OF_A_DISK`] are sent to one disk: a dead mount with many directories must not take
//! all.
//!
//! What was found stays known, until there is a new answer: also where a disk has died
//! since. Only of very many directories those are forgotten that nobody asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{MEMORY, PATIENCE, SLOW, tidy};

/// How many threads there are at most.
const MOST: usize = 8;

/// How many of them are at directories of one disk, or in one directory, at most.
const MOST_OF_A_DISK: usize = 2;

/// Where more directories are known than this, those that nobody asked for within the last
/// hour are forgotten.
const MANY: usize = 50_000;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What is known, all threads of the process, and what they have to do.
pub(super) struct Finders {
    known: BTreeMap<String, Known>,
    wanted: BTreeSet<String>,
    running: Vec<Running>,
    threads: usize,
    next_id: u64,
    /// Where the file systems are mounted, as it was read then.
    mounts: Option<(Instant, Arc<[PathBuf]>)>,
}

pub(super) struct Known {
    pub(super) project: String,
    pub(super) is_gone: bool,
    found: Instant,
    used: Instant,
}

struct Running {
    id: u64,
    directory: String,
    since: Instant,
}

static FINDERS: Mutex<Finders> = Mutex::new(Finders {
    known: BTreeMap::new(),
    wanted: BTreeSet::new(),
    running: Vec::new(),
    threads: 0,
    next_id: 0,
    mounts: None,
});

/// Nothing is wanted any more. Who waits for one answer of many looks now and then.
static ANSWERED: Condvar = Condvar::new();

/// Finds the projects of these directories, where they are not known or were found long ago,
/// and waits for that until then, but for no directory that keeps a thread for longer than a
/// caller waits.
pub(super) fn find_all(directories: &[&str], until: Instant) {
    let asked = Instant::now();
    let slow = SLOW.min(until.saturating_duration_since(asked) / 4);
    let mut finders = Finders::lock();
    let mut pending = finders.want(directories, asked);
    finders.go_on(slow);
    loop {
        let mounts = finders.mounts();
        pending.retain(|directory| finders.is_expected(directory, asked, &mounts));
        let left = until.saturating_duration_since(Instant::now());
        if pending.is_empty() || left.is_zero() {
            return;
        }
        let waited = ANSWERED.wait_timeout(finders, left.min(slow));
        finders = waited.unwrap_or_else(PoisonError::into_inner).0;
        finders.go_on(slow);
    }
}

impl Finders {
    pub(super) fn lock() -> MutexGuard<'static, Self> {
        FINDERS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of this directory, as it was last found.
    pub(super) fn known(&self, directory: &str) -> Option<&Known> {
        self.known.get(directory)
    }

    /// How many threads have been at one directory for longer than this.
    pub(super) fn stuck(&self, patience: Duration) -> usize {
        let is_stuck = |running: &&Running| running.since.elapsed() >= patience;
        self.running.iter().filter(is_stuck).count()
    }

    /// Returns those of these directories that an answer is to be waited for.
    fn want<'a>(&mut self, directories: &[&'a str], now: Instant) -> Vec<&'a str> {
        if self.known.len() > MANY {
            self.known
                .retain(|_, known| now.saturating_duration_since(known.used) < HOUR);
        }
        let mut pending = Vec::new();
        for directory in directories {
            if let Some(known) = self.known.get_mut(*directory) {
                known.used = now;
                if now.saturating_duration_since(known.found) < MEMORY {
                    continue;
                }
            }
            let is_running = self.running.iter().any(|at| at.directory == *directory);
            if !is_running {
                self.wanted.insert((*directory).to_owned());
            }
            pending.push(*directory);
        }
        pending
    }

    /// Whether to wait for an answer on this directory that is not older than `asked`.
    fn is_expected(&self, directory: &str, asked: Instant, mounts: &[PathBuf]) -> bool {
        let known = self.known.get(directory);
        if known.is_some_and(|known| known.found >= asked) {
            return false;
        }
        match self.running.iter().find(|at| at.directory == directory) {
            Some(running) => running.since.elapsed() < PATIENCE,
            None => {
                self.threads > 0
                    && self.stuck(PATIENCE) < MOST
                    && self.may_ask(Path::new(directory), mounts)
            }
        }
    }

    /// Sees to it that a thread goes on where all of them have been at one directory for
    /// longer than this.
    fn go_on(&mut self, slow: Duration) {
        let is_busy = self.threads == self.running.len() && self.stuck(slow) == self.threads;
        if self.wanted.is_empty() || !is_busy || self.threads >= MOST {
            return;
        }
        let mounts = self.mounts();
        let mut wanted = self.wanted.iter();
        if wanted.any(|directory| self.may_ask(Path::new(directory), &mounts)) {
            let thread = thread::Builder::new().name("projects".into());
            // Without a thread nothing is found now; the next who asks tries again.
            if thread.spawn(run).is_ok() {
                self.threads += 1;
            }
        }
    }

    /// The next directory: of those that have least in common with what other threads are
    /// at, which is where they are stuck, the first.
    fn next(&mut self) -> Option<(u64, String)> {
        let directory = match self.running.is_empty() {
            true => self.wanted.pop_first()?,
            false => {
                let next = self.least_in_common()?.clone();
                self.wanted.take(&next)?
            }
        };
        let id = self.next_id;
        self.next_id += 1;
        self.running.push(Running {
            id,
            directory: directory.clone(),
            since: Instant::now(),
        });
        Some((id, directory))
    }

    fn least_in_common(&mut self) -> Option<&String> {
        let mounts = self.mounts();
        let mut least = None;
        for directory in &self.wanted {
            let path = Path::new(directory);
            let beside = self.beside(path, &mounts);
            let shared = (beside, self.in_common(path));
            if beside < MOST_OF_A_DISK && least.is_none_or(|(known, _)| shared < known) {
                least = Some((shared, directory));
                // Less than the root is in common with nothing.
                if shared <= (0, 1) {
                    break;
                }
            }
        }
        least.map(|(_, directory)| directory)
    }

    fn may_ask(&self, path: &Path, mounts: &[PathBuf]) -> bool {
        self.beside(path, mounts) < MOST_OF_A_DISK
    }

    /// How many threads are at a directory of the same disk, or of the same directory.
    fn beside(&self, path: &Path, mounts: &[PathBuf]) -> usize {
        let mount = mount_of(path, mounts);
        let beside = self.running.iter().filter(|running| {
            let other = Path::new(&running.directory);
            path.parent() == other.parent()
                || path.starts_with(other)
                || (mount.is_some() && mount == mount_of(other, mounts))
        });
        beside.count()
    }

    fn in_common(&self, path: &Path) -> usize {
        let common = self.running.iter().map(|running| {
            let other = Path::new(&running.directory).components();
            path.components()
                .zip(other)
                .take_while(|(a, b)| a == b)
                .count()
        });
        common.max().unwrap_or(0)
    }

    /// Where the file systems are mounted, where that is of interest, as it was within the
    /// last second: mounts that change meanwhile are none that a thread is stuck at.
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

fn run() {
    loop {
        let mut finders = Finders::lock();
        let Some((id, directory)) = finders.next() else {
            finders.threads -= 1;
            return;
        };
        drop(finders);
        let found = super::find(Path::new(&directory));
        // What is no text cannot be said; its directory can.
        let project = found.project.into_os_string().into_string();
        let project = project.unwrap_or_else(|_| tidy(&directory));
        let mut finders = Finders::lock();
        finders.running.retain(|running| running.id != id);
        let now = Instant::now();
        let known = Known {
            project,
            is_gone: found.is_gone,
            found: now,
            used: now,
        };
        finders.known.insert(directory, known);
        if finders.wanted.is_empty() {
            ANSWERED.notify_all();
        }
    }
}

/// The mount that a path is on, but for the root, which everything is on.
fn mount_of<'a>(path: &Path, mounts: &'a [PathBuf]) -> Option<&'a PathBuf> {
    let on = mounts.iter().filter(|mount| path.starts_with(mount));
    on.max_by_key(|mount| mount.as_os_str().len())
        .filter(|mount| mount.parent().is_some())
}

/// Where the file systems are mounted, from a file that no disk is asked for.
fn mounts() -> Vec<PathBuf> {
    let text = match cfg!(target_os = "linux") {
        true => std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        false => String::new(),
    };
    // https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
    let mounts = text.lines().filter_map(|line| line.split(' ').nth(4));
    mounts.map(|mount| unescaped(mount).into()).collect()
}

/// The blank, the tab, the newline and the backslash are written in octal.
fn unescaped(text: &str) -> String {
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

    /// As if a thread had been at this directory for long, whose project was found before.
    pub(crate) struct Held(u64);

    impl Held {
        pub(crate) fn at(directory: &str, project: &str) -> Self {
            let mut finders = Finders::lock();
            let id = finders.next_id;
            finders.next_id += 1;
            finders.threads += 1;
            let since = Instant::now().checked_sub(MEMORY * 2).unwrap();
            finders.running.push(Running {
                id,
                directory: directory.to_owned(),
                since,
            });
            let known = Known {
                project: project.to_owned(),
                is_gone: false,
                found: since,
                used: since,
            };
            finders.known.insert(directory.to_owned(), known);
            Self(id)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            let mut finders = Finders::lock();
            finders.threads -= 1;
            finders.running.retain(|running| running.id != self.0);
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
        assert_eq!(unescaped(r"/a\040b\134040"), r"/a b\040");
    }
}
