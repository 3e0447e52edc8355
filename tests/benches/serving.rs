//! A service that is measured: the real program as a host starts it, with its
//! standard input and output, and its socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::measure::kib_of;

const SERVICE: &str = env!("CARGO_BIN_EXE_opencode-sessions");

/// How long anything may take before the measurement has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running service. It ends with this.
pub(crate) struct Serving {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Its lines, and when each was read.
    lines: Receiver<(Instant, Vec<u8>)>,
    state: TempDir,
}

/// Memory of a process, in KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resident {
    /// All of it now, counted page by page.
    pub(crate) now: u64,
    /// Without the pages of its program file.
    pub(crate) anonymous: u64,
    /// The most it ever was.
    pub(crate) peak: u64,
}

impl Serving {
    /// Starts it and waits for its first listing. Returns the bytes of the line
    /// that told of it.
    pub(crate) fn start(db: &Path) -> Result<(Self, usize)> {
        Self::of(&[db])
    }

    /// The same of several sources, and the first listing of each.
    pub(crate) fn of(databases: &[&Path]) -> Result<(Self, usize)> {
        let state = tempfile::tempdir()?;
        let mut command = Command::new(SERVICE);
        command.args(["serve", "--stdio"]);
        for db in databases {
            command.arg("--db").arg(db);
        }
        let mut child = command
            .arg("--state-dir")
            .arg(state_dir(state.path()))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let (to, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let mut line = Vec::new();
                match stdout.read_until(b'\n', &mut line) {
                    Ok(1..) if to.send((Instant::now(), line)).is_ok() => {}
                    _ => return,
                }
            }
        });
        let mut serving = Self {
            stdin: child.stdin.take(),
            child,
            lines,
            state,
        };
        let mut longest = 0;
        let mut left = databases.len();
        loop {
            let (_, line) = serving.line()?;
            longest = longest.max(line.len());
            let event: Value = serde_json::from_slice(&line)?;
            if event["type"] == "health" {
                let state = &event["health"]["state"];
                ensure!(state == "ok", "the first listing: {event}");
                left -= 1;
                if left == 0 {
                    return Ok((serving, longest));
                }
            }
        }
    }

    /// The `XDG_STATE_HOME` with which other programs find its socket.
    pub(crate) fn state_home(&self) -> &Path {
        self.state.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line, and when it came.
    fn line(&mut self) -> Result<(Instant, Vec<u8>)> {
        self.lines
            .recv_timeout(PATIENCE)
            .context("the service says nothing")
    }

    /// The next event of this type, and when it came; others are passed over.
    pub(crate) fn event(&mut self, wanted: &str) -> Result<(Instant, Value)> {
        loop {
            let (at, line) = self.line()?;
            let event: Value = serde_json::from_slice(&line)?;
            if event["type"] == wanted {
                return Ok((at, event));
            }
        }
    }

    /// Events of this type until now.
    pub(crate) fn events_so_far(&mut self, wanted: &str) -> Result<Vec<(Instant, Value)>> {
        let mut events = Vec::new();
        for (at, line) in self.lines.try_iter() {
            let event: Value = serde_json::from_slice(&line)?;
            if event["type"] == wanted {
                events.push((at, event));
            }
        }
        Ok(events)
    }

    pub(crate) fn say(&mut self, command: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("no input")?;
        Ok(stdin.write_all(format!("{{\"type\":\"{command}\"}}\n").as_bytes())?)
    }

    pub(crate) fn status(&mut self) -> Result<Value> {
        self.say("status")?;
        Ok(self.event("reply")?.1["status"].take())
    }

    /// Waits until a refresh has ended well.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        self.say("refresh")?;
        let (_, reply) = self.event("reply")?;
        let outcome = &reply["refreshed"][0]["outcome"];
        ensure!(outcome == "ok", "a refresh went wrong: {reply}");
        Ok(())
    }

    /// Another reader.
    pub(crate) fn connect(&self) -> Result<Connected> {
        let stream = UnixStream::connect(state_dir(self.state.path()).join("socket"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connected(BufReader::new(stream)))
    }

    /// How many threads and how many open files it has, where the system tells (Linux).
    pub(crate) fn threads_and_files(&self) -> Option<(u64, usize)> {
        let of = format!("/proc/{}", self.pid());
        let threads = kib_of(&format!("{of}/status"), "Threads:")?;
        let files = std::fs::read_dir(format!("{of}/fd")).ok()?;
        Some((threads, files.count()))
    }

    /// What it has in memory, where the system tells (Linux).
    pub(crate) fn resident(&self) -> Option<Resident> {
        let of = |file: &str, key| kib_of(&format!("/proc/{}/{file}", self.pid()), key);
        Some(Resident {
            now: of("smaps_rollup", "Rss:")?,
            anonymous: of("smaps_rollup", "Anonymous:")?,
            peak: of("status", "VmHWM:")?,
        })
    }

    /// The processor time it used until now, where the system tells (Linux).
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        processor_time(self.pid())
    }

    /// That of the helpers that have ended.
    pub(crate) fn helpers_processor_time(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // After the name, which may hold anything: the state, then field 4.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let [user, system] = [16, 17].map(ticks);
        // A tick is 10 ms wherever Linux is used on ordinary machines.
        Some(Duration::from_millis(10 * (user? + system?)))
    }
}

/// As programs find it whose `XDG_STATE_HOME` this is.
fn state_dir(state_home: &Path) -> PathBuf {
    state_home.join("opencode-sessions")
}

/// The processor time of a process until now, with that of its threads that have ended: a
/// listing is a thread.
#[cfg(target_os = "linux")]
fn processor_time(pid: u32) -> Option<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    #[expect(
        unsafe_code,
        reason = "neither std nor rustix has another process's clock"
    )]
    let is_known =
        // SAFETY: each call writes to the one place that is given to it, which lives longer.
        unsafe {
            libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut time) == 0
        };
    let (seconds, nanoseconds) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
    is_known.then(|| Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds))
}

#[cfg(not(target_os = "linux"))]
fn processor_time(_: u32) -> Option<Duration> {
    None
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stdin = None;
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to the socket.
pub(crate) struct Connected(BufReader<UnixStream>);

impl Connected {
    /// Asks for the status. How long the answer took, and whether a listing ran.
    pub(crate) fn status(&mut self) -> Result<(Duration, bool)> {
        let mut line = Vec::new();
        let asked = Instant::now();
        self.0.get_mut().write_all(b"{\"type\":\"status\"}\n")?;
        loop {
            line.clear();
            if self.0.read_until(b'\n', &mut line)? == 0 {
                bail!("the service hung up");
            }
            let took = asked.elapsed();
            if line.starts_with(br#"{"type":"reply""#) {
                let reply: Value = serde_json::from_slice(&line)?;
                let listing = reply["status"]["sources"][0]["listing"].as_bool();
                return Ok((took, listing.context("no status")?));
            }
        }
    }
}
