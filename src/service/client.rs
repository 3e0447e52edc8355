//! Asking a running service.
//!
//! There are more answers than yes and no: nobody may be there, or somebody who does not
//! answer, who is of another version, or who has no room. [`ConnectError`] tells them apart,
//! for a program to decide and a person to act. Nothing here waits longer than it was told
//! to, whatever is at the other end.

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

/// How long a service may take to answer, where nobody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The longest line that is read, in bytes: the snapshot of a large index.
const LONGEST: u64 = 256 << 20;

/// A connection to a running service.
#[derive(Debug)]
pub struct Client {
    hello: Hello,
    stream: BufReader<Bounded>,
}

/// Why a service cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// None is running there.
    None,
    /// A process has the socket and does not answer.
    NoAnswer {
        /// Its process id, where the system tells.
        pid: Option<u32>,
    },
    /// It is of another version, which cannot be talked to.
    OtherVersion {
        /// Its process id.
        pid: u32,
        /// Its version.
        version: String,
        /// The protocol it speaks.
        protocol: u32,
    },
    /// It answers as many programs as it can.
    Full {
        /// Its process id, where the system tells.
        pid: Option<u32>,
    },
    /// The socket is another user's.
    OtherUser,
}

impl fmt::Display for ConnectError {
    /// A sentence with the way out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = |pid: &Option<u32>| match pid {
            Some(pid) => format!("process {pid}"),
            None => "a process".to_owned(),
        };
        match self {
            Self::None => {
                f.write_str("no service is running; start one with `opencode-sessions serve`")
            }
            Self::NoAnswer { pid } => write!(
                f,
                "{} is the service and does not answer: restart it, with `systemctl --user \
                 restart opencode-sessions` where systemd started it, or end it",
                process(pid)
            ),
            Self::OtherVersion {
                pid,
                version,
                protocol,
            } => write!(
                f,
                "process {pid} is the service, has version {} and speaks protocol {protocol}; \
                 this is version {} and speaks protocol {PROTOCOL}: restart it",
                crate::text::one_line(version),
                crate::wire::VERSION
            ),
            Self::Full { pid } => write!(
                f,
                "{} is the service and already answers as many programs as it can: end some \
                 of them",
                process(pid)
            ),
            Self::OtherUser => f.write_str(
                "the service's socket is another user's, and is not used: see the directory \
                 that XDG_RUNTIME_DIR names",
            ),
        }
    }
}

/// What a service knows.
#[derive(Debug, Clone, Deserialize)]
pub struct ServiceSnapshot {
    /// Its sources.
    pub sources: Vec<ServiceSource>,
    /// Its sessions.
    pub sessions: Vec<Sourced>,
}

/// A source of a service.
#[derive(Debug, Clone, Deserialize)]
pub struct ServiceSource {
    /// What it is called.
    pub source: SourceName,
    /// How it is doing.
    pub health: ServiceHealth,
}

/// How a source is doing: by name, so that a newer service may have another.
#[derive(Debug, Clone, Deserialize)]
pub struct ServiceHealth {
    /// `ok`, `failing`, …
    pub state: String,
}

/// The type of the event in a line. Where it comes first, as every service says it, the
/// rest is not read: a snapshot has megabytes.
#[must_use]
pub fn type_of(line: &[u8]) -> Option<String> {
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
    /// Connects to the first of `places` at which a service of this protocol answers
    /// before `until`.
    ///
    /// # Errors
    ///
    /// Where there is none: what is most worth knowing of those that are there.
    pub fn find(places: &[PathBuf], until: Instant) -> Result<Self, ConnectError> {
        let mut why = ConnectError::None;
        for place in places {
            match Self::at(place, until) {
                Ok(client) => return Ok(client),
                Err(ConnectError::None) => {}
                Err(other) if why == ConnectError::None => why = other,
                Err(_) => {}
            }
        }
        Err(why)
    }

    /// Connects to the service at `place`, which must answer before `until`.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn at(place: &Path, until: Instant) -> Result<Self, ConnectError> {
        let stream = connect(place)?;
        if !peer::is_of_this_user(&stream) {
            return Err(ConnectError::OtherUser);
        }
        let pid = peer::pid(&stream);
        let mut stream = BufReader::new(Bounded { stream, until });
        let mut line = Vec::new();
        read_line(&mut stream, &mut line).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ConnectError::NoAnswer { pid },
            // It ends, or ended while it was asked.
            _ => ConnectError::None,
        })?;
        match type_of(&line).as_deref() {
            Some("hello") => {}
            Some("bye") => {
                #[derive(Deserialize)]
                struct Bye {
                    code: ByeCode,
                }
                return Err(match serde_json::from_slice(&line) {
                    Ok(Bye {
                        code: ByeCode::Full,
                    }) => ConnectError::Full { pid },
                    // It is just ending.
                    _ => ConnectError::None,
                });
            }
            _ => return Err(ConnectError::NoAnswer { pid }),
        }
        /// What every version says.
        #[derive(Deserialize)]
        struct Version {
            protocol: u32,
            version: String,
            pid: u32,
        }
        let Ok(they) = serde_json::from_slice::<Version>(&line) else {
            return Err(ConnectError::NoAnswer { pid });
        };
        match serde_json::from_slice::<Hello>(&line) {
            Ok(hello) if hello.protocol == PROTOCOL => Ok(Self { hello, stream }),
            _ => Err(ConnectError::OtherVersion {
                pid: they.pid,
                version: they.version,
                protocol: they.protocol,
            }),
        }
    }

    /// Who answers.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// From now on it may take until then.
    pub fn must_answer_before(&mut self, until: Instant) {
        self.stream.get_mut().until = until;
    }

    /// All that is so now: the service lists what may have changed, then says what it
    /// knows.
    ///
    /// # Errors
    ///
    /// Where it does not say so in time.
    pub fn sessions_now(&mut self) -> io::Result<ServiceSnapshot> {
        self.say("refresh")?;
        let (mut line, mut snapshot) = (Vec::new(), Vec::new());
        // Of the first snapshot, which comes unasked, or the last one.
        let mut is_old = true;
        loop {
            read_line(&mut self.stream, &mut line)?;
            match type_of(&line).as_deref() {
                Some("snapshot") => {
                    std::mem::swap(&mut line, &mut snapshot);
                    is_old = false;
                }
                Some("change" | "health") => is_old = true,
                Some("reply") => break,
                _ => {}
            }
        }
        if is_old {
            self.say("snapshot")?;
            return self.read("snapshot");
        }
        Ok(serde_json::from_slice(&snapshot)?)
    }

    /// How the service is doing, as it says it.
    ///
    /// # Errors
    ///
    /// Where it does not say so in time.
    pub fn status(&mut self) -> io::Result<Value> {
        #[derive(Deserialize)]
        struct Reply {
            status: Value,
        }
        self.say("status")?;
        Ok(self.read::<Reply>("reply")?.status)
    }

    /// Ends the service, for all, and waits until it has ended.
    ///
    /// # Errors
    ///
    /// Where it does not end in time.
    pub fn stop(mut self) -> io::Result<()> {
        self.say("stop")?;
        let mut line = Vec::new();
        loop {
            match read_line(&mut self.stream, &mut line) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn say(&mut self, command: &str) -> io::Result<()> {
        let line = format!("{{\"type\":\"{command}\"}}\n");
        self.stream.get_mut().write_all(line.as_bytes())
    }

    /// The connection as it is after the `hello`, without the client's patience;
    /// and what was read of it already.
    ///
    /// # Errors
    ///
    /// Where the system refuses.
    pub fn into_stream(self) -> io::Result<(Vec<u8>, UnixStream)> {
        let read = self.stream.buffer().to_vec();
        let stream = self.stream.into_inner().stream;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        Ok((read, stream))
    }

    /// The next line of this type; others are passed over.
    fn read<T: DeserializeOwned>(&mut self, wanted: &str) -> io::Result<T> {
        let mut line = Vec::new();
        loop {
            read_line(&mut self.stream, &mut line)?;
            if type_of(&line).as_deref() == Some(wanted) {
                return Ok(serde_json::from_slice(&line)?);
            }
        }
    }
}

/// A connection, without waiting: a process that is stopped takes no more of them.
pub(super) fn connect(place: &Path) -> Result<UnixStream, ConnectError> {
    let no_socket = |_| ConnectError::None;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let address = SocketAddrUnix::new(place).map_err(no_socket)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(no_socket)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        Err(rustix::io::Errno::AGAIN) => return Err(ConnectError::NoAnswer { pid: None }),
        Err(_) => return Err(ConnectError::None),
    }
    rustix::io::ioctl_fionbio(&socket, false).map_err(no_socket)?;
    Ok(UnixStream::from(socket))
}

/// Reads a line, with its newline.
///
/// # Errors
///
/// Where it fails, there is no whole line more, or it is longer than any that a service
/// says.
pub fn read_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    stream.by_ref().take(LONGEST).read_until(b'\n', line)?;
    match line.last() {
        Some(b'\n') => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A stream that is neither read nor written past a moment, however little comes at a time.
#[derive(Debug)]
struct Bounded {
    stream: UnixStream,
    until: Instant,
}

impl Bounded {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(left),
        }
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Bounded {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
