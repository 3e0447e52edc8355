//! Noticing that a source's files changed, without opening any of them.
//!
//! One thread a source: a disk that does not answer holds up its own source
//! only. It is woken by the directory's events where the system has them, and
//! looks by itself every second where it has not (a network file system, a
//! directory that is not there yet, no watch to be had); and every minute in any
//! case, since events can be lost. It tells what the files look like whenever
//! that is not what they looked like before.
//!
//! A path can go through a link, and a link can be turned to another directory. So each
//! look resolves the path as it was written, and tells where it leads if that is not
//! the database that is watched.
//!
//! Only the database and its log count. The `-shm` file changes with every
//! reader, also with ours.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::Inbox;
use crate::database_files::DatabaseFiles;
use crate::index::CONFIRM;
use crate::source::{Source, SourceName};

/// How often the files are looked at in any case.
const SAFETY_NET: Duration = Duration::from_secs(60);

/// How often they are looked at where there are no events.
const POLL: Duration = Duration::from_secs(1);

/// Events come in bursts; one look is for all that come within this time.
const BURST: Duration = Duration::from_millis(20);

/// A change so recent that another one could leave the same time.
const RACY: Duration = Duration::from_secs(2);

/// What the files of a source look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looks {
    db: Option<FileLooks>,
    /// An empty log is none: a reader makes one.
    log: Option<FileLooks>,
    /// One of them changed so recently that it may change again and look the same.
    racy: bool,
    /// The files could not be looked at.
    failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileLooks {
    device: u64,
    inode: u64,
    size: u64,
    /// Not the time of the last change to the inode: run by root, SQLite sets the
    /// log's owner whenever it opens it, also for reading, and that would wake us
    /// for ever.
    modified: (i64, i64),
}

impl Looks {
    pub(super) fn at(files: &DatabaseFiles) -> Self {
        let (db, log) = (file(&files.main), file(&files.log));
        let failed = db.is_err() || log.is_err();
        let (db, log) = (
            db.ok().flatten(),
            log.ok().flatten().filter(|log| log.size > 0),
        );
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let racy = [db, log].into_iter().flatten().any(|file| {
            let modified = Duration::from_secs(file.modified.0.max(0).unsigned_abs());
            now.abs_diff(modified) < RACY
        });
        Self {
            db,
            log,
            racy,
            failed,
        }
    }

    /// True where nothing can have changed between these looks and `now`.
    pub(super) fn is_still(&self, now: &Self) -> bool {
        !self.racy && !self.failed && self == now
    }
}

fn file(path: &Path) -> io::Result<Option<FileLooks>> {
    match fs::metadata(path) {
        Ok(about) => Ok(Some(FileLooks {
            device: about.dev(),
            inode: about.ino(),
            size: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
        })),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Starts watching the database of this source. It ends when the returned handle is dropped.
///
/// # Errors
///
/// Where the system gives no thread.
pub(super) fn watch(
    source: &Source,
    number: u64,
    files: DatabaseFiles,
    inbox: Inbox,
) -> io::Result<Watch> {
    let (wake, woken) = mpsc::channel();
    let name = &source.name;
    let written = source.written.first();
    let looker = Looker {
        name: name.clone(),
        number,
        written: written.unwrap_or(&files.main).clone(),
        files,
        inbox,
        wake: wake.clone(),
        watcher: None,
        told: None,
        turned: None,
    };
    thread::Builder::new()
        .name(format!("watch {name}").chars().take(15).collect())
        .stack_size(256 << 10)
        .spawn(move || looker.run(&woken))?;
    Ok(Watch(wake))
}

/// A running watch.
#[derive(Debug)]
pub(super) struct Watch(Sender<Wake>);

impl Watch {
    /// Asks for a look now. The receiver is disconnected when the owner has been told
    /// what is seen, which takes as long as the disk does.
    pub(super) fn look(&self) -> Receiver<()> {
        let (done, looked) = mpsc::channel();
        let _ = self.0.send(Wake::Look(done));
        looked
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.send(Wake::End);
    }
}

enum Wake {
    /// The files may have changed.
    Event,
    /// A request for a look: dropping the sender answers it.
    Look(Sender<()>),
    End,
}

struct Looker {
    name: SourceName,
    /// Which source of that name.
    number: u64,
    files: DatabaseFiles,
    /// The path as it was written.
    written: PathBuf,
    inbox: Inbox,
    wake: Sender<Wake>,
    /// The watcher, and which directory it watches.
    watcher: Option<(RecommendedWatcher, (u64, u64))>,
    /// What was last said about how this source is watched.
    told: Option<String>,
    /// The path leads to another database.
    turned: Option<Turned>,
}

/// Where the path as it was written leads now.
struct Turned {
    to: PathBuf,
    since: Instant,
    is_told: bool,
}

impl Looker {
    fn run(mut self, woken: &Receiver<Wake>) {
        let mut last = None;
        let mut waiting = Vec::new();
        loop {
            // Watched first, looked at after: what changes in between is seen.
            let how = self.keep_watching();
            let events = how.is_ok();
            let how = how.map_or_else(|why| format!("polling: {why}"), |()| "events".to_owned());
            if self.told.as_ref() != Some(&how) {
                self.inbox
                    .watched(self.name.clone(), self.number, how.clone());
                self.told = Some(how);
            }
            let looks = Looks::at(&self.files);
            if last != Some(looks) {
                last = Some(looks);
                self.inbox.looked(self.name.clone(), self.number, looks);
            }
            self.follow();
            // This answers the requests for a look.
            waiting.clear();
            let is_unconfirmed = self.turned.as_ref().is_some_and(|turned| !turned.is_told);
            let pause = match (events && !is_unconfirmed, looks.racy) {
                (false, _) => POLL,
                // Once more when the change is old enough to be sure of: a commit
                // is in the log before it is in the wal-index, where readers look.
                (true, true) => RACY,
                (true, false) => SAFETY_NET,
            };
            let wake = match woken.recv_timeout(pause) {
                Ok(wake) => Some(wake),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if matches!(wake, Some(Wake::Event)) {
                thread::sleep(BURST);
            }
            for wake in wake.into_iter().chain(woken.try_iter()) {
                match wake {
                    Wake::End => return,
                    Wake::Look(done) => waiting.push(done),
                    Wake::Event => {}
                }
            }
        }
    }

    /// Tells where the path as it was written leads, if that is another database.
    fn follow(&mut self) {
        let to = match DatabaseFiles::resolve(&self.written) {
            Ok(files) if files.main != self.files.main => files.main,
            // Where the disk refuses, nothing is known.
            _ => return self.turned = None,
        };
        // An unmounted directory must not remove the source.
        if !to.parent().is_some_and(Path::is_dir) {
            return self.turned = None;
        }
        let turned = match self.turned.take().filter(|turned| turned.to == to) {
            Some(turned) => turned,
            None => Turned {
                to,
                since: Instant::now(),
                is_told: false,
            },
        };
        let turned = self.turned.insert(turned);
        // A link can be removed and made anew: a missing file must be missing at two looks.
        let is_sure = turned.to.exists() || turned.since.elapsed() >= CONFIRM;
        if is_sure && !turned.is_told {
            turned.is_told = true;
            self.inbox
                .turned(self.name.clone(), self.number, turned.to.clone());
        }
    }

    /// Sees to it that the directory is watched that is there now.
    fn keep_watching(&mut self) -> Result<(), String> {
        let directory = self.files.main.parent().unwrap_or(Path::new("/"));
        let Ok(about) = fs::metadata(directory) else {
            self.watcher = None;
            return Err("its directory is not there".to_owned());
        };
        let which = (about.dev(), about.ino());
        if self
            .watcher
            .as_ref()
            .is_some_and(|(_, watched)| *watched == which)
        {
            return Ok(());
        }
        self.watcher = None;
        if let Some(kind) = without_events(directory) {
            return Err(format!("{kind} tells of no changes made elsewhere"));
        }
        // The directory itself: it is gone, or elsewhere.
        let files = &self.files;
        let ours = [files.main.as_path(), &files.log, directory].map(Path::to_owned);
        let wake = self.wake.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let counts = match &event {
                // Reading is no change; an error may hide one.
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => false,
                Ok(event) => {
                    event.need_rescan() || event.paths.iter().any(|path| ours.contains(path))
                }
                Err(_) => true,
            };
            if counts {
                let _ = wake.send(Wake::Event);
            }
        });
        // Without its paths: they are nobody's business in a log.
        let why = |error: notify::Error| {
            notify::Error {
                paths: Vec::new(),
                ..error
            }
            .to_string()
        };
        let mut watcher = watcher.map_err(why)?;
        watcher
            .watch(directory, RecursiveMode::NonRecursive)
            .map_err(why)?;
        self.watcher = Some((watcher, which));
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

    use super::*;
    use crate::service::Message;
    use crate::source::sources_of;

    /// A place with databases in `one` and `two`, and a link to `one` that is watched.
    struct Turning {
        place: tempfile::TempDir,
        looker: Looker,
        told: Receiver<Message>,
    }

    impl Turning {
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
            let (to, told) = mpsc::channel();
            let looker = Looker {
                name: source.name.clone(),
                number: 1,
                files: DatabaseFiles::of_canonical(source.db().unwrap()),
                written: source.written[0].clone(),
                inbox: Inbox(to),
                wake: mpsc::channel().0,
                watcher: None,
                told: None,
                turned: None,
            };
            Self {
                place,
                looker,
                told,
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
            self.looker.follow();
            let root = self.place.path().canonicalize().unwrap();
            let told = self.told.try_iter().map(|message| match message {
                Message::Turned(_, 1, to) => to.strip_prefix(&root).unwrap().to_owned(),
                other => panic!("{other:?}"),
            });
            told.collect()
        }
    }

    #[test]
    fn turned_link_is_told_once() {
        let mut turning = Turning::new();
        assert!(turning.follow().is_empty());
        turning.turn(Some("two"));
        assert_eq!(turning.follow(), [Path::new("two/x.db")]);
        assert!(turning.follow().is_empty());
        turning.turn(Some("one"));
        assert!(turning.follow().is_empty());
        turning.turn(Some("two"));
        assert_eq!(turning.follow(), [Path::new("two/x.db")]);
        turning.turn(Some("three"));
        assert_eq!(turning.follow(), [Path::new("three/x.db")]);
    }

    #[test]
    fn link_to_no_database_is_told_at_the_second_look() {
        let mut turning = Turning::new();
        turning.turn(Some("empty"));
        assert!(turning.follow().is_empty());
        // It was only made anew.
        turning.turn(Some("one"));
        assert!(turning.follow().is_empty());
        turning.turn(Some("empty"));
        assert!(turning.follow().is_empty());
        thread::sleep(CONFIRM);
        assert_eq!(turning.follow(), [Path::new("empty/x.db")]);
    }

    #[test]
    fn link_to_a_directory_that_is_away_is_not_told() {
        for to in [Some("away/deep"), Some("link"), None] {
            let mut turning = Turning::new();
            turning.turn(to);
            assert!(turning.follow().is_empty());
            thread::sleep(CONFIRM);
            assert!(turning.follow().is_empty(), "{to:?}");
        }
    }

    #[test]
    fn directory_that_becomes_a_link_is_told() {
        let mut turning = Turning::new();
        turning.looker.written = turning.looker.files.main.clone();
        fs::rename(
            turning.place.path().join("one"),
            turning.place.path().join("old"),
        )
        .unwrap();
        symlink("two", turning.place.path().join("one")).unwrap();
        assert_eq!(turning.follow(), [Path::new("two/x.db")]);
    }
}
