//! The socket of a running service, where other programs of the same user find
//! it: the lines of [`lines`], for each connection.
//!
//! It is in a directory that only its owner can enter, has mode 0600, and a peer
//! of another user is turned away.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use tracing::{debug, warn};

use super::{Handle, lines};

/// Connections at a time.
const CONNECTIONS: usize = 64;

/// Where a service's socket can be: `$XDG_RUNTIME_DIR/opencode-sessions/socket`,
/// then in the state directory.
#[must_use]
pub fn places(state_dir: Option<&Path>) -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .map(|path| path.join("opencode-sessions/socket"));
    runtime
        .into_iter()
        .chain(state_dir.map(|path| path.join("socket")))
        .collect()
}

/// A socket that is bound, and does not answer yet.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    listener: UnixListener,
}

impl Bound {
    /// Binds the first of `places` that can be had: one at which another service
    /// answers cannot.
    ///
    /// # Errors
    ///
    /// That of the last place, where there is none to be had.
    pub fn first_of(places: &[PathBuf]) -> io::Result<Self> {
        let mut last =
            io::Error::other("there is neither a runtime directory nor a state directory");
        for path in places {
            match Self::at(path) {
                Ok(bound) => return Ok(bound),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn at(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        // Nobody answers: it is a dead service's.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self {
            path: path.to_owned(),
            listener,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers from now on.
    ///
    /// # Errors
    ///
    /// Where the system gives no thread.
    pub fn serve(self, service: Handle) -> io::Result<Serving> {
        let listener = Arc::new(self.listener);
        let serving = Serving {
            path: self.path.clone(),
            listener: Arc::clone(&listener),
            open: Arc::default(),
            ended: Arc::default(),
        };
        let (open, ended) = (Arc::clone(&serving.open), Arc::clone(&serving.ended));
        thread::Builder::new()
            .name("socket".into())
            .spawn(move || {
                let count = Arc::new(AtomicUsize::new(0));
                for stream in listener.incoming() {
                    if ended.load(Ordering::Acquire) {
                        return;
                    }
                    match stream {
                        Ok(stream) => connect(stream, &service, &open, &count),
                        // Out of descriptors, perhaps: not all the time.
                        Err(error) => {
                            debug!(%error, "a connection failed");
                            thread::sleep(std::time::Duration::from_millis(100));
                        }
                    }
                }
            })?;
        Ok(serving)
    }
}

/// A socket that answers, until this is dropped.
#[derive(Debug)]
pub struct Serving {
    path: PathBuf,
    listener: Arc<UnixListener>,
    ended: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<Arc<UnixStream>>>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        self.ended.store(true, Ordering::Release);
        // Whoever waits for a connection stops waiting.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        // Whoever writes to a peer that does not read stops waiting for it.
        for stream in self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn connect(
    stream: UnixStream,
    service: &Handle,
    open: &Arc<Mutex<Vec<Arc<UnixStream>>>>,
    count: &Arc<AtomicUsize>,
) {
    if !is_of_this_user(&stream) {
        warn!("a program of another user was turned away");
        return;
    }
    if count.load(Ordering::Acquire) >= CONNECTIONS {
        warn!("too many connections: one was turned away");
        return;
    }
    let stream = Arc::new(stream);
    let events = service.subscribe();
    let reply_to = events.reply_to();
    let reading = {
        let (stream, service) = (Arc::clone(&stream), service.clone());
        thread::Builder::new()
            .name("commands".into())
            .stack_size(256 << 10)
            .spawn(move || {
                let _ = lines::read_commands(BufReader::new(&*stream), &service, reply_to);
                // A peer that only ends its commands still wants what it asked for.
                wait_until_gone(&stream);
                service.forget(reply_to);
            })
    };
    if reading.is_err() {
        return;
    }
    count.fetch_add(1, Ordering::AcqRel);
    open.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Arc::clone(&stream));
    let (of_thread, open_then, count_then) =
        (Arc::clone(&stream), Arc::clone(open), Arc::clone(count));
    let close = move |stream: &Arc<UnixStream>| {
        let _ = stream.shutdown(Shutdown::Both);
        open_then
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|other| !Arc::ptr_eq(other, stream));
        count_then.fetch_sub(1, Ordering::AcqRel);
    };
    let writing = thread::Builder::new()
        .name("events".into())
        .stack_size(256 << 10)
        .spawn(move || {
            let _ = lines::write_events(events, &*of_thread);
            close(&of_thread);
        });
    if writing.is_err() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Waits until the peer has closed its end, or this end was shut down.
fn wait_until_gone(stream: &UnixStream) {
    loop {
        // A hang-up is told without being asked for.
        let mut polled = [PollFd::new(stream, PollFlags::empty())];
        match poll(&mut polled, None) {
            Ok(_) if polled[0].revents().is_empty() => {}
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// The kernel says whose process the peer is.
fn is_of_this_user(stream: &UnixStream) -> bool {
    #[cfg(target_os = "linux")]
    {
        rustix::net::sockopt::socket_peercred(stream)
            .is_ok_and(|peer| peer.uid == rustix::process::geteuid())
    }
    #[cfg(not(target_os = "linux"))]
    {
        use std::os::fd::AsRawFd;
        let (mut uid, mut gid) = (0, 0);
        // SAFETY: the descriptor is open for as long as `stream` is borrowed, and
        // both pointers are to variables of the right types.
        #[expect(unsafe_code, reason = "neither std nor rustix has this call here")]
        let result = unsafe { libc::getpeereid(stream.as_raw_fd(), &mut uid, &mut gid) };
        result == 0 && uid == rustix::process::geteuid().as_raw()
    }
}
