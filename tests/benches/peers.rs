//! What listings are measured beside: the original query in Node, `opencode session list`, and
//! the smallest programs that can be spawned.
//!
//! `./scripts/bench` finds or installs Node and OpenCode and names them in the environment. A
//! peer that a machine lacks is [`Peer::Skipped`] with the reason, which is printed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::generate::Database;
use super::measure::{self, ORIGINAL, SESSIONS, Talk};

/// A peer, or why it is not measured.
pub(crate) enum Peer<T> {
    Present(T),
    Skipped(String),
}

impl<T> Peer<T> {
    pub(crate) fn present(&mut self) -> Option<&mut T> {
        match self {
            Self::Present(peer) => Some(peer),
            Self::Skipped(_) => None,
        }
    }
}

/// The program that `./scripts/bench` names in this variable, or why there is none.
fn program(variable: &str) -> Peer<PathBuf> {
    if let Some(program) = std::env::var_os(variable).filter(|program| !program.is_empty()) {
        return Peer::Present(program.into());
    }
    let why = std::env::var(format!("{variable}_SKIPPED"));
    Peer::Skipped(why.unwrap_or_else(|_| "only ./scripts/bench looks for it".to_owned()))
}

/// Runs the original query in Node's SQLite whenever it is told to, each time in a worker
/// thread of its own.
pub(crate) struct Node {
    talk: Talk,
    sessions: u64,
    pub(crate) version: String,
}

/// One query in Node.
pub(crate) struct NodeQuery {
    pub(crate) took: Duration,
    pub(crate) processor: Duration,
}

impl Node {
    pub(crate) fn start(database: &Database) -> Result<Peer<Self>> {
        let node = match program("BENCH_NODE") {
            Peer::Present(node) => node,
            Peer::Skipped(why) => return Ok(Peer::Skipped(why)),
        };
        let version = Command::new(&node)
            .args(["-p", "process.version"])
            .output()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/helpers/old_query.mjs");
        let talk = Talk::with(
            Command::new(&node)
                .arg(script)
                .arg(&database.path)
                .arg(ORIGINAL),
        )?;
        Ok(Peer::Present(Self {
            talk,
            sessions: database.shape.sessions,
            version: String::from_utf8(version.stdout)?.trim().to_owned(),
        }))
    }

    pub(crate) fn query(&mut self) -> Result<NodeQuery> {
        self.talk.say()?;
        let line = self.talk.hear()?;
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [took, processor, sessions, marked] = *numbers else {
            anyhow::bail!("Node says {line:?}");
        };
        ensure!(
            (sessions, marked) == (self.sessions, 1),
            "Node finds {sessions} sessions, {marked} of them marked, not {} and 1",
            self.sessions
        );
        Ok(NodeQuery {
            took: Duration::from_nanos(took),
            processor: Duration::from_micros(processor),
        })
    }
}

/// OpenCode with a home of its own, and in it a small database that it wrote.
pub(crate) struct OpenCode {
    program: PathBuf,
    home: TempDir,
}

impl OpenCode {
    pub(crate) fn start() -> Result<Peer<Self>> {
        let program = match program("BENCH_OPENCODE") {
            Peer::Present(program) => program,
            Peer::Skipped(why) => return Ok(Peer::Skipped(why)),
        };
        let home = tempfile::tempdir()?;
        for name in ["home", "config", "state", "tmp", "project"] {
            std::fs::create_dir(home.path().join(name))?;
        }
        std::fs::write(home.path().join("models.json"), "{}")?;
        let archive =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/opencode-1.18.33.tar.gz");
        let file = std::fs::File::open(archive)?;
        tar::Archive::new(flate2::read::GzDecoder::new(file))
            .unpack(home.path().join("data/opencode"))?;
        let opencode = Self { program, home };
        // It may not run on this machine; and the first time it does more.
        Ok(match opencode.list() {
            Ok(_) => Peer::Present(opencode),
            Err(error) => Peer::Skipped(error.to_string()),
        })
    }

    fn command(&self, program: &Path) -> Command {
        let of = |name: &str| self.home.path().join(name);
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", of("home"))
            .env("TMPDIR", of("tmp"))
            .env("XDG_DATA_HOME", of("data"))
            .env("XDG_CONFIG_HOME", of("config"))
            .env("XDG_STATE_HOME", of("state"))
            .env("XDG_CACHE_HOME", of("cache"))
            .env(
                "OPENCODE_CONFIG_CONTENT",
                r#"{"autoupdate":false,"share":"disabled"}"#,
            )
            .env("OPENCODE_DISABLE_AUTOUPDATE", "1")
            .env("OPENCODE_DISABLE_MODELS_FETCH", "1")
            .env("OPENCODE_DISABLE_LSP_DOWNLOAD", "1")
            .env("OPENCODE_DISABLE_DEFAULT_PLUGINS", "1")
            .env("OPENCODE_MODELS_PATH", of("models.json"))
            .current_dir(of("project"));
        command
    }

    /// `opencode session list`.
    pub(crate) fn list(&self) -> Result<Duration> {
        let mut command = self.command(&self.program);
        measure::start_to_end(command.args(["session", "list"])).context("opencode session list")
    }

    /// `opencode-sessions list` of the same database.
    pub(crate) fn ours(&self) -> Result<Duration> {
        let mut command = self.command(Path::new(SESSIONS));
        let db = self.home.path().join("data/opencode/opencode.db");
        measure::start_to_end(command.arg("list").arg("--db").arg(db))
    }
}

/// Programs that end at once: what a spawned process costs at least.
pub(crate) fn smallest(directory: &Path) -> Result<[(&'static str, Peer<PathBuf>); 2]> {
    let path = directory.join("smallest");
    let source = path.with_extension("c");
    std::fs::write(&source, "int main(void) { return 0; }\n")?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let made = Command::new(&compiler)
        .args(["-Os", "-static", "-s", "-o"])
        .args([&path, &source])
        .output();
    let linked_statically = match made {
        Ok(made) if made.status.success() => Peer::Present(path),
        Ok(made) => Peer::Skipped(format!(
            "{} cannot link it: {}",
            compiler.display(),
            String::from_utf8_lossy(&made.stderr)
                .lines()
                .next()
                .unwrap_or_default()
        )),
        Err(error) => Peer::Skipped(format!("{}: {error}", compiler.display())),
    };
    let of_the_system = ["/bin/true", "/usr/bin/true"].map(PathBuf::from);
    let of_the_system = match of_the_system.into_iter().find(|path| path.exists()) {
        Some(path) => Peer::Present(path),
        None => Peer::Skipped("this system has no program `true`".to_owned()),
    };
    Ok([
        ("smallest program, static", linked_statically),
        ("`true`, dynamic", of_the_system),
    ])
}
