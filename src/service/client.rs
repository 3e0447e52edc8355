//! Asking a running service.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::event::{Hello, PROTOCOL};
use crate::output::Sourced;
use crate::source::SourceName;

/// How long a service may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest line that is read, in bytes: the snapshot of a large index.
const LONGEST: u64 = 256 << 20;

/// A connection to a running service.
#[derive(Debug)]
pub struct Client {
    hello: Hello,
    stream: BufReader<UnixStream>,
    until: Instant,
}

/// What a service knows.
#[derive(Debug, Clone, Deserialize)]
pub struct KnownThere {
    /// Its sources.
    pub sources: Vec<SourceThere>,
    /// Its sessions.
    pub sessions: Vec<Sourced>,
}

/// A source of a service.
#[derive(Debug, Clone, Deserialize)]
pub struct SourceThere {
    /// What it is called.
    pub source: SourceName,
    /// How it is doing.
    pub health: HealthThere,
}

/// How a source is doing: by name, so that a newer service may have another.
#[derive(Debug, Clone, Deserialize)]
pub struct HealthThere {
    /// `ok`, `failing`, …
    pub state: String,
}

impl Client {
    /// Connects to the first of `places` at which a service of this protocol
    /// answers.
    #[must_use]
    pub fn connect(places: &[PathBuf]) -> Option<Self> {
        places.iter().find_map(|path| Self::at(path).ok())
    }

    fn at(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let hello = Hello {
            protocol: 0,
            version: String::new(),
            pid: 0,
            marker: None,
            sources: Vec::new(),
        };
        let mut client = Self {
            hello,
            stream: BufReader::new(stream),
            until: Instant::now() + PATIENCE,
        };
        client.hello = client.read("hello")?;
        if client.hello.protocol != PROTOCOL {
            return Err(io::Error::other("it speaks another protocol"));
        }
        Ok(client)
    }

    /// Who answers.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// All that the service knows.
    ///
    /// # Errors
    ///
    /// Where it does not say so in time.
    pub fn snapshot(&mut self) -> io::Result<KnownThere> {
        self.read("snapshot")
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
        self.stream
            .get_mut()
            .write_all(b"{\"type\":\"status\"}\n")?;
        Ok(self.read::<Reply>("reply")?.status)
    }

    /// The connection as it is after the `hello`, without the client's patience;
    /// and what was read of it already.
    ///
    /// # Errors
    ///
    /// Where the system refuses.
    pub fn into_stream(self) -> io::Result<(Vec<u8>, UnixStream)> {
        let read = self.stream.buffer().to_vec();
        let stream = self.stream.into_inner();
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        Ok((read, stream))
    }

    /// The next line of this type; others are passed over.
    fn read<T: DeserializeOwned>(&mut self, wanted: &str) -> io::Result<T> {
        #[derive(Deserialize)]
        struct Typed {
            r#type: String,
        }
        let mut line = Vec::new();
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.get_ref().set_read_timeout(Some(left))?;
            line.clear();
            self.stream
                .by_ref()
                .take(LONGEST)
                .read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if serde_json::from_slice::<Typed>(&line)?.r#type == wanted {
                return Ok(serde_json::from_slice(&line)?);
            }
        }
    }
}
