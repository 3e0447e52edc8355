//! What the tests share: a time limit, temporary places, real databases, made
//! ones, and the programs under test.
//!
//! Nothing here touches the developer's home or OpenCode's data: every test has
//! a directory of its own that is gone when it ends.

#![allow(dead_code, unreachable_pub, reason = "every test file uses some of it")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests start programs and make databases"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use serde_json::Value;

/// Ends the whole test program when a test takes longer than this.
pub struct Limit(Option<Sender<()>>);

/// The first line of every test: `let _limit = support::limit(30);`
#[must_use]
pub fn limit(seconds: u64) -> Limit {
    let (alive, gone) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    thread::Builder::new()
        .name("limit".into())
        .spawn(move || {
            let waited = gone.recv_timeout(Duration::from_secs(seconds));
            if waited == Err(RecvTimeoutError::Timeout) {
                // Not eprintln: the test runner would keep it to itself.
                let _ = writeln!(
                    std::io::stderr(),
                    "\n{name}: not done after {seconds} s, the test program ends here"
                );
                std::process::exit(101);
            }
        })
        .unwrap();
    Limit(Some(alive))
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// The folder of the fixtures.
#[must_use]
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A database that a real OpenCode wrote, unpacked; with the directory it is in.
#[must_use]
pub fn real_database(version: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let archive = File::open(fixtures().join(format!("opencode-{version}.tar.gz"))).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(archive))
        .unpack(directory.path())
        .unwrap();
    let db = directory.path().join("opencode.db");
    (directory, db)
}

/// The tables that matter here, as OpenCode 1.18.33 makes them.
pub const SCHEMA: &str = "
CREATE TABLE project (id text PRIMARY KEY, worktree text NOT NULL, vcs text, name text,
  time_created integer NOT NULL, time_updated integer NOT NULL, sandboxes text NOT NULL);
CREATE TABLE session (id text PRIMARY KEY, project_id text NOT NULL, workspace_id text,
  parent_id text, slug text NOT NULL, directory text NOT NULL, path text, title text NOT NULL,
  version text NOT NULL, share_url text, summary_additions integer, summary_deletions integer,
  summary_files integer, summary_diffs text, metadata text, cost real DEFAULT 0 NOT NULL,
  tokens_input integer DEFAULT 0 NOT NULL, tokens_output integer DEFAULT 0 NOT NULL,
  tokens_reasoning integer DEFAULT 0 NOT NULL, tokens_cache_read integer DEFAULT 0 NOT NULL,
  tokens_cache_write integer DEFAULT 0 NOT NULL, revert text, permission text, agent text,
  model text, time_created integer NOT NULL, time_updated integer NOT NULL,
  time_compacting integer, time_archived integer);
CREATE TABLE message (id text PRIMARY KEY, session_id text NOT NULL,
  time_created integer NOT NULL, time_updated integer NOT NULL, data text NOT NULL);
CREATE TABLE part (id text PRIMARY KEY, message_id text NOT NULL, session_id text NOT NULL,
  time_created integer NOT NULL, time_updated integer NOT NULL, data text NOT NULL);
CREATE TABLE session_message (id text PRIMARY KEY, session_id text NOT NULL, type text NOT NULL,
  seq integer NOT NULL, time_created integer NOT NULL, time_updated integer NOT NULL,
  data text NOT NULL);
CREATE TABLE session_input (id text PRIMARY KEY, session_id text NOT NULL, prompt text NOT NULL,
  delivery text NOT NULL, admitted_seq integer NOT NULL, promoted_seq integer,
  time_created integer NOT NULL);
CREATE INDEX session_project_idx ON session (project_id);
CREATE INDEX session_parent_idx ON session (parent_id);
CREATE INDEX session_workspace_idx ON session (workspace_id);
CREATE INDEX message_session_time_created_id_idx ON message (session_id, time_created, id);
CREATE INDEX part_message_id_id_idx ON part (message_id, id);
CREATE INDEX part_session_idx ON part (session_id);
CREATE INDEX session_message_session_time_created_id_idx
  ON session_message (session_id, time_created, id);
CREATE UNIQUE INDEX session_message_session_seq_idx ON session_message (session_id, seq);
CREATE INDEX session_message_session_type_seq_idx ON session_message (session_id, type, seq);
CREATE UNIQUE INDEX session_input_session_admitted_seq_idx
  ON session_input (session_id, admitted_seq);
";

/// A database of the test's own making, in WAL mode, in a directory of its own.
pub struct Made {
    pub directory: tempfile::TempDir,
    pub db: PathBuf,
    /// Kept open, as OpenCode keeps it, so that the log stays.
    pub conn: Connection,
}

impl Made {
    /// With these statements after the switch to WAL.
    #[must_use]
    pub fn of(sql: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("opencode.db");
        let conn = Connection::open(&db).unwrap();
        conn.pragma_update(None, "journal_mode", "wal").unwrap();
        conn.execute_batch(sql).unwrap();
        Self {
            directory,
            db,
            conn,
        }
    }

    /// With the newest schema and no rows.
    #[must_use]
    pub fn new() -> Self {
        Self::of(SCHEMA)
    }

    /// Inserts a root session of the directory `/usr`, last active at `updated`.
    pub fn session(&self, id: &str, updated: i64) {
        self.conn
            .execute(
                "INSERT INTO session (id, project_id, slug, directory, title, version, \
                 time_created, time_updated) \
                 VALUES (?1, 'global', 'slug', '/usr', 'Title of ' || ?1, '1.18.33', ?2, ?2)",
                (id, updated),
            )
            .unwrap();
    }

    /// Inserts a part of this session.
    pub fn part(&self, session: &str, data: &str) {
        self.conn
            .execute(
                "INSERT INTO part (id, message_id, session_id, time_created, time_updated, data) \
                 VALUES ('prt_' || (SELECT count(*) FROM part), 'msg', ?1, 1, 1, ?2)",
                (session, data),
            )
            .unwrap();
    }

    /// Runs a statement.
    pub fn run(&self, sql: &str) {
        self.conn.execute_batch(sql).unwrap();
    }
}

/// Makes a file look as if it had not changed for a minute.
pub fn settle(path: &Path) {
    let past = SystemTime::now() - Duration::from_secs(60);
    File::options()
        .append(true)
        .open(path)
        .unwrap()
        .set_modified(past)
        .unwrap();
}

/// The file at `path` was written to just now, and is as it was.
pub fn touch(path: &Path) {
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now()).unwrap();
}

/// A program of these lines. Another process writes it: were it open for writing
/// here, a child of another thread could inherit that, and running it would fail
/// with "text file busy".
pub fn script(path: &Path, text: &str) {
    let status = command(Path::new("/bin/sh"))
        .args(["-c", r#"printf %s "$1" > "$2" && chmod 755 "$2""#, "sh"])
        .args([text.as_ref(), path.as_os_str()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// The helper under test.
#[must_use]
pub fn lister() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_opencode-lister"))
}

/// The main program under test.
#[must_use]
pub fn sessions() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_opencode-sessions"))
}

/// A command that knows nothing of the developer: no HOME, no XDG directories,
/// no OpenCode variables, no colours.
#[must_use]
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    // Coverage and sanitizers need theirs; PATH lets scripts find a shell.
    for kept in ["PATH", "LLVM_PROFILE_FILE", "TMPDIR"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}

/// What the helper prints of this database.
#[must_use]
pub fn helper(db: &Path, args: &[&str]) -> Output {
    command(lister())
        .arg("--db")
        .arg(db)
        .args(args)
        .output()
        .unwrap()
}

/// The lines of an output, each as JSON.
#[must_use]
pub fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The sessions and the `end` of a listing that must be complete.
#[must_use]
pub fn listing(db: &Path, args: &[&str]) -> (Vec<Value>, Value) {
    complete(&helper(db, args))
}

/// The sessions and the `end` of what a helper printed, which must be complete.
#[must_use]
pub fn complete(output: &Output) -> (Vec<Value>, Value) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut lines = lines(output);
    assert_eq!(output.status.code(), Some(0), "{lines:?} {stderr}");
    assert_eq!(lines.remove(0)["type"], "hello");
    let end = lines.pop().unwrap();
    assert_eq!(end["type"], "end");
    assert_eq!(end["sessions"], lines.len());
    assert!(lines.iter().all(|line| line["type"] == "session"));
    (lines, end)
}

/// The ids of a listing, in its order.
#[must_use]
pub fn ids(db: &Path, args: &[&str]) -> Vec<String> {
    let (sessions, _) = listing(db, args);
    sessions
        .iter()
        .map(|session| session["id"].as_str().unwrap().to_owned())
        .collect()
}

/// The kind of the `error` line of a listing that must fail.
#[must_use]
pub fn error(db: &Path, args: &[&str]) -> (String, String) {
    let output = helper(db, args);
    let lines = lines(&output);
    assert_eq!(lines[0]["type"], "hello");
    let last = lines.last().unwrap();
    assert_eq!(last["type"], "error", "{lines:?}");
    let kind = last["kind"].as_str().unwrap().to_owned();
    assert_eq!(
        output.status.code(),
        Some(if kind == "usage" { 2 } else { 1 })
    );
    (kind, last["message"].as_str().unwrap().to_owned())
}

/// The helper that does everything wrong, under the name of what it is to do,
/// in `directory`.
#[must_use]
pub fn misbehaving(directory: &Path, name: &str) -> PathBuf {
    let program = example("misbehaving-lister");
    let link = directory.join(name);
    std::os::unix::fs::symlink(program, &link).unwrap();
    link
}

/// A program of the tests' own.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    let program = target().join("examples").join(name);
    assert!(
        program.exists(),
        "{} is not built: run `cargo build --examples`, or `cargo test` without a selection",
        program.display()
    );
    program
}

/// The folder this build's programs are in.
fn target() -> PathBuf {
    let mut directory = std::env::current_exe().unwrap();
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    directory
}

/// The descriptors this process has open.
#[must_use]
pub fn descriptors() -> usize {
    fs::read_dir(if cfg!(target_os = "linux") {
        "/proc/self/fd"
    } else {
        "/dev/fd"
    })
    .unwrap()
    .count()
}
