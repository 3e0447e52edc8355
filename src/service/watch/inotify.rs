//! Events of directories: one inotify instance and one thread for all sources.
//!
//! The notify crate uses inotify too, but does not fit (notify 8.2,
//! `INotifyWatcher::watch_inner` and its `Drop`). It adds watches in its event thread, so a
//! disk that does not respond would stop the events of all sources. If that thread could not
//! be spawned, it panics, also when it is dropped. Here the calling thread adds the watch.

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

/// Events come in bursts. Those that arrive within this time cause one inspection.
const BURST_DELAY: Duration = Duration::from_millis(20);

/// The most events that are read before their tasks are woken. The kernel's queue holds
/// fewer by default (16,384 in `fs.inotify.max_queued_events`).
const MAX_EVENTS_PER_READ: usize = 20_000;

/// The events that are changes. Reading a file is not one.
const WATCH_MASK: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// A running inotify instance. Its thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Inotify(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inotify: OwnedFd,
    /// An eventfd that ends the thread.
    shutdown: OwnedFd,
    watches: Mutex<WatchTable>,
}

#[derive(Debug, Default)]
struct WatchTable {
    /// By watch descriptor. The kernel returns the same descriptor for each watch on one
    /// directory.
    directories: HashMap<i32, Vec<WatchedFiles>>,
    next_id: u64,
    /// How many threads are adding a watch. Until they have finished, no watch is removed: it
    /// may be the one whose descriptor such a thread is about to receive.
    pending_adds: usize,
    /// The watches that the kernel has removed during these calls.
    removed: HashSet<i32>,
    /// The thread has failed and delivers no more events.
    has_failed: bool,
}

#[derive(Debug)]
struct WatchedFiles {
    id: u64,
    /// The names of the files in the directory.
    names: [OsString; 2],
    waker: Waker,
}

/// The watch of one source on a directory. Dropping it removes it.
#[derive(Debug)]
pub(super) struct DirectoryWatch {
    shared: Arc<Shared>,
    watch: i32,
    id: u64,
}

impl Inotify {
    /// # Errors
    ///
    /// Returns an error if the inotify instance cannot be created or its thread cannot be
    /// spawned.
    pub(super) fn start() -> io::Result<Self> {
        let inotify = rustix::fs::inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let shared = Arc::new(Shared {
            inotify: inotify.map_err(|error| match error {
                Errno::MFILE => io::Error::other(
                    "too many inotify instances or open files (fs.inotify.max_user_instances)",
                ),
                error => error.into(),
            })?,
            shutdown: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            watches: Mutex::default(),
        });
        let reading = Arc::clone(&shared);
        thread::Builder::new()
            .name("inotify".into())
            .stack_size(256 << 10)
            .spawn(move || reading.run())?;
        Ok(Self(shared))
    }

    /// Wakes the task at every change of a file of these names in the directory, or of the
    /// directory itself. Blocks as long as the disk does.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be watched.
    pub(super) fn watch(
        &self,
        directory: &Path,
        names: [OsString; 2],
        waker: Waker,
    ) -> io::Result<DirectoryWatch> {
        self.0.lock().pending_adds += 1;
        let added = add_watch(&self.0.inotify, directory, WATCH_MASK);
        let mut watches = self.0.lock();
        let result = match added {
            Err(Errno::NOSPC) => Err(io::Error::other(
                "too many inotify watches (fs.inotify.max_user_watches)",
            )),
            Err(error) => Err(error.into()),
            Ok(_) if watches.has_failed => Err(io::Error::other("inotify has failed")),
            Ok(watch) if watches.removed.contains(&watch) => {
                Err(io::Error::other("the directory was removed"))
            }
            Ok(watch) => {
                let id = watches.next_id;
                watches.next_id += 1;
                let files = WatchedFiles { id, names, waker };
                watches.directories.entry(watch).or_default().push(files);
                Ok(DirectoryWatch {
                    shared: Arc::clone(&self.0),
                    watch,
                    id,
                })
            }
        };
        watches.pending_adds -= 1;
        watches.remove_unused(&self.0.inotify);
        result
    }
}

impl Inotify {
    /// Returns false if the thread has failed, so that no more events are delivered.
    pub(super) fn is_live(&self) -> bool {
        !self.0.lock().has_failed
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.0.shutdown, &1_u64.to_ne_bytes());
    }
}

impl DirectoryWatch {
    /// Returns false if the kernel has removed the watch, since the directory is gone.
    pub(super) fn is_live(&self) -> bool {
        let watches = self.shared.lock();
        let sources = watches.directories.get(&self.watch);
        !watches.has_failed
            && sources.is_some_and(|sources| sources.iter().any(|files| files.id == self.id))
    }
}

impl Drop for DirectoryWatch {
    fn drop(&mut self) {
        let mut watches = self.shared.lock();
        if let Some(sources) = watches.directories.get_mut(&self.watch) {
            sources.retain(|files| files.id != self.id);
        }
        watches.remove_unused(&self.shared.inotify);
    }
}

impl WatchTable {
    fn remove_unused(&mut self, inotify: &OwnedFd) {
        if self.pending_adds > 0 {
            return;
        }
        self.removed.clear();
        self.directories.retain(|watch, sources| {
            if sources.is_empty() {
                let _ = remove_watch(inotify, *watch);
            }
            !sources.is_empty()
        });
    }

    fn wakers(&self) -> impl Iterator<Item = (u64, Waker)> {
        let sources = self.directories.values().flatten();
        sources.map(|files| (files.id, files.waker.clone()))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, WatchTable> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        loop {
            let mut ready = [
                PollFd::new(&self.inotify, PollFlags::IN),
                PollFd::new(&self.shutdown, PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return self.fail(),
            }
            if !ready[1].revents().is_empty() {
                return;
            }
            thread::sleep(BURST_DELAY);
            match self.read_events(&mut buffer) {
                Ok(wakers) => wakers.values().for_each(Waker::wake),
                Err(_) => return self.fail(),
            }
        }
    }

    /// Reads the events that have arrived. Returns the tasks to wake.
    fn read_events(&self, buffer: &mut [MaybeUninit<u8>]) -> Result<HashMap<u64, Waker>, Errno> {
        let mut wakers = HashMap::new();
        let mut reader = Reader::new(&self.inotify, buffer);
        let mut watches = self.lock();
        for _ in 0..MAX_EVENTS_PER_READ {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error),
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                wakers.extend(watches.wakers());
                continue;
            }
            let name = event.file_name().map(std::ffi::CStr::to_bytes);
            for files in watches.directories.get(&event.wd()).into_iter().flatten() {
                // An event without a name concerns the directory itself.
                if name.is_none_or(|name| files.names.iter().any(|ours| ours.as_bytes() == name)) {
                    wakers.insert(files.id, files.waker.clone());
                }
            }
            if event.events().contains(ReadFlags::IGNORED) {
                watches.directories.remove(&event.wd());
                if watches.pending_adds > 0 {
                    watches.removed.insert(event.wd());
                }
            }
        }
        Ok(wakers)
    }

    /// Wakes all tasks, which poll from now on.
    fn fail(&self) {
        let mut watches = self.lock();
        watches.has_failed = true;
        let wakers: Vec<_> = watches.wakers().collect();
        drop(watches);
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

    /// A watch on the files `a` and `a-wal` of a directory, and the runs of its task.
    struct Watcher {
        watch: DirectoryWatch,
        woken: Receiver<()>,
        _task: Task,
    }

    impl Watcher {
        fn new(inotify: &Inotify, tasks: &Tasks, directory: &Path) -> Self {
            let (to, woken) = mpsc::channel();
            let mut waker = None;
            let task = tasks.add(|given| {
                waker = Some(given);
                move || {
                    let _ = to.send(());
                    Instant::now() + Duration::from_secs(3600)
                }
            });
            // Every task runs once when it is added.
            woken.recv_timeout(SOON).unwrap();
            let names = ["a", "a-wal"].map(OsString::from);
            let watch = inotify.watch(directory, names, waker.unwrap()).unwrap();
            Self {
                watch,
                woken,
                _task: task,
            }
        }

        #[track_caller]
        fn assert_is_woken(&self) {
            assert_eq!(self.woken.recv_timeout(SOON), Ok(()));
            // Later inotify of the same change can wake it again.
            while self.woken.recv_timeout(5 * BURST_DELAY).is_ok() {}
        }

        #[track_caller]
        fn assert_sleeps(&self) {
            assert!(self.woken.recv_timeout(5 * BURST_DELAY).is_err());
        }
    }

    #[test]
    fn watch_wakes_for_named_files_and_its_directory_only() {
        let (inotify, tasks) = (Inotify::start().unwrap(), Tasks::start().unwrap());
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("directory");
        fs::create_dir(&directory).unwrap();
        let watcher = Watcher::new(&inotify, &tasks, &directory);
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
        assert!(watcher.watch.is_live());
        fs::remove_dir_all(place.path().join("away")).unwrap();
        watcher.assert_is_woken();
        assert!(!watcher.watch.is_live());
    }

    /// The kernel gives both the same watch descriptor.
    #[test]
    fn watch_survives_removal_of_another_on_its_directory() {
        let (inotify, tasks) = (Inotify::start().unwrap(), Tasks::start().unwrap());
        let place = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| Watcher::new(&inotify, &tasks, place.path()));
        assert_eq!(one.watch.watch, other.watch.watch);
        fs::write(place.path().join("a"), "a").unwrap();
        one.assert_is_woken();
        other.assert_is_woken();
        drop(one);
        assert!(other.watch.is_live());
        other.assert_sleeps();
        fs::write(place.path().join("a"), "b").unwrap();
        other.assert_is_woken();
        drop(other);
        assert!(inotify.0.lock().directories.is_empty());
    }
}
