//! Made databases, and what a listing says of them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::files::beside;
use crate::support::{self, Made, listing};

pub(crate) const MARKER: &str = "<freshell-session-metadata origin=3-views";

pub(crate) const ALL: [&str; 2] = ["--children", "--archived"];

/// Tables without declared types or constraints, so that a cell keeps any value.
pub(crate) const LOOSE: &str = "
CREATE TABLE project (id, worktree);
CREATE TABLE session (id, project_id, workspace_id, parent_id, slug, directory DEFAULT '/w', title,
  version, share_url, summary_additions, summary_deletions, summary_files, cost, tokens_input,
  tokens_output, tokens_reasoning, tokens_cache_read, tokens_cache_write, revert, agent, model,
  time_created, time_updated, time_archived);
CREATE TABLE message (id, session_id, time_created, data);
CREATE TABLE session_message (id, session_id, time_created, data);
CREATE TABLE part (id, session_id, data);
";

/// What OpenCode 2 keeps prompts in.
pub(crate) const INBOX: &str = "
CREATE TABLE session_inbox (id text PRIMARY KEY, session_id text NOT NULL, type text NOT NULL,
  payload text NOT NULL, delivery text NOT NULL, enqueued_seq integer NOT NULL,
  time_created integer NOT NULL);
CREATE TABLE session_pending (id text PRIMARY KEY, session_id text NOT NULL, type text NOT NULL,
  data text NOT NULL, delivery text, admitted_seq integer NOT NULL, time_created integer NOT NULL);
CREATE INDEX session_inbox_session_delivery_seq_idx
  ON session_inbox (session_id, delivery, enqueued_seq);
CREATE UNIQUE INDEX session_inbox_session_enqueued_seq_idx
  ON session_inbox (session_id, enqueued_seq);
CREATE UNIQUE INDEX session_pending_session_admitted_seq_idx
  ON session_pending (session_id, admitted_seq);
";

/// `field` of every session, in the order of the listing.
pub(crate) fn each(sessions: &[Value], field: &str) -> Vec<Value> {
    sessions
        .iter()
        .map(|session| session[field].clone())
        .collect()
}

pub(crate) fn skipped(invalid_id: u64, duplicate_id: u64, truncated: u64) -> Value {
    json!({"invalidId": invalid_id, "duplicateId": duplicate_id, "truncated": truncated})
}

/// The state of a database that has no sessions.
pub(crate) fn state(db: &Path) -> Value {
    let (sessions, end) = listing(db, &["--busy-timeout", "0"]);
    assert_eq!(sessions, Vec::<Value>::new());
    end["database"].clone()
}

/// A database at rest: all in the main file, nobody has it open.
pub(crate) fn at_rest(sql: &str) -> (tempfile::TempDir, PathBuf) {
    let Made {
        directory,
        db,
        conn,
    } = Made::of(sql);
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    conn.close().unwrap();
    assert!(!beside(&db, "-wal").exists());
    (directory, db)
}

/// A database in rollback-journal mode, which OpenCode never leaves one in.
pub(crate) fn rollback_mode(sql: &str) -> Made {
    let made = Made::of(sql);
    made.conn
        .pragma_update(None, "journal_mode", "delete")
        .unwrap();
    made
}

pub(crate) const ONE_SESSION: &str = "
CREATE TABLE session (id text PRIMARY KEY, directory text);
INSERT INTO session VALUES ('ses_a', '/w');
";

/// Numbers that look like noise, the same in every run.
pub(crate) fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state.to_le_bytes()[4])
    })
}

/// A session without a title.
pub(crate) fn untitled(made: &Made, id: &str) {
    made.session(id, 1);
    made.run(&format!(
        "UPDATE session SET title = 'New session - 2026-11-22T09:14:59.002Z' WHERE id = '{id}'"
    ));
}

pub(crate) fn prompt_of(made: &Made, id: &str) -> Value {
    let (sessions, _) = listing(&made.db, &[]);
    let session = sessions.iter().find(|session| session["id"] == id).unwrap();
    session["firstPrompt"].clone()
}

/// A table of the sessions of OpenCode 2, with these columns after the last.
pub(crate) fn opencode2_table(name: &str, columns: &str) -> String {
    format!(
        "CREATE TABLE {name} (id text PRIMARY KEY, project_id text NOT NULL,
  workspace_id text, parent_id text, fork_session_id text, fork_boundary text, slug text NOT NULL,
  directory text NOT NULL, path text, title text, version text NOT NULL, share_url text,
  summary_additions integer, summary_deletions integer, summary_files integer, summary_diffs text,
  metadata text, cost real DEFAULT 0 NOT NULL, tokens_input integer DEFAULT 0 NOT NULL,
  tokens_output integer DEFAULT 0 NOT NULL, tokens_reasoning integer DEFAULT 0 NOT NULL,
  tokens_cache_read integer DEFAULT 0 NOT NULL, tokens_cache_write integer DEFAULT 0 NOT NULL,
  revert text, permission text, agent text, model text, time_created integer NOT NULL,
  time_updated integer NOT NULL, time_compacting integer, time_archived integer,
  time_suspended integer{columns})"
    )
}

/// The table of OpenCode 2.
pub(crate) fn session_v2() -> String {
    opencode2_table(
        "session_v2",
        ", time_idle integer, time_viewed integer, idle_outcome text",
    )
}

/// The answers of a look-up by the helper, in the order of the ids.
pub(crate) fn looked_up<'i>(
    what: &str,
    db: &Path,
    ids: impl IntoIterator<Item = &'i str>,
) -> Vec<Value> {
    let ids: Vec<_> = ids.into_iter().collect();
    let mut command = support::command(support::lister());
    command.args([what, "--db"]).arg(db).arg("--").args(&ids);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut answers = support::lines(&output);
    assert_eq!(answers.remove(0)["type"], "hello");
    assert_eq!(answers.pop().unwrap()["answers"], ids.len());
    let of = answers.iter().map(|answer| answer["id"].as_str().unwrap());
    assert_eq!(of.collect::<Vec<_>>(), ids);
    answers
}
