//! Makes a small database like OpenCode's, for whoever has none: a sample, and
//! every title says so.
//!
//! `sample-database PATH` writes it anew at PATH, which must be absent or an
//! earlier sample.

#![allow(
    clippy::disallowed_methods,
    reason = "this program makes a database, it does not read OpenCode's"
)]

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

/// What the sessions are about, their project, and how long ago, in minutes.
const SESSIONS: [(&str, &str, i64); 8] = [
    (
        "Find the leak in the connection pool",
        "/home/sample/shop",
        2,
    ),
    ("Rename the config keys", "/home/sample/shop", 41),
    (
        "Why is the nightly build red?",
        "/home/sample/website",
        3 * 60,
    ),
    ("Write the release notes", "/home/sample/website", 9 * 60),
    (
        "Translate the error messages 日本語 🚀",
        "/home/sample/shop",
        26 * 60,
    ),
    ("Try a faster hash", "/home/sample/notes", 4 * 24 * 60),
    ("Port the tests", "/home/sample/website", 30 * 24 * 60),
    ("Subagent of a 3-view", "/home/sample/shop", 5),
];

const SCHEMA: &str = "
CREATE TABLE sample_database_of_opencode_sessions (note text);
CREATE TABLE project (id text PRIMARY KEY, worktree text NOT NULL);
CREATE TABLE session (id text PRIMARY KEY, project_id text NOT NULL, workspace_id text,
  parent_id text, slug text NOT NULL, directory text NOT NULL, title text NOT NULL, version text NOT NULL,
  time_created integer NOT NULL, time_updated integer NOT NULL, time_archived integer);
CREATE TABLE message (id text PRIMARY KEY, session_id text NOT NULL,
  time_created integer NOT NULL, time_updated integer NOT NULL, data text NOT NULL);
CREATE TABLE part (id text PRIMARY KEY, message_id text NOT NULL, session_id text NOT NULL,
  time_created integer NOT NULL, time_updated integer NOT NULL, data text NOT NULL);
CREATE INDEX message_session_time_created_id_idx ON message (session_id, time_created, id);
";

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or_else(|| anyhow::anyhow!("usage: sample-database PATH"))?;
    let path = Path::new(&path);
    remove_earlier_sample(path)?;
    let conn = Connection::open(path)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.execute_batch("BEGIN")?;
    conn.execute_batch(SCHEMA)?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    for (at, (title, project, minutes)) in SESSIONS.iter().enumerate() {
        let (id, time) = (format!("ses_sample{at:020}"), now - minutes * 60_000);
        conn.execute("INSERT OR IGNORE INTO project VALUES (?1, ?1)", [project])?;
        // In a workspace, so that nobody looks for these directories and finds them gone.
        conn.execute(
            "INSERT INTO session VALUES (?1, ?2, 'wrk_sample', NULL, 'sample', ?2, 'Sample: ' || ?3, '0', ?4, ?4, NULL)",
            (&id, project, title, time),
        )?;
        conn.execute(
            "INSERT INTO message VALUES ('msg_' || ?1, ?1, ?2, ?2, '{\"role\":\"user\"}')",
            (&id, time),
        )?;
        let text = match title.starts_with("Subagent") {
            true => "<freshell-session-metadata origin=3-views>",
            false => "What does this do?",
        };
        conn.execute(
            "INSERT INTO part VALUES ('prt_' || ?1, 'msg_' || ?1, ?1, ?2, ?2, \
             json_object('type', 'text', 'text', ?3))",
            (&id, time, text),
        )?;
    }
    conn.execute_batch("COMMIT")?;
    Ok(())
}

/// Whatever else is at the path stays as it is.
fn remove_earlier_sample(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let is_sample = Connection::open(path)?
        .table_exists(None, "sample_database_of_opencode_sessions")
        .unwrap_or(false);
    anyhow::ensure!(
        is_sample,
        "{} is there already, and is no sample: it is left alone",
        path.display()
    );
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
