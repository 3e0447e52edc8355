//! Databases of the tests' own making.
//!
//! Nothing here touches the developer's home or OpenCode's data: every test has a directory of its
//! own that is gone when it ends.

use std::path::PathBuf;

use rusqlite::Connection;

/// The tables that matter here, as OpenCode 1.18.33 makes them.
pub(crate) const SCHEMA: &str = "
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
pub(crate) struct Made {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) db: PathBuf,
    /// Kept open, as OpenCode keeps it, so that the log stays.
    pub(crate) conn: Connection,
}

impl Made {
    /// With these statements after the switch to WAL.
    #[must_use]
    pub(crate) fn of(sql: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("opencode.db");
        let conn = Connection::open(&db).unwrap();
        conn.pragma_update(None, "journal_mode", "wal").unwrap();
        let made = Self {
            directory,
            db,
            conn,
        };
        if let Err(error) = made.conn.execute_batch(sql) {
            panic!("in {}: {error}", made.directory.path().display());
        }
        made
    }

    /// With the newest schema and no rows.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::of(SCHEMA)
    }

    /// Inserts a root session of the directory `/usr`, last active at `updated`.
    pub(crate) fn session(&self, id: &str, updated: i64) {
        self.conn
            .execute(
                "INSERT INTO session (id, project_id, slug, directory, title, version, \
                 time_created, time_updated) \
                 VALUES (?1, 'global', 'slug', '/usr', 'Title of ' || ?1, '1.18.33', ?2, ?2)",
                (id, updated),
            )
            .unwrap();
    }
}
