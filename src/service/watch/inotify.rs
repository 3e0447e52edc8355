//! Events of directories: one inotify instance and one thread for all sources.
//!
//! Not by the notify crate, which reports changes with the same instance: it adds a watch
//! in its one event thread, so that a disk that does not answer would stop the events of
//! all others, and it panics, also when it is dropped, where that thread could not be
//! spawned (notify 8.2, `INotifyWatcher::watch_inner` and its `Drop`). Here a watch is
//! added by the thread that asks for it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, remove_watch};
use rustix::io::Errno;

use super::tasks::Waker;

/// Events come in bursts; one look is for all that come within this time.
const BURST: Duration = Duration::from_millis(20);

/// As many events as are handled before the sources learn of them: more than the
/// kernel's queue holds by default.
const AT_ONCE: usize = 20_000;

/// What is a change: reading is none.
const CHANGES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// A running inotify instance. Its thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inotify: OwnedFd,
    end: OwnedFd,
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    /// By the kernel's number of the watch: a directory has one, whoever watches it.
    directories: HashMap<i32, Vec<Target>>,
    next_id: u64,
    /// How many threads add a watch just now. Meanwhile none is removed: it may be the
    /// one that they are about to get.
    adding: usize,
    /// Watches that the kernel removed since then.
    removed: HashSet<i32>,
    /// No events come any more.
    failed: bool,
}

#[derive(Debug)]
struct Target {
    id: u64,
    names: [OsString; 2],
    waker: Waker,
}

/// A watch of one source on a directory, until it is dropped.
#[derive(Debug)]
pub(super) struct Watching {
    shared: Arc<Shared>,
    watch: i32,
    id: u64,
}

impl Events {
    /// # Errors
    ///
    /// Returns an error if the system gives no inotify instance or no thread.
    pub(super) fn start() -> io::Result<Self> {
        let inotify = rustix::fs::inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let shared = Arc::new(Shared {
            inotify: inotify.map_err(|error| match error {
                Errno::MFILE => io::Error::other(
                    "too many inotify instances or open files (fs.inotify.max_user_instances)",
                ),
                error => error.into(),
            })?,
            end: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            watched: Mutex::default(),
        });
        let reading = Arc::clone(&shared);
        thread::Builder::new()
            .name("inotify".into())
            .stack_size(256 << 10)
            .spawn(move || reading.run())?;
        Ok(Self(shared))
    }

    /// Wakes the task at every change of a file of these names in the directory, or of the
    /// directory itself. Waits for the disk.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be watched.
    pub(super) fn watch(
        &self,
        directory: &Path,
        names: [OsString; 2],
        waker: Waker,
    ) -> io::Result<Watching> {
        self.0.lock().adding += 1;
        let added = add_watch(&self.0.inotify, directory, CHANGES);
        let mut watched = self.0.lock();
        let result = match added {
            Err(Errno::NOSPC) => Err(io::Error::other(
                "too many inotify watches (fs.inotify.max_user_watches)",
            )),
            Err(error) => Err(error.into()),
            Ok(_) if watched.failed => Err(io::Error::other("inotify has failed")),
            Ok(watch) if watched.removed.contains(&watch) => {
                Err(io::Error::other("the directory was removed"))
            }
            Ok(watch) => {
                let id = watched.next_id;
                watched.next_id += 1;
                let target = Target { id, names, waker };
                watched.directories.entry(watch).or_default().push(target);
                Ok(Watching {
                    shared: Arc::clone(&self.0),
                    watch,
                    id,
                })
            }
        };
        watched.adding -= 1;
        watched.remove_unused(&self.0.inotify);
        result
    }
}

impl Events {
    /// False once its thread has failed: no events will come any more.
    pub(super) fn are_live(&self) -> bool {
        !self.0.lock().failed
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.0.end, &1_u64.to_ne_bytes());
    }
}

impl Watching {
    /// False once the kernel has removed the watch, since the directory is gone.
    pub(super) fn is_live(&self) -> bool {
        let watched = self.shared.lock();
        let targets = watched.directories.get(&self.watch);
        !watched.failed
            && targets.is_some_and(|targets| targets.iter().any(|target| target.id == self.id))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watched = self.shared.lock();
        if let Some(targets) = watched.directories.get_mut(&self.watch) {
            targets.retain(|target| target.id != self.id);
        }
        watched.remove_unused(&self.shared.inotify);
    }
}

impl Watched {
    fn remove_unused(&mut self, inotify: &OwnedFd) {
        if self.adding > 0 {
            return;
        }
        self.removed.clear();
        self.directories.retain(|watch, targets| {
            if targets.is_empty() {
                let _ = remove_watch(inotify, *watch);
            }
            !targets.is_empty()
        });
    }

    fn wakers(&self) -> impl Iterator<Item = (u64, Waker)> {
        let targets = self.directories.values().flatten();
        targets.map(|target| (target.id, target.waker.clone()))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        loop {
            let mut ready = [
                PollFd::new(&self.inotify, PollFlags::IN),
                PollFd::new(&self.end, PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return self.fail(),
            }
            if !ready[1].revents().is_empty() {
                return;
            }
            thread::sleep(BURST);
            match self.read(&mut buffer) {
                Ok(wakers) => wakers.values().for_each(Waker::wake),
                Err(_) => return self.fail(),
            }
        }
    }

    /// What the events that are there wake.
    fn read(&self, buffer: &mut [MaybeUninit<u8>]) -> Result<HashMap<u64, Waker>, Errno> {
        let mut wakers = HashMap::new();
        let mut reader = Reader::new(&self.inotify, buffer);
        let mut watched = self.lock();
        for _ in 0..AT_ONCE {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error),
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                wakers.extend(watched.wakers());
                continue;
            }
            let name = event.file_name().map(std::ffi::CStr::to_bytes);
            for target in watched.directories.get(&event.wd()).into_iter().flatten() {
                // Without a name it is of the directory itself.
                if name.is_none_or(|name| target.names.iter().any(|ours| ours.as_bytes() == name)) {
                    wakers.insert(target.id, target.waker.clone());
                }
            }
            if event.events().contains(ReadFlags::IGNORED) {
                watched.directories.remove(&event.wd());
                if watched.adding > 0 {
                    watched.removed.insert(event.wd());
                }
            }
        }
        Ok(wakers)
    }

    /// From now on the sources are polled.
    fn fail(&self) {
        let mut watched = self.lock();
        watched.failed = true;
        let wakers: Vec<_> = watched.wakers().collect();
        drop(watched);
        for (_, waker) in wakers {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::{self, Receiver};
    use std::time::Instant;

    use super::*;
    use crate::service::watch::tasks::{Task, Tasks};

    const SOON: Duration = Duration::from_secs(10);

    /// A watch on the files `a` and `a-wal` of a directory, and what it wakes.
    struct Watcher {
        watching: Watching,
        woken: Receiver<()>,
        _task: Task,
    }

    impl Watcher {
        fn new(events: &Events, tasks: &Tasks, directory: &Path) -> Self {
            let (to, woken) = mpsc::channel();
            let mut waker = None;
            let task = tasks.add(|given| {
                waker = Some(given);
                move || {
                    let _ = to.send(());
                    Instant::now() + Duration::from_secs(3600)
                }
            });
            // It runs once by itself.
            woken.recv_timeout(SOON).unwrap();
            let names = ["a", "a-wal"].map(OsString::from);
            let watching = events.watch(directory, names, waker.unwrap()).unwrap();
            Self {
                watching,
                woken,
                _task: task,
            }
        }

        #[track_caller]
        fn assert_is_woken(&self) {
            assert_eq!(self.woken.recv_timeout(SOON), Ok(()));
            // What belongs to the same burst.
            while self.woken.recv_timeout(5 * BURST).is_ok() {}
        }

        #[track_caller]
        fn assert_sleeps(&self) {
            assert!(self.woken.recv_timeout(5 * BURST).is_err());
        }
    }

    #[test]
    fn only_changes_of_named_files_and_the_directory_wake() {
        let (events, tasks) = (Events::start().unwrap(), Tasks::start().unwrap());
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("directory");
        fs::create_dir(&directory).unwrap();
        let watcher = Watcher::new(&events, &tasks, &directory);
        fs::write(directory.join("b"), "b").unwrap();
        fs::rename(directory.join("b"), directory.join("c")).unwrap();
        watcher.assert_sleeps();
        fs::write(directory.join("a-wal"), "a").unwrap();
        watcher.assert_is_woken();
        fs::read(directory.join("a-wal")).unwrap();
        watcher.assert_sleeps();
        fs::rename(directory.join("c"), directory.join("a")).unwrap();
        watcher.assert_is_woken();
        fs::rename(&directory, place.path().join("away")).unwrap();
        watcher.assert_is_woken();
        assert!(watcher.watching.is_live());
        fs::remove_dir_all(place.path().join("away")).unwrap();
        watcher.assert_is_woken();
        assert!(!watcher.watching.is_live());
    }

    /// They have one watch of the kernel between them.
    #[test]
    fn watch_of_a_directory_outlives_another_of_the_same() {
        let (events, tasks) = (Events::start().unwrap(), Tasks::start().unwrap());
        let place = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| Watcher::new(&events, &tasks, place.path()));
        assert_eq!(one.watching.watch, other.watching.watch);
        fs::write(place.path().join("a"), "a").unwrap();
        one.assert_is_woken();
        other.assert_is_woken();
        drop(one);
        assert!(other.watching.is_live());
        other.assert_sleeps();
        fs::write(place.path().join("a"), "b").unwrap();
        other.assert_is_woken();
        drop(other);
        assert!(events.0.lock().directories.is_empty());
    }
}
