//! The socket of a running service, where other programs of the same user find
//! it: the lines of [`lines`], for each connection.
//!
//! It is in a directory that only its owner can write to, has mode 0600, and a peer
//! of another user is turned away. Where somebody sweeps the directory, the socket comes
//! back within about a second. What is removed at the end is this socket and nothing that
//! is in its place by then.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{debug, warn};

use super::client::{ConnectError, connect};
use super::{ByeCode, Event, Handle, lines, peer};
use crate::files;

/// Connections at a time.
const CONNECTIONS: usize = 64;

/// How often it is looked at whether the socket is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Where a service's socket can be: `$XDG_RUNTIME_DIR/opencode-sessions/socket`,
/// then in the state directory.
#[must_use]
pub fn places(state_dir: Option<&Path>) -> Vec<PathBuf> {
    in_runtime_dir()
        .into_iter()
        .chain(state_dir.map(|path| path.join("socket")))
        .collect()
}

fn in_runtime_dir() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .map(|path| path.join("opencode-sessions/socket"))
}

/// A socket that is bound, and does not answer yet.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    /// What is at the path.
    is: (u64, u64),
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
            files::create_private_directory(directory)?;
        }
        Self::in_its_directory(path)
    }

    /// Binds it once more where it was. A runtime directory is made again; a state
    /// directory that is gone took the lock with it, and another one has another service.
    fn again(&self) -> io::Result<Self> {
        match in_runtime_dir() {
            Some(path) if path == self.path => Self::at(&path),
            _ => Self::in_its_directory(&self.path),
        }
    }

    fn in_its_directory(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            files::check_is_private(directory)?;
        }
        match fs::symlink_metadata(path) {
            Ok(about) if about.file_type().is_socket() => {
                if !matches!(connect(path), Err(ConnectError::None)) {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                // Nobody answers: it is a dead service's.
                fs::remove_file(path)?;
            }
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self {
            path: path.to_owned(),
            is: identity(&fs::symlink_metadata(path)?),
            listener,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True where the path still leads to this socket.
    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|about| identity(&about) == self.is)
    }

    /// Answers from now on.
    ///
    /// # Errors
    ///
    /// Where the system gives no thread.
    pub fn serve(self, service: Handle) -> io::Result<Serving> {
        let (wake, woken) = UnixStream::pair()?;
        let open = Arc::default();
        let connections = Connections {
            service,
            open: Arc::clone(&open),
            turned_away: 0,
        };
        let thread = thread::Builder::new()
            .name("socket".into())
            .spawn(move || self.answer(&woken, connections))?;
        Ok(Serving {
            wake,
            thread: Some(thread),
            open,
        })
    }

    /// Takes connections until the other end of `woken` is closed.
    fn answer(mut self, woken: &UnixStream, mut connections: Connections) {
        let mut is_gone = false;
        loop {
            let mut polled = [
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(woken, PollFlags::IN),
            ];
            let pause = Timespec::try_from(LOOK).ok();
            let _ = poll(&mut polled, pause.as_ref());
            let (is_called, is_over) = (
                !polled[0].revents().is_empty(),
                !polled[1].revents().is_empty(),
            );
            if is_over {
                break;
            }
            if is_called {
                match self.listener.accept() {
                    Ok((stream, _)) => connections.take(stream),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // Out of descriptors, perhaps: not all the time.
                    Err(error) => {
                        debug!(%error, "a connection failed");
                        thread::sleep(Duration::from_millis(100));
                    }
                }
            } else if !self.is_there() {
                match self.again() {
                    Ok(bound) => (self, is_gone) = (bound, false),
                    Err(error) if !is_gone => {
                        warn!(path = %self.path.display(), %error, "the socket is gone");
                        is_gone = true;
                    }
                    Err(_) => {}
                }
            }
        }
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// A socket that answers, until this is dropped: then nobody can connect any more.
#[derive(Debug)]
pub struct Serving {
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
    open: Open,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.wake.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Whoever writes to a peer that does not read stops waiting for it.
        for stream in lock(&self.open).iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The connections that there are.
type Open = Arc<Mutex<Vec<Arc<UnixStream>>>>;

fn lock(open: &Open) -> MutexGuard<'_, Vec<Arc<UnixStream>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that counts until both its threads have dropped this.
struct Connection {
    stream: Arc<UnixStream>,
    open: Open,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        lock(&self.open).retain(|other| !Arc::ptr_eq(other, &self.stream));
    }
}

struct Connections {
    service: Handle,
    open: Open,
    /// Since the last one that was not.
    turned_away: u64,
}

impl Connections {
    fn take(&mut self, stream: UnixStream) {
        if !peer::is_of_this_user(&stream) {
            warn!("a program of another user was turned away");
            return;
        }
        // On some systems a connection takes this over from its listener.
        if stream.set_nonblocking(false).is_err() {
            return;
        }
        if lock(&self.open).len() >= CONNECTIONS {
            self.turn_away(&stream);
            return;
        }
        if self.turned_away > 0 {
            warn!(count = self.turned_away, "connections were turned away");
            self.turned_away = 0;
        }
        if let Err(error) = self.serve(stream) {
            debug!(%error, "no thread for a connection");
        }
    }

    /// Said once, and counted.
    fn turn_away(&mut self, stream: &UnixStream) {
        if self.turned_away == 0 {
            warn!("too many connections: the next ones are turned away");
        }
        self.turned_away += 1;
        let bye = Event::Bye {
            code: ByeCode::Full,
            reason: format!("{CONNECTIONS} programs are connected"),
        };
        let mut stream = stream;
        let _ = stream.set_nonblocking(true);
        let _ = stream.write_all(&bye.line());
    }

    fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let stream = Arc::new(stream);
        let connection = Arc::new(Connection {
            stream: Arc::clone(&stream),
            open: Arc::clone(&self.open),
        });
        lock(&self.open).push(stream);
        let events = self.service.subscribe_peer();
        let reply_to = events.reply_to();
        let (of_reader, service) = (Arc::clone(&connection), self.service.clone());
        thread::Builder::new()
            .name("commands".into())
            .stack_size(256 << 10)
            .spawn(move || {
                let input = BufReader::new(&*of_reader.stream);
                let _ = lines::read_commands(input, &service, &reply_to);
                // A peer that only ends its commands still wants what it asked for.
                wait_until_gone(&of_reader.stream);
                service.forget(&reply_to);
            })?;
        let of_writer = Arc::clone(&connection);
        let writing = thread::Builder::new()
            .name("events".into())
            .stack_size(256 << 10)
            .spawn(move || {
                let _ = lines::write_events(events, &*of_writer.stream);
                let _ = of_writer.stream.shutdown(Shutdown::Both);
            });
        if let Err(error) = writing {
            // The other thread ends then.
            let _ = connection.stream.shutdown(Shutdown::Both);
            return Err(error);
        }
        Ok(())
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
