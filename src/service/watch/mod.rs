//! Noticing that a source's files changed, without opening any of them.
//!
//! Each source is a task that looks at its files. The task is woken by the events of the
//! files' directory where the system has them, and runs by itself every second where it has
//! not (any system but Linux, a network file system, a directory that is not there yet, no
//! watch to be had); and every minute in any case, since events can be lost. It tells what
//! the files look like whenever that is not what they looked like before.
//!
//! One inotify instance is for all sources, and a few threads run all tasks: a disk that
//! does not answer holds one of them, and so delays its own source only.
//!
//! A path can go through a link, and a link can be turned to another directory. So each
//! look resolves the path as it was written, and tells where it leads if that is not
//! the database that is watched.
//!
//! Only the database and its log count. The `-shm` file changes with every
//! reader, also with ours.
//!
//! A commit is written to the log first and published in the `-shm` file later, when the
//! disk has the log. The second step is a write to mapped memory, which causes no event and
//! need not change a file's time; and to read the `-shm` file here could cost a host its
//! locks, as POSIX has them. So a log that was written to counts as changed a few times
//! more while it grows older.

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

use crate::index::CONFIRM;
use crate::locate::DatabaseFiles;
use crate::source::Source;
use inotify::{Events, Watching};
pub(super) use stamp::SourceStamp;
use tasks::{Task, Tasks, Waker};

/// How often the files are looked at in any case.
const SAFETY_NET: Duration = Duration::from_secs(60);

/// How often they are looked at where there are no events.
const POLL: Duration = Duration::from_secs(1);

/// What the watcher saw at a source.
#[derive(Debug)]
pub(super) enum Sighting {
    /// The files look different.
    Stamp(SourceStamp),
    /// The path leads to this database now.
    Moved(PathBuf),
    /// The files are watched in another way, for people.
    Mode(String),
}

/// What watches the databases of all sources, until it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    tasks: Tasks,
    events: Arc<SharedEvents>,
}

impl Watcher {
    /// # Errors
    ///
    /// Returns an error if no thread can be spawned. Without inotify there is only polling.
    pub(super) fn start() -> io::Result<Self> {
        let events = SharedEvents::default();
        // Here rather than at the first look: the system is as empty as it will be.
        let _ = events.get();
        Ok(Self {
            tasks: Tasks::start()?,
            events: Arc::new(events),
        })
    }

    /// Starts watching the database of this source. It ends when the returned handle is
    /// dropped.
    pub(super) fn watch(
        &self,
        source: &Source,
        files: DatabaseFiles,
        report: impl Fn(Sighting) + Send + 'static,
    ) -> Watch {
        let waiting = Arc::default();
        let written = source.written.first();
        let written = written.unwrap_or(&files.main).clone();
        let task = self.tasks.add(|waker| {
            let mut inspector = Inspector {
                written,
                files,
                report: Box::new(report),
                waker,
                waiting: Arc::clone(&waiting),
                events: Arc::clone(&self.events),
                watching: None,
                reported: None,
                moved: None,
                last: None,
            };
            move || Instant::now() + inspector.inspect()
        });
        Watch { task, waiting }
    }
}

/// The one inotify instance, where there is one.
#[derive(Debug, Default)]
struct SharedEvents(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    events: Option<Arc<Events>>,
    /// Why there is none, and since when.
    failed: Option<(String, Instant)>,
}

impl SharedEvents {
    /// It, or why there is none. It is tried again at times: descriptors can run out and
    /// come back.
    fn get(&self) -> Result<Arc<Events>, String> {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(events) = found.events.take_if(|events| !events.are_live()) {
            // Its thread is gone, and the watches are of no use.
            drop(events);
        }
        if let Some(events) = &found.events {
            return Ok(Arc::clone(events));
        }
        if let Some((why, since)) = &found.failed
            && since.elapsed() < SAFETY_NET
        {
            return Err(why.clone());
        }
        match Events::start() {
            Ok(events) => Ok(Arc::clone(found.events.insert(Arc::new(events)))),
            Err(error) => {
                let why = error.to_string();
                found.failed = Some((why.clone(), Instant::now()));
                Err(why)
            }
        }
    }
}

/// Requests for a look.
type Waiting = Arc<Mutex<Vec<Sender<SourceStamp>>>>;

/// A running watch.
#[derive(Debug)]
pub(super) struct Watch {
    task: Task,
    waiting: Waiting,
}

impl Watch {
    /// Asks for a look now. What is seen comes after the owner has been told of it, which
    /// takes as long as the disk does.
    pub(super) fn inspect(&self) -> Receiver<SourceStamp> {
        let (done, inspected) = mpsc::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(done);
        drop(waiting);
        self.task.wake();
        inspected
    }
}

struct Inspector {
    files: DatabaseFiles,
    /// The path as it was written.
    written: PathBuf,
    report: Box<dyn Fn(Sighting) + Send>,
    waker: Waker,
    waiting: Waiting,
    events: Arc<SharedEvents>,
    /// The watch, and which directory it is of.
    watching: Option<(Watching, (u64, u64))>,
    /// What was last said about how this source is watched.
    reported: Option<String>,
    /// The path leads to another database.
    moved: Option<Moved>,
    /// What the files looked like.
    last: Option<SourceStamp>,
}

/// Where the path as it was written leads now.
struct Moved {
    to: PathBuf,
    since: Instant,
    is_reported: bool,
}

impl Inspector {
    /// One look; returns how long until the next.
    fn inspect(&mut self) -> Duration {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = std::mem::take(&mut *waiting);
        drop(waiting);
        // Watched first, looked at after: what changes in between is seen.
        let how = self.keep_watching();
        let events = how.is_ok();
        let how = how.map_or_else(|why| format!("polling: {why}"), |()| "events".to_owned());
        if self.reported.as_ref() != Some(&how) {
            (self.report)(Sighting::Mode(how.clone()));
            self.reported = Some(how);
        }
        let (stamp, until_older) = SourceStamp::at(&self.files);
        if self.last != Some(stamp) {
            self.last = Some(stamp);
            (self.report)(Sighting::Stamp(stamp));
        }
        self.follow();
        for done in answered {
            // Who no longer waits needs no answer.
            let _ = done.send(stamp);
        }
        let is_unconfirmed = self.moved.as_ref().is_some_and(|moved| !moved.is_reported);
        let most = match events && !is_unconfirmed {
            true => SAFETY_NET,
            false => POLL,
        };
        until_older.map_or(most, |until| until.min(most))
    }

    /// Tells where the path as it was written leads, if that is another database.
    fn follow(&mut self) {
        let to = match DatabaseFiles::resolve(&self.written) {
            Ok(files) if files.main != self.files.main => files.main,
            // Where the disk refuses, nothing is known.
            _ => return self.moved = None,
        };
        // An unmounted directory must not remove the source.
        if !to.parent().is_some_and(Path::is_dir) {
            return self.moved = None;
        }
        let moved = match self.moved.take().filter(|moved| moved.to == to) {
            Some(moved) => moved,
            None => Moved {
                to,
                since: Instant::now(),
                is_reported: false,
            },
        };
        let moved = self.moved.insert(moved);
        // A link can be removed and made anew: a missing file must be missing at two looks.
        let is_sure = moved.to.exists() || moved.since.elapsed() >= CONFIRM;
        if is_sure && !moved.is_reported {
            moved.is_reported = true;
            (self.report)(Sighting::Moved(moved.to.clone()));
        }
    }

    /// Sees to it that the directory is watched that is there now.
    fn keep_watching(&mut self) -> Result<(), String> {
        let directory = self.files.main.parent().unwrap_or(Path::new("/"));
        let Ok(about) = fs::metadata(directory) else {
            self.watching = None;
            return Err("its directory is not there".to_owned());
        };
        let which = (about.dev(), about.ino());
        if let Some((watching, watched)) = &self.watching
            && *watched == which
            && watching.is_live()
        {
            return Ok(());
        }
        self.watching = None;
        let events = self.events.get()?;
        if let Some(kind) = without_events(directory) {
            return Err(format!("{kind} tells of no changes made elsewhere"));
        }
        let names = [&self.files.main, &self.files.log]
            .map(|file| file.file_name().unwrap_or_default().to_owned());
        // Without its path: that is nobody's business in a log.
        let watching = events
            .watch(directory, names, self.waker.clone())
            .map_err(|error| error.to_string())?;
        self.watching = Some((watching, which));
        Ok(())
    }
}

/// The kind of file system, where it is one that other machines or other parts
/// of this one change without this kernel's notice.
fn without_events(directory: &Path) -> Option<&'static str> {
    #[cfg(target_os = "linux")]
    {
        let kind = rustix::fs::statfs(directory).ok()?.f_type;
        // linux/magic.h
        Some(match u32::try_from(kind & 0xffff_ffff).ok()? {
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

    /// A place with databases in `one` and `two`, and a link to `one` that is watched.
    struct MovingLink {
        place: tempfile::TempDir,
        inspector: Inspector,
        reported: Receiver<Sighting>,
    }

    impl MovingLink {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            for name in ["one", "two", "three", "empty"] {
                fs::create_dir(place.path().join(name)).unwrap();
            }
            for name in ["one", "two", "three"] {
                fs::write(place.path().join(name).join("x.db"), "").unwrap();
            }
            symlink("one", place.path().join("link")).unwrap();
            let source = &sources_of(&[place.path().join("link/x.db")])[0];
            let (to, reported) = mpsc::channel();
            let inspector = Inspector {
                files: DatabaseFiles::of_canonical(source.db().unwrap()),
                written: source.written[0].clone(),
                report: Box::new(move |sighting| to.send(sighting).unwrap()),
                waker: Waker::default(),
                waiting: Waiting::default(),
                events: Arc::default(),
                watching: None,
                reported: None,
                moved: None,
                last: None,
            };
            Self {
                place,
                inspector,
                reported,
            }
        }

        fn turn(&self, to: Option<&str>) {
            let link = self.place.path().join("link");
            fs::remove_file(&link).unwrap();
            if let Some(to) = to {
                symlink(to, link).unwrap();
            }
        }

        /// What one more look tells.
        fn follow(&mut self) -> Vec<PathBuf> {
            self.inspector.follow();
            let root = self.place.path().canonicalize().unwrap();
            let reported = self.reported.try_iter().map(|message| match message {
                Sighting::Moved(to) => to.strip_prefix(&root).unwrap().to_owned(),
                other => panic!("{other:?}"),
            });
            reported.collect()
        }
    }

    #[test]
    fn turned_link_is_told_once() {
        let mut moving = MovingLink::new();
        assert!(moving.follow().is_empty());
        moving.turn(Some("two"));
        assert_eq!(moving.follow(), [Path::new("two/x.db")]);
        assert!(moving.follow().is_empty());
        moving.turn(Some("one"));
        assert!(moving.follow().is_empty());
        moving.turn(Some("two"));
        assert_eq!(moving.follow(), [Path::new("two/x.db")]);
        moving.turn(Some("three"));
        assert_eq!(moving.follow(), [Path::new("three/x.db")]);
    }

    #[test]
    fn link_to_no_database_is_told_at_the_second_look() {
        let mut moving = MovingLink::new();
        moving.turn(Some("empty"));
        assert!(moving.follow().is_empty());
        // It was only made anew.
        moving.turn(Some("one"));
        assert!(moving.follow().is_empty());
        moving.turn(Some("empty"));
        assert!(moving.follow().is_empty());
        thread::sleep(CONFIRM);
        assert_eq!(moving.follow(), [Path::new("empty/x.db")]);
    }

    #[test]
    fn link_to_a_directory_that_is_away_is_not_told() {
        for to in [Some("away/deep"), Some("link"), None] {
            let mut moving = MovingLink::new();
            moving.turn(to);
            assert!(moving.follow().is_empty());
            thread::sleep(CONFIRM);
            assert!(moving.follow().is_empty(), "{to:?}");
        }
    }

    #[test]
    fn directory_that_becomes_a_link_is_told() {
        let mut moving = MovingLink::new();
        moving.inspector.written = moving.inspector.files.main.clone();
        fs::rename(
            moving.place.path().join("one"),
            moving.place.path().join("old"),
        )
        .unwrap();
        symlink("two", moving.place.path().join("one")).unwrap();
        assert_eq!(moving.follow(), [Path::new("two/x.db")]);
    }
}
