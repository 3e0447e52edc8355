//! The client of a running service.
//!
//! A connection can fail in several ways: no service may be running, or one that does not
//! respond, has another version, or has no free connection. [`ConnectError`] tells them apart,
//! so that a program can decide what to do. No call blocks longer than its deadline, whatever
//! the other side does.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::peer;
use super::protocol::{ByeCode, Hello, PROTOCOL};
use crate::entry::Sourced;
use crate::source::SourceName;

/// How long to wait for a service by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// The length of the longest accepted line, in bytes: the snapshot of a large index.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// A connection to a running service.
#[derive(Debug)]
pub struct Client {
    hello: Hello,
    stream: BufReader<DeadlineStream>,
}

/// Why a connection to a service failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// No service is running there.
    NotRunning,
    /// A process has the socket and does not respond.
    NoAnswer {
        /// Its process id, if the system reports it.
        pid: Option<u32>,
    },
    /// The service has another version of the protocol.
    OtherVersion {
        /// Its process id.
        pid: u32,
        /// Its version.
        version: String,
        /// The version of its protocol.
        protocol: u32,
    },
    /// The service has as many connections as it accepts.
    Full {
        /// Its process id, if the system reports it.
        pid: Option<u32>,
    },
    /// The socket belongs to another user.
    OtherUser,
}

impl fmt::Display for ConnectError {
    /// Writes the problem and what to do about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = |pid: &Option<u32>| match pid {
            Some(pid) => format!("process {pid}"),
            None => "a process".to_owned(),
        };
        match self {
            Self::NotRunning => {
                f.write_str("no service is running; start one with `opencode-sessions serve`")
            }
            Self::NoAnswer { pid } => write!(
                f,
                "the service ({}) does not answer; stop it, or restart it with `systemctl --user \
                 restart opencode-sessions` if systemd started it",
                process(pid)
            ),
            Self::OtherVersion {
                pid,
                version,
                protocol,
            } => write!(
                f,
                "the service (process {pid}) has version {} and protocol {protocol}, this program \
                 has version {} and protocol {PROTOCOL}; restart the service",
                crate::text::one_line(version),
                crate::wire::VERSION
            ),
            Self::Full { pid } => write!(
                f,
                "the service ({}) has too many connections; stop some of the connected programs",
                process(pid)
            ),
            Self::OtherUser => f.write_str(
                "the service's socket belongs to another user; check the directory that \
                 XDG_RUNTIME_DIR names",
            ),
        }
    }
}

/// The `snapshot` event as a client reads it. Fields that it does not need are ignored.
#[derive(Debug, Clone, Deserialize)]
pub struct ReceivedSnapshot {
    /// The sources.
    pub sources: Vec<ReceivedSource>,
    /// The sessions.
    pub sessions: Vec<Sourced>,
}

/// A source in a snapshot.
#[derive(Debug, Clone, Deserialize)]
pub struct ReceivedSource {
    /// The name of the source.
    pub source: SourceName,
    /// Its health.
    pub health: ReceivedHealth,
}

/// The health of a source in a snapshot: a name, since a newer service may have others.
#[derive(Debug, Clone, Deserialize)]
pub struct ReceivedHealth {
    /// `ok`, `failing`, …
    pub state: String,
}

/// Returns the type of the event in a line, if it has one. Services write the type first, and
/// then the rest of the line is not parsed: a snapshot can have megabytes.
#[must_use]
pub fn event_type(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    let word = line.strip_prefix(b"{\"type\":\"");
    let word = word.and_then(|rest| rest.split(|byte| *byte == b'"').next());
    match word.filter(|word| word.iter().all(u8::is_ascii_lowercase)) {
        Some(word) => String::from_utf8(word.to_vec()).ok(),
        None => serde_json::from_slice::<Typed>(line)
            .ok()
            .map(|typed| typed.r#type),
    }
}

impl Client {
    /// Connects to the first of these sockets at which a service of this protocol answers
    /// before `until`.
    ///
    /// # Errors
    ///
    /// Returns the first error other than [`ConnectError::NotRunning`] if no connection
    /// succeeds, and [`ConnectError::NotRunning`] if there is no other.
    pub fn connect_first(sockets: &[PathBuf], until: Instant) -> Result<Self, ConnectError> {
        let mut first_error = ConnectError::NotRunning;
        for socket in sockets {
            match Self::connect(socket, until) {
                Ok(client) => return Ok(client),
                Err(ConnectError::NotRunning) => {}
                Err(error) if first_error == ConnectError::NotRunning => first_error = error,
                Err(_) => {}
            }
        }
        Err(first_error)
    }

    /// Connects to the service at `socket`, which must answer before `until`.
    ///
    /// # Errors
    ///
    /// Returns the reason if no service of this protocol answers in time.
    pub fn connect(socket: &Path, until: Instant) -> Result<Self, ConnectError> {
        let stream = connect_stream(socket)?;
        if !peer::is_same_user(&stream) {
            return Err(ConnectError::OtherUser);
        }
        let pid = peer::pid(&stream);
        let mut stream = BufReader::new(DeadlineStream { stream, until });
        let mut line = Vec::new();
        read_line(&mut stream, &mut line).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ConnectError::NoAnswer { pid },
            // The service is ending or has ended since.
            _ => ConnectError::NotRunning,
        })?;
        let hello = parse_hello(&line, pid)?;
        Ok(Self { hello, stream })
    }

    /// Returns the `hello` of the service.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Sets the deadline of all further calls.
    pub fn set_deadline(&mut self, until: Instant) {
        self.stream.get_mut().until = until;
    }

    /// Refreshes all sources and returns the snapshot after that.
    ///
    /// # Errors
    ///
    /// Returns an error if the service does not answer in time.
    pub fn refresh(&mut self) -> io::Result<ReceivedSnapshot> {
        self.send("refresh")?;
        let (mut line, mut snapshot) = (Vec::new(), Vec::new());
        // The first snapshot comes by itself. If no event follows it, it is still current.
        let mut is_stale = true;
        loop {
            read_line(&mut self.stream, &mut line)?;
            match event_type(&line).as_deref() {
                Some("snapshot") => {
                    std::mem::swap(&mut line, &mut snapshot);
                    is_stale = false;
                }
                Some("change" | "health") => is_stale = true,
                Some("reply") => break,
                _ => {}
            }
        }
        if is_stale {
            self.send("snapshot")?;
            return self.read_event("snapshot");
        }
        Ok(serde_json::from_slice(&snapshot)?)
    }

    /// Returns the status of the service, as JSON.
    ///
    /// # Errors
    ///
    /// Returns an error if the service does not answer in time.
    pub fn status(&mut self) -> io::Result<Value> {
        #[derive(Deserialize)]
        struct Reply {
            status: Value,
        }
        self.send("status")?;
        Ok(self.read_event::<Reply>("reply")?.status)
    }

    /// Ends the service for all subscribers, and waits until it has ended.
    ///
    /// # Errors
    ///
    /// Returns an error if the service does not end in time.
    pub fn stop(mut self) -> io::Result<()> {
        self.send("stop")?;
        let mut line = Vec::new();
        loop {
            match read_line(&mut self.stream, &mut line) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&mut self, command: &str) -> io::Result<()> {
        let line = format!("{{\"type\":\"{command}\"}}\n");
        self.stream.get_mut().write_all(line.as_bytes())
    }

    /// Returns the connection without a deadline, and the bytes after the `hello` that were
    /// already read from it.
    ///
    /// # Errors
    ///
    /// Returns an error if the timeouts of the stream cannot be removed.
    pub fn into_stream(self) -> io::Result<(Vec<u8>, UnixStream)> {
        let read = self.stream.buffer().to_vec();
        let stream = self.stream.into_inner().stream;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        Ok((read, stream))
    }

    /// Reads the next event of this type and skips others.
    fn read_event<T: DeserializeOwned>(&mut self, wanted: &str) -> io::Result<T> {
        let mut line = Vec::new();
        loop {
            read_line(&mut self.stream, &mut line)?;
            if event_type(&line).as_deref() == Some(wanted) {
                return Ok(serde_json::from_slice(&line)?);
            }
        }
    }
}

/// Parses the first line of a service, which is not a `hello` if the service has no free
/// connection or is ending.
fn parse_hello(line: &[u8], pid: Option<u32>) -> Result<Hello, ConnectError> {
    #[derive(Deserialize)]
    struct Bye {
        code: ByeCode,
    }
    /// The fields that the `hello` of every version has.
    #[derive(Deserialize)]
    struct AnyHello {
        protocol: u32,
        version: String,
        pid: u32,
    }
    match event_type(line).as_deref() {
        Some("hello") => {}
        Some("bye") => {
            return Err(match serde_json::from_slice(line) {
                Ok(Bye {
                    code: ByeCode::Full,
                }) => ConnectError::Full { pid },
                // The service is ending.
                _ => ConnectError::NotRunning,
            });
        }
        _ => return Err(ConnectError::NoAnswer { pid }),
    }
    let Ok(any) = serde_json::from_slice::<AnyHello>(line) else {
        return Err(ConnectError::NoAnswer { pid });
    };
    match serde_json::from_slice::<Hello>(line) {
        Ok(hello) if hello.protocol == PROTOCOL => Ok(hello),
        _ => Err(ConnectError::OtherVersion {
            pid: any.pid,
            version: any.version,
            protocol: any.protocol,
        }),
    }
}

/// Connects without blocking. A blocking call would hang if the process at the other end is
/// stopped and its backlog is full.
pub(super) fn connect_stream(path: &Path) -> Result<UnixStream, ConnectError> {
    let not_running = |_| ConnectError::NotRunning;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let address = SocketAddrUnix::new(path).map_err(not_running)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(not_running)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        Err(rustix::io::Errno::AGAIN) => return Err(ConnectError::NoAnswer { pid: None }),
        Err(_) => return Err(ConnectError::NotRunning),
    }
    rustix::io::ioctl_fionbio(&socket, false).map_err(not_running)?;
    Ok(UnixStream::from(socket))
}

/// Reads a line, with its newline.
///
/// # Errors
///
/// Returns [`io::ErrorKind::UnexpectedEof`] if the stream ends within the line or before it, or
/// if the line is longer than 256 MiB, and otherwise the errors of `stream`.
pub fn read_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    stream
        .by_ref()
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', line)?;
    match line.last() {
        Some(b'\n') => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A stream whose reads and writes fail with [`io::ErrorKind::TimedOut`] after a deadline, also
/// if the peer sends a few bytes at a time.
#[derive(Debug)]
struct DeadlineStream {
    stream: UnixStream,
    until: Instant,
}

impl DeadlineStream {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(left),
        }
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
