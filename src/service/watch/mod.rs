//! Notices changes of the sources' files without opening any of them.
//!
//! Each source has a task that inspects its files and reports every new stamp. Where the
//! system delivers events, an event of the files' directory wakes the task, and the task also
//! runs every minute, since events can be lost. Otherwise it polls every second: on systems
//! without inotify, on a network file system, while the directory does not exist, and if no
//! watch can be added.
//!
//! All sources share one inotify instance and a few threads that run the tasks. A disk that
//! does not respond blocks one thread, and so delays only its own source.
//!
//! The path of a source can lead through a symbolic link, and the link can be redirected. So
//! each inspection resolves the configured path, and reports its target if that is not the
//! database that is watched.
//!
//! Only the database and its log count. The `-shm` file changes with every connection, also
//! with the helper's.
//!
//! A commit is written to the log first. It is published in the `-shm` file later, when the
//! log is on disk. That second step is a write to mapped memory: it causes no event and need
//! not change the file's time. The watcher cannot read the `-shm` file instead: closing a file
//! releases all POSIX locks of the process on it, so this could release a host's own locks. So
//! a log that was written to counts as changed a few more times as it ages.

mod stamp;
mod tasks;

#[cfg(target_os = "linux")]
mod inotify;
#[cfg(not(target_os = "linux"))]
#[path = "no_events.rs"]
mod inotify;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::index::CONFIRM_DELAY;
use crate::locate::{DatabaseFiles, is_missing};
use crate::source::Source;
use inotify::{DirectoryWatch, Inotify};
pub(super) use stamp::SourceStamp;
use tasks::{Task, Tasks, Waker};

/// The time between inspections if no event arrives.
const SAFETY_INTERVAL: Duration = Duration::from_secs(60);

/// The time between inspections without events.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What the watcher reports about a source.
#[derive(Debug)]
pub(super) enum WatchEvent {
    /// The files have a new stamp.
    Stamp(SourceStamp),
    /// The path now leads to this database.
    Moved(PathBuf),
    /// The files are now watched in this way, in words for people.
    Mode(String),
}

/// Watches the databases of all sources. Dropping it ends all watches.
#[derive(Debug)]
pub(super) struct Watcher {
    tasks: Tasks,
    inotify: Arc<SharedInotify>,
}

impl Watcher {
    /// # Errors
    ///
    /// Returns an error if no thread can be spawned. If inotify cannot be used, the files are
    /// polled.
    pub(super) fn start() -> io::Result<Self> {
        let inotify = SharedInotify::default();
        // Created now rather than at the first inspection, while few descriptors are open. A
        // failure is reported with each source.
        let _ = inotify.get();
        Ok(Self {
            tasks: Tasks::start()?,
            inotify: Arc::new(inotify),
        })
    }

    /// Starts watching the database of this source. Dropping the returned handle ends the
    /// watch. `report` is called by the threads of the watcher.
    pub(super) fn watch(
        &self,
        source: &Source,
        files: DatabaseFiles,
        report: impl Fn(WatchEvent) + Send + 'static,
    ) -> Watch {
        let pending = Arc::default();
        let written = source.written.first();
        let written = written.unwrap_or(&files.main).clone();
        let task = self.tasks.add(|waker| {
            let mut watched = WatchedSource {
                written,
                files,
                report: Box::new(report),
                waker,
                pending: Arc::clone(&pending),
                inotify: Arc::clone(&self.inotify),
                watch: None,
                mode: None,
                redirect: None,
                stamp: None,
            };
            move || Instant::now() + watched.inspect()
        });
        Watch { task, pending }
    }
}

/// The inotify instance that all sources share.
#[derive(Debug, Default)]
struct SharedInotify(Mutex<InotifyState>);

#[derive(Debug, Default)]
struct InotifyState {
    instance: Option<Arc<Inotify>>,
    /// Why the last attempt to create one failed, and when.
    failure: Option<(String, Instant)>,
}

impl SharedInotify {
    /// Returns the instance, or why it could not be created. A failed attempt is repeated
    /// after [`SAFETY_INTERVAL`], since descriptors may be available again.
    fn get(&self) -> Result<Arc<Inotify>, String> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Without its thread, an instance delivers no events.
        drop(state.instance.take_if(|instance| !instance.is_live()));
        if let Some(instance) = &state.instance {
            return Ok(Arc::clone(instance));
        }
        if let Some((reason, failed_at)) = &state.failure
            && failed_at.elapsed() < SAFETY_INTERVAL
        {
            return Err(reason.clone());
        }
        match Inotify::start() {
            Ok(instance) => Ok(Arc::clone(state.instance.insert(Arc::new(instance)))),
            Err(error) => {
                let reason = error.to_string();
                state.failure = Some((reason.clone(), Instant::now()));
                Err(reason)
            }
        }
    }
}

/// Where to send the results of the inspections that were requested.
type PendingInspections = Arc<Mutex<Vec<Sender<SourceStamp>>>>;

/// The running watch of one source.
#[derive(Debug)]
pub(super) struct Watch {
    task: Task,
    pending: PendingInspections,
}

impl Watch {
    /// Requests an inspection now. The stamp arrives after it was reported to the owner, which
    /// takes as long as the disk does.
    pub(super) fn inspect(&self) -> Receiver<SourceStamp> {
        let (done, inspected) = mpsc::channel();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.push(done);
        drop(pending);
        self.task.wake();
        inspected
    }
}

/// The state of one source's task.
struct WatchedSource {
    files: DatabaseFiles,
    /// The path as it was configured or discovered, with its symbolic links.
    written: PathBuf,
    report: Box<dyn Fn(WatchEvent) + Send>,
    waker: Waker,
    pending: PendingInspections,
    inotify: Arc<SharedInotify>,
    /// The watch, and the device and inode of its directory.
    watch: Option<(DirectoryWatch, (u64, u64))>,
    /// The mode that was last reported.
    mode: Option<String>,
    /// Set while `written` leads to another database than `files`.
    redirect: Option<Redirect>,
    /// The stamp that was last reported.
    stamp: Option<SourceStamp>,
}

/// The database that the configured path leads to now.
struct Redirect {
    to: PathBuf,
    since: Instant,
    is_reported: bool,
}

impl WatchedSource {
    /// Inspects the files and reports what is new. Returns the time until the next inspection.
    fn inspect(&mut self) -> Duration {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = std::mem::take(&mut *pending);
        drop(pending);
        // The watch comes before the inspection, so that no change in between is missed.
        let watched = self.ensure_watched();
        let has_events = watched.is_ok();
        let mode = match watched {
            Ok(()) => "events".to_owned(),
            Err(reason) => format!("polling: {reason}"),
        };
        if self.mode.as_ref() != Some(&mode) {
            (self.report)(WatchEvent::Mode(mode.clone()));
            self.mode = Some(mode);
        }
        let (stamp, until_aged) = SourceStamp::inspect(&self.files);
        if self.stamp != Some(stamp) {
            self.stamp = Some(stamp);
            (self.report)(WatchEvent::Stamp(stamp));
        }
        self.check_path();
        for done in requests {
            // The refresh may have stopped waiting.
            let _ = done.send(stamp);
        }
        let redirect = self.redirect.as_ref();
        let is_unconfirmed = redirect.is_some_and(|redirect| !redirect.is_reported);
        let interval = match has_events && !is_unconfirmed {
            true => SAFETY_INTERVAL,
            false => POLL_INTERVAL,
        };
        until_aged.map_or(interval, |until| until.min(interval))
    }

    /// Reports the database that the configured path leads to, if that is another one.
    fn check_path(&mut self) {
        let to = match DatabaseFiles::resolve(&self.written) {
            Ok(files) if files.main != self.files.main => files.main,
            // If the path cannot be resolved, its target is unknown.
            _ => return self.redirect = None,
        };
        // An unmounted directory must not remove the source.
        if !to.parent().is_some_and(Path::is_dir) {
            return self.redirect = None;
        }
        let redirect = match self.redirect.take().filter(|redirect| redirect.to == to) {
            Some(redirect) => redirect,
            None => Redirect {
                to,
                since: Instant::now(),
                is_reported: false,
            },
        };
        let redirect = self.redirect.insert(redirect);
        // A program may be replacing the link by removing and creating it. So a target without
        // a database must be there for two inspections.
        let is_confirmed = redirect.to.exists() || redirect.since.elapsed() >= CONFIRM_DELAY;
        if is_confirmed && !redirect.is_reported {
            redirect.is_reported = true;
            (self.report)(WatchEvent::Moved(redirect.to.clone()));
        }
    }

    /// Watches the directory now at this path, unless it is watched already.
    ///
    /// # Errors
    ///
    /// Returns the reason for people if the directory cannot be watched.
    fn ensure_watched(&mut self) -> Result<(), String> {
        let directory = self.files.main.parent().unwrap_or(Path::new("/"));
        let metadata = fs::metadata(directory).map_err(|error| {
            self.watch = None;
            match is_missing(&error) {
                true => "the directory does not exist".to_owned(),
                // Without its path, which no log may have.
                false => format!("cannot inspect the directory: {error}"),
            }
        })?;
        let identity = (metadata.dev(), metadata.ino());
        if let Some((watch, watched)) = &self.watch
            && *watched == identity
            && watch.is_live()
        {
            return Ok(());
        }
        self.watch = None;
        let inotify = self.inotify.get()?;
        if let Some(kind) = kind_without_events(directory) {
            return Err(format!("{kind} does not report changes made elsewhere"));
        }
        let names = [&self.files.main, &self.files.log]
            .map(|file| file.file_name().unwrap_or_default().to_owned());
        // The reason is logged, so it does not name the path, which can be private.
        let watch = inotify
            .watch(directory, names, self.waker.clone())
            .map_err(|error| error.to_string())?;
        self.watch = Some((watch, identity));
        Ok(())
    }
}

/// Returns the kind of the file system if other machines or other parts of this one can change
/// it without notice to this kernel.
fn kind_without_events(directory: &Path) -> Option<&'static str> {
    #[cfg(target_os = "linux")]
    {
        let magic = rustix::fs::statfs(directory).ok()?.f_type;
        // linux/magic.h
        Some(match u32::try_from(magic & 0xffff_ffff).ok()? {
            0x6969 => "NFS",
            0xff53_4d42 | 0xfe53_4d42 | 0x517b => "SMB",
            0x0102_1997 => "9P",
            0x6573_5546 => "FUSE",
            0x5346_414f => "AFS",
            0x00c3_6400 => "Ceph",
            _ => return None,
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::thread;

    use super::*;
    use crate::source::sources_of;

    /// Databases in `one`, `two` and `three`, and a watched link that leads to `one` first.
    struct WatchedLink {
        root: tempfile::TempDir,
        watched: WatchedSource,
        reported: Receiver<WatchEvent>,
    }

    impl WatchedLink {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            for name in ["one", "two", "three", "empty"] {
                fs::create_dir(root.path().join(name)).unwrap();
            }
            for name in ["one", "two", "three"] {
                fs::write(root.path().join(name).join("x.db"), "").unwrap();
            }
            symlink("one", root.path().join("link")).unwrap();
            let source = &sources_of(&[root.path().join("link/x.db")])[0];
            let (to, reported) = mpsc::channel();
            let watched = WatchedSource {
                files: DatabaseFiles::of_canonical(source.db().unwrap()),
                written: source.written[0].clone(),
                report: Box::new(move |event| to.send(event).unwrap()),
                waker: Waker::default(),
                pending: PendingInspections::default(),
                inotify: Arc::default(),
                watch: None,
                mode: None,
                redirect: None,
                stamp: None,
            };
            Self {
                root,
                watched,
                reported,
            }
        }

        fn redirect(&self, to: Option<&str>) {
            let link = self.root.path().join("link");
            fs::remove_file(&link).unwrap();
            if let Some(to) = to {
                symlink(to, link).unwrap();
            }
        }

        /// Returns the targets that one check reports.
        fn check_path(&mut self) -> Vec<PathBuf> {
            self.watched.check_path();
            let root = self.root.path().canonicalize().unwrap();
            let reported = self.reported.try_iter().map(|event| match event {
                WatchEvent::Moved(to) => to.strip_prefix(&root).unwrap().to_owned(),
                other => panic!("{other:?}"),
            });
            reported.collect()
        }
    }

    #[test]
    fn redirected_link_is_reported_once() {
        let mut link = WatchedLink::new();
        assert!(link.check_path().is_empty());
        link.redirect(Some("two"));
        assert_eq!(link.check_path(), [Path::new("two/x.db")]);
        assert!(link.check_path().is_empty());
        link.redirect(Some("one"));
        assert!(link.check_path().is_empty());
        link.redirect(Some("two"));
        assert_eq!(link.check_path(), [Path::new("two/x.db")]);
        link.redirect(Some("three"));
        assert_eq!(link.check_path(), [Path::new("three/x.db")]);
    }

    #[test]
    fn link_to_no_database_is_reported_after_the_delay() {
        let mut link = WatchedLink::new();
        link.redirect(Some("empty"));
        assert!(link.check_path().is_empty());
        // The link was only being replaced.
        link.redirect(Some("one"));
        assert!(link.check_path().is_empty());
        link.redirect(Some("empty"));
        assert!(link.check_path().is_empty());
        thread::sleep(CONFIRM_DELAY);
        assert_eq!(link.check_path(), [Path::new("empty/x.db")]);
    }

    #[test]
    fn link_to_a_missing_directory_is_not_reported() {
        for to in [Some("away/deep"), Some("link"), None] {
            let mut link = WatchedLink::new();
            link.redirect(to);
            assert!(link.check_path().is_empty());
            thread::sleep(CONFIRM_DELAY);
            assert!(link.check_path().is_empty(), "{to:?}");
        }
    }

    #[test]
    fn directory_replaced_by_a_link_is_reported() {
        let mut link = WatchedLink::new();
        link.watched.written = link.watched.files.main.clone();
        fs::rename(link.root.path().join("one"), link.root.path().join("old")).unwrap();
        symlink("two", link.root.path().join("one")).unwrap();
        assert_eq!(link.check_path(), [Path::new("two/x.db")]);
    }
}
