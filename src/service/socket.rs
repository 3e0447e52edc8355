//! The Unix socket of a running service, to which other programs of the same user connect. Each
//! connection carries the lines of [`lines`].
//!
//! The socket is in a directory to which only its owner can write, and has mode 0600. A peer of
//! another user is rejected. If another program removes the socket, for instance while cleaning
//! the directory, the service binds it again within about a second. At the end, the path is
//! removed only if it is still this socket.

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

use super::client::{ConnectError, connect_stream};
use super::{ByeCode, Event, Handle, lines, peer};
use crate::files;

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// How often the service checks that the path still leads to its socket.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after a failed `accept`, for instance because no descriptors are available.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The stack of each thread of a connection, in bytes.
const STACK_BYTES: usize = 256 << 10;

/// Returns the paths at which a service's socket can be:
/// `$XDG_RUNTIME_DIR/opencode-sessions/socket`, then `socket` in the state directory.
#[must_use]
pub(crate) fn paths(state_dir: Option<&Path>) -> Vec<PathBuf> {
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

/// A socket that is bound, but accepts no connections yet.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    path: PathBuf,
    /// The device and inode of the socket file.
    identity: (u64, u64),
    listener: UnixListener,
}

impl BoundSocket {
    /// Binds the first of these paths that is free. A path at which another service answers is
    /// not.
    ///
    /// # Errors
    ///
    /// Returns the error of the last path if none can be bound.
    pub(crate) fn bind_first(paths: &[PathBuf]) -> io::Result<Self> {
        let mut last = io::Error::other("no runtime directory and no state directory");
        for path in paths {
            match Self::bind(path) {
                Ok(bound) => return Ok(bound),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            files::create_private_directory(directory)?;
        }
        Self::bind_in_directory(path)
    }

    /// Binds the same path once more. A missing runtime directory is created again. A missing
    /// state directory is not: the lock was in it, so a new one belongs to another service.
    fn bind_again(&self) -> io::Result<Self> {
        match in_runtime_dir() {
            Some(path) if path == self.path => Self::bind(&path),
            _ => Self::bind_in_directory(&self.path),
        }
    }

    fn bind_in_directory(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            files::check_is_private(directory)?;
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => {
                if !matches!(connect_stream(path), Err(ConnectError::NotRunning)) {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                // The socket was left behind by a service that was killed.
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
            identity: identity(&fs::symlink_metadata(path)?),
            listener,
        })
    }

    /// Returns true if the path still leads to this socket.
    fn is_in_place(&self) -> bool {
        let metadata = fs::symlink_metadata(&self.path);
        metadata.is_ok_and(|metadata| identity(&metadata) == self.identity)
    }

    /// Accepts connections from now on, on a thread of its own.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread cannot be spawned.
    pub(crate) fn serve(self, service: Handle) -> io::Result<SocketServer> {
        let (shutdown, is_shut_down) = UnixStream::pair()?;
        let open = Arc::default();
        let connections = Connections {
            service,
            open: Arc::clone(&open),
            rejected: 0,
        };
        let thread = thread::Builder::new()
            .name("socket".into())
            .spawn(move || self.accept(&is_shut_down, connections))?;
        Ok(SocketServer {
            shutdown,
            thread: Some(thread),
            open,
        })
    }

    /// Accepts connections until the other end of `shutdown` is closed.
    fn accept(mut self, shutdown: &UnixStream, mut connections: Connections) {
        let mut is_missing = false;
        loop {
            let mut polled = [
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(shutdown, PollFlags::IN),
            ];
            let timeout = Timespec::try_from(CHECK_INTERVAL).ok();
            let _ = poll(&mut polled, timeout.as_ref());
            let (has_peer, is_shut_down) = (
                !polled[0].revents().is_empty(),
                !polled[1].revents().is_empty(),
            );
            if is_shut_down {
                break;
            }
            if has_peer {
                match self.listener.accept() {
                    Ok((stream, _)) => connections.add(stream),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        debug!(%error, "cannot accept a connection");
                        thread::sleep(ACCEPT_PAUSE);
                    }
                }
            } else if !self.is_in_place() {
                match self.bind_again() {
                    Ok(bound) => (self, is_missing) = (bound, false),
                    Err(error) if !is_missing => {
                        warn!(path = %self.path.display(), %error, "socket removed; cannot bind it again");
                        is_missing = true;
                    }
                    Err(_) => {}
                }
            }
        }
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// A socket that accepts connections. Dropping it closes the socket and all connections.
#[derive(Debug)]
pub(crate) struct SocketServer {
    shutdown: UnixStream,
    thread: Option<JoinHandle<()>>,
    open: OpenStreams,
}

impl Drop for SocketServer {
    fn drop(&mut self) {
        let _ = self.shutdown.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // A thread that writes to a peer that does not read must not block any longer.
        for stream in lock(&self.open).iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The streams of the open connections.
type OpenStreams = Arc<Mutex<Vec<Arc<UnixStream>>>>;

fn lock(open: &OpenStreams) -> MutexGuard<'_, Vec<Arc<UnixStream>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection. It counts as open until both of its threads have dropped this.
struct Connection {
    stream: Arc<UnixStream>,
    open: OpenStreams,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        lock(&self.open).retain(|other| !Arc::ptr_eq(other, &self.stream));
    }
}

struct Connections {
    service: Handle,
    open: OpenStreams,
    /// How many connections were rejected since the last one that was served.
    rejected: u64,
}

impl Connections {
    fn add(&mut self, stream: UnixStream) {
        if !peer::is_same_user(&stream) {
            warn!("connection of another user rejected");
            return;
        }
        // On some systems an accepted socket inherits this from its listener.
        if stream.set_nonblocking(false).is_err() {
            return;
        }
        if lock(&self.open).len() >= MAX_CONNECTIONS {
            self.reject(&stream);
            return;
        }
        if self.rejected > 0 {
            warn!(count = self.rejected, "connections were rejected");
            self.rejected = 0;
        }
        if let Err(error) = self.serve(stream) {
            debug!(%error, "cannot spawn the threads of a connection");
        }
    }

    /// Rejects a connection. The first of several is logged, and then their number.
    fn reject(&mut self, stream: &UnixStream) {
        if self.rejected == 0 {
            warn!("too many connections; rejecting new ones");
        }
        self.rejected += 1;
        let bye = Event::Bye {
            code: ByeCode::Full,
            reason: format!("too many connections ({MAX_CONNECTIONS})"),
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
        let (input, service) = (Arc::clone(&connection), self.service.clone());
        thread::Builder::new()
            .name("commands".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let reader = BufReader::new(&*input.stream);
                let _ = lines::read_commands(reader, &service, &reply_to);
                // A peer that closes only its sending side still receives events.
                wait_until_closed(&input.stream);
                service.forget(&reply_to);
            })?;
        let output = Arc::clone(&connection);
        let spawned = thread::Builder::new()
            .name("events".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _ = lines::write_events(events, &*output.stream);
                let _ = output.stream.shutdown(Shutdown::Both);
            });
        if let Err(error) = spawned {
            // This ends the other thread.
            let _ = connection.stream.shutdown(Shutdown::Both);
            return Err(error);
        }
        Ok(())
    }
}

/// Waits until the peer has closed the connection, or this end was shut down.
fn wait_until_closed(stream: &UnixStream) {
    loop {
        // POLLHUP is reported without being requested.
        let mut polled = [PollFd::new(stream, PollFlags::empty())];
        match poll(&mut polled, None) {
            Ok(_) if polled[0].revents().is_empty() => {}
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}
