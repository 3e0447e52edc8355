//! A database in the shape of OpenCode's: the tables and indexes of a real one
//! (OpenCode 1.18.33, out of the fixture), rows like its own, and a log beside
//! it as OpenCode leaves it.
//!
//! Three sessions write at a time, so the rows of one session are not together.
//! Lengths are skewed: half of the parts are step marks of a hundred bytes, the
//! bodies of the others are log-normal, up to 100,000 bytes. While it writes, they
//! follow the size of the file, so that it ends up within a few percent of what
//! was asked for, as far as the rows allow.
//!
//! The text is put together from a pool of lines: prose, code, markup, logs,
//! directories, search results. Now and then there is a `=3-` in it, at which the
//! helper stops, and in markup a `<`, at which the original query stops; how often
//! is asked for, since it decides how much slower that one is. Counted in
//! published sources, there is one `<` in 310 bytes of TSX (@assistant-ui/react
//! 0.15.22), in 514 of TypeScript (the same and @xterm/xterm 6.0.0), in 390 of
//! Markdown (theirs), and in 140 of /usr/share/doc of a Debian.
//!
//! One root session carries the marker, once; a few texts carry something very
//! much like it. Everything comes from one seed: the same shape, the same bytes.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use opencode_sessions::marker_text::MarkerText;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Statement, params};

/// Goes up when other bytes are made for the same shape.
const VERSION: u32 = 1;

/// How large a database is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) mib: u64,
    /// Root sessions that are not archived. There are others beside them.
    pub(crate) sessions: u64,
    pub(crate) parts: u64,
    /// Bytes of text for each `<`.
    pub(crate) markup: u64,
}

/// The usual one.
pub(crate) const USUAL: Shape = Shape {
    mib: 490,
    sessions: 343,
    parts: 82_000,
    markup: 300,
};

/// A small one: as many sessions as the usual size, of little text.
pub(crate) const SMALL: Shape = Shape {
    mib: 16,
    sessions: 343,
    parts: 2_700,
    markup: 300,
};

/// A database of a shape, made or to be made.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) shape: Shape,
    pub(crate) path: PathBuf,
}

impl Database {
    pub(crate) fn of(shape: &Shape, directory: &Path) -> Self {
        let Shape {
            mib,
            sessions,
            parts,
            markup,
        } = shape;
        let name = format!("v{VERSION}-{mib}mib-{sessions}-sessions-{parts}-parts-{markup}-markup");
        Self {
            shape: *shape,
            path: directory.join(name).join("opencode.db"),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

/// Makes the database of this shape in `directory`. Until it is whole, it has
/// another name.
pub(crate) fn generate(shape: &Shape, directory: &Path) -> Result<()> {
    let database = Database::of(shape, directory);
    let temporary = database
        .directory()
        .with_extension(format!("{}.tmp", std::process::id()));
    fs::create_dir_all(&temporary)?;
    fill(&temporary.join("opencode.db"), shape)?;
    // Another benchmark may have been faster.
    if fs::rename(&temporary, database.directory()).is_err() {
        fs::remove_dir_all(&temporary)?;
    }
    Ok(())
}

fn fill(path: &Path, shape: &Shape) -> Result<()> {
    let conn = Connection::open(path)?;
    conn.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; \
         PRAGMA foreign_keys = OFF;",
    )?;
    for sql in real_schema()? {
        conn.execute_batch(&sql)?;
    }
    insert_projects(&conn)?;
    let mut rows = Rows::new(&conn, shape)?;
    let in_log = (shape.parts / 100).min(200);
    conn.execute_batch("BEGIN")?;
    rows.write_until(shape.parts - in_log)?;
    conn.execute_batch("COMMIT; PRAGMA journal_mode = WAL;")?;
    // The last ones stay in the log, which restarts as OpenCode's does.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "wal_autocheckpoint", 1000)?;
    rows.write_until(shape.parts)?;
    rows.remaining_sessions()
}

/// The statements that make the tables and indexes of OpenCode 1.18.33.
fn real_schema() -> Result<Vec<String>> {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join("opencode-1.18.33.tar.gz");
    let file = File::open(&archive).with_context(|| archive.display().to_string())?;
    let directory = tempfile::tempdir()?;
    tar::Archive::new(flate2::read::GzDecoder::new(file)).unpack(&directory)?;
    let real = Connection::open_with_flags(
        directory.path().join("opencode.db"),
        OpenFlags::SQLITE_OPEN_READ_ONLY,
    )?;
    let mut statements = real.prepare(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%' \
         ORDER BY type = 'index', rowid",
    )?;
    let all: rusqlite::Result<_> = statements.query_map([], |row| row.get(0))?.collect();
    all.context("the schema of the real database")
}

fn insert_projects(conn: &Connection) -> Result<()> {
    let mut insert = conn.prepare(
        "INSERT INTO project (id, worktree, vcs, time_created, time_updated, sandboxes) \
         VALUES (?1, ?2, 'git', ?3, ?3, '[]')",
    )?;
    for (at, name) in PROJECTS.iter().enumerate() {
        insert.execute(params![project_id(at), worktree(name), integer(EPOCH)])?;
    }
    insert.execute(params!["global", SCRATCH, integer(EPOCH)])?;
    Ok(())
}

/// The statements that make rows.
struct Statements<'a> {
    session: Statement<'a>,
    touch: Statement<'a>,
    message: Statement<'a>,
    part: Statement<'a>,
    pages: Statement<'a>,
}

impl<'a> Statements<'a> {
    fn new(conn: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            session: conn.prepare(
                "INSERT INTO session (id, project_id, parent_id, slug, directory, path, title, \
                 version, summary_additions, summary_deletions, summary_files, cost, \
                 tokens_input, tokens_output, tokens_cache_read, agent, model, time_created, \
                 time_updated, time_archived) VALUES (?1, ?2, ?3, ?4, ?5, '', ?6, '1.18.33', \
                 ?7, ?8, ?9, ?10, ?11, ?12, ?13, 'build', ?14, ?15, ?15, ?16)",
            )?,
            touch: conn.prepare("UPDATE session SET time_updated = ?2 WHERE id = ?1")?,
            message: conn.prepare(
                "INSERT INTO message (id, session_id, time_created, time_updated, data) \
                 VALUES (?1, ?2, ?3, ?3, ?4)",
            )?,
            part: conn.prepare(
                "INSERT INTO part (id, message_id, session_id, time_created, time_updated, data) \
                 VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
            )?,
            pages: conn.prepare("PRAGMA page_count")?,
        })
    }
}

/// What a session is besides its text.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Root,
    Archived,
    Child,
}

/// A session that is being written.
struct Running {
    id: String,
    directory: String,
    /// Parts still to come.
    left: u64,
    /// The last thing said was the user's.
    asked: bool,
}

/// Sessions written at a time.
const AT_A_TIME: usize = 3;

/// Between two looks at the size of the file, in parts.
const LOOK: u64 = 500;

/// Bytes that a part takes besides its body: ids, its share of a message,
/// entries in indexes, unused ends of pages. A first guess.
const AROUND_A_PART: f64 = 700.0;

/// Bytes of body that a part has on average, over all parts, before they are
/// scaled. A first guess.
const MEAN_BODY: f64 = 4_000.0;

/// When the first session begins: in January 2026.
const EPOCH: u64 = 1_767_600_000_000;

struct Rows<'a> {
    conn: &'a Connection,
    statements: Statements<'a>,
    shape: &'a Shape,
    random: Random,
    lines: Lines,
    /// The kind of each session to come and its parts, last first.
    to_come: Vec<(Kind, u64)>,
    running: Vec<Running>,
    /// For the next child.
    newest_root: Option<String>,
    /// The session that is to carry the marker: its place in `to_come`, and its
    /// id from its beginning until it does.
    to_mark: Option<usize>,
    marked: Option<String>,
    parts: u64,
    now: u64,
    /// What the lengths of bodies are multiplied by to reach the size.
    scale: f64,
    /// Bytes of bodies so far, and what they were before they were scaled.
    bodies: f64,
    unscaled: f64,
}

impl<'a> Rows<'a> {
    fn new(conn: &'a Connection, shape: &'a Shape) -> Result<Self> {
        let mut random = Random(0x0dd_ba11);
        let lines = Lines::new(&mut random, shape.markup);
        let to_come = sessions_to_come(shape, &mut random);
        Ok(Self {
            conn,
            statements: Statements::new(conn)?,
            shape,
            random,
            lines,
            to_mark: root_with_most_parts(&to_come),
            to_come,
            running: Vec::new(),
            newest_root: None,
            marked: None,
            parts: 0,
            now: EPOCH,
            scale: 1.0,
            bodies: 0.0,
            unscaled: 0.0,
        })
    }

    /// Writes messages until there are so many parts.
    fn write_until(&mut self, parts: u64) -> Result<()> {
        while self.parts < parts {
            if self.parts % LOOK < 8 {
                self.look_at_the_size()?;
            }
            while self.running.len() < AT_A_TIME && self.begin_session()? {}
            let which = self.random.below(self.running.len() as u64) as usize;
            self.message(which, parts)?;
            if self.running[which].left == 0 {
                self.running.swap_remove(which);
            }
        }
        Ok(())
    }

    fn remaining_sessions(&mut self) -> Result<()> {
        self.conn.execute_batch("BEGIN")?;
        while self.begin_session()? {}
        self.conn.execute_batch("COMMIT")?;
        Ok(())
    }

    /// Sets the scale to what the rest of the parts may take of the rest of the
    /// size.
    fn look_at_the_size(&mut self) -> Result<()> {
        let left = self.shape.parts - self.parts;
        if left < self.shape.parts / 50 + 10 {
            return Ok(());
        }
        let pages: i64 = self.statements.pages.query_row([], |row| row.get(0))?;
        let (file, left) = ((pages * 4096) as f64, left as f64);
        let (around, mean) = if self.parts < LOOK {
            (AROUND_A_PART, MEAN_BODY)
        } else {
            let parts = self.parts as f64;
            ((file - self.bodies) / parts, self.unscaled / parts)
        };
        let to_fill = (self.shape.mib << 20) as f64 - file;
        self.scale = ((to_fill / left - around) / mean).clamp(0.02, 20.0);
        Ok(())
    }

    /// Inserts the next session; false where there is none left.
    fn begin_session(&mut self) -> Result<bool> {
        let Some((kind, parts)) = self.to_come.pop() else {
            return Ok(false);
        };
        self.now += 1 + self.random.below(600_000);
        let id = format!(
            "ses_{:012x}{}",
            0xffff_ffff_ffff - self.now * 64,
            self.random.word(14)
        );
        let project = self.random.below(PROJECTS.len() as u64 + 1) as usize;
        let (project_id, directory) = match PROJECTS.get(project) {
            Some(name) => (project_id(project), worktree(name)),
            None => ("global".to_owned(), SCRATCH.to_owned()),
        };
        let archived = (kind == Kind::Archived).then_some(integer(self.now) + 1);
        let parent = (kind == Kind::Child).then(|| self.newest_root.clone());
        let title = self.title(kind);
        self.statements.session.execute(params![
            id,
            project_id,
            parent.flatten(),
            format!("{}-{}", self.random.pick(&NOUNS), self.random.pick(&NOUNS)),
            directory,
            title,
            integer(self.random.below(900)),
            integer(self.random.below(300)),
            integer(self.random.below(40)),
            self.random.below(5000) as f64 / 1000.0,
            integer(self.random.below(200_000)),
            integer(self.random.below(30_000)),
            integer(self.random.below(2_000_000)),
            r#"{"id":"large-3","providerID":"lab","variant":"default"}"#,
            integer(self.now),
            archived,
        ])?;
        if kind == Kind::Root {
            self.newest_root = Some(id.clone());
        }
        if self.to_mark == Some(self.to_come.len()) {
            self.marked = Some(id.clone());
        }
        if parts > 0 {
            self.running.push(Running {
                id,
                directory,
                left: parts,
                asked: false,
            });
        }
        Ok(true)
    }

    fn title(&mut self, kind: Kind) -> String {
        let mut title = self.lines.prose(&mut self.random, 4);
        if kind == Kind::Child {
            title.push_str(" (@general subagent)");
        }
        title
    }

    /// One message of a running session with its parts, up to `limit` in all.
    fn message(&mut self, which: usize, limit: u64) -> Result<()> {
        self.now += 1 + self.random.below(20_000);
        let session = self.running[which].id.clone();
        let id = ascending("msg", self.now, &mut self.random);
        let asked = self.running[which].asked;
        let wished = if asked {
            2 + self.random.below(5)
        } else {
            1 + self.random.below(2)
        };
        let most = (limit - self.parts).min(self.running[which].left);
        let parts = wished.min(most);
        let data = self.message_data(which, asked);
        self.statements
            .message
            .execute(params![id, session, integer(self.now), data])?;
        for at in 0..parts {
            let data = match (asked, at) {
                (true, 0) => r#"{"type":"step-start"}"#.to_owned(),
                (true, at) if at + 1 == wished => STEP_FINISH.to_owned(),
                (true, _) => self.body(),
                (false, _) => self.text(&session),
            };
            self.part(&id, &session, &data)?;
        }
        self.statements
            .touch
            .execute(params![session, integer(self.now)])?;
        let running = &mut self.running[which];
        running.left -= parts;
        running.asked = !asked;
        Ok(())
    }

    fn part(&mut self, message: &str, session: &str, data: &str) -> Result<()> {
        self.now += 1 + self.random.below(300);
        let id = ascending("prt", self.now, &mut self.random);
        self.statements
            .part
            .execute(params![id, message, session, integer(self.now), data])?;
        self.parts += 1;
        Ok(())
    }

    fn message_data(&mut self, which: usize, asked: bool) -> String {
        let (now, directory) = (self.now, &self.running[which].directory);
        if !asked {
            return format!(
                r#"{{"role":"user","time":{{"created":{now}}},"agent":"build","model":{{"providerID":"lab","modelID":"large-3"}},"summary":{{"diffs":[]}}}}"#
            );
        }
        let parent = ascending("msg", now - 1, &mut self.random);
        let (input, output) = (self.random.below(90_000), self.random.below(4_000));
        format!(
            r#"{{"parentID":"{parent}","role":"assistant","mode":"build","agent":"build","path":{{"cwd":"{directory}","root":"{directory}"}},"cost":0.01,"tokens":{{"total":{},"input":{input},"output":{output},"reasoning":0,"cache":{{"write":0,"read":0}}}},"modelID":"large-3","providerID":"lab","time":{{"created":{now},"completed":{}}},"finish":"tool-calls"}}"#,
            input + output,
            now + 900
        )
    }

    /// What the user said: short. The marked session's marker stands here.
    fn text(&mut self, session: &str) -> String {
        let length = self.random.skewed(300.0, 1.0);
        let mut text = self.lines.about(&mut self.random, length);
        if self.marked.as_deref() == Some(session) {
            self.marked = None;
            let _ = write!(
                text,
                r#"{} session=\"{session}\">"#,
                MarkerText::default().as_str()
            );
        } else if self.random.below(500) == 0 {
            text.push_str(r#"<freshell-session-metadata origin=2-views pane=\"3-views\">"#);
        }
        format!(r#"{{"type":"text","text":"{text}"}}"#)
    }

    /// What the model said or did: a tool's call mostly.
    fn body(&mut self) -> String {
        let (start, end) = (self.now, self.now + 120);
        let time = format!(r#""time":{{"start":{start},"end":{end}}}"#);
        match self.random.below(10) {
            0..=1 => {
                let text = self.body_text(700.0);
                format!(r#"{{"type":"text","text":"{text}",{time}}}"#)
            }
            2 => {
                let text = self.body_text(1200.0);
                format!(r#"{{"type":"reasoning","text":"{text}",{time}}}"#)
            }
            _ => {
                let text = self.body_text(5000.0);
                let call = self.random.word(24);
                let tool = self
                    .random
                    .pick(&["bash", "read", "edit", "grep", "glob", "write"]);
                let path = self.lines.path(&mut self.random);
                format!(
                    r#"{{"type":"tool","tool":"{tool}","callID":"call_{call}","state":{{"status":"completed","input":{{"filePath":"{path}","offset":0}},"output":"{text}","title":"{path}","metadata":{{"truncated":false}},{time}}}}}"#
                )
            }
        }
    }

    fn body_text(&mut self, median: f64) -> String {
        let unscaled = self.random.skewed(median, 1.5) as f64;
        let length = (unscaled * self.scale).clamp(20.0, 100_000.0);
        self.unscaled += unscaled;
        self.bodies += length;
        self.lines.about(&mut self.random, length as usize)
    }
}

const STEP_FINISH: &str = r#"{"type":"step-finish","reason":"tool-calls","snapshot":"b5f49c19a3be9bcc62bcf3a93dd6fa04a6c90f80","cost":0.01,"tokens":{"total":21880,"input":21100,"output":780,"reasoning":0,"cache":{"write":0,"read":0}}}"#;

/// The roots asked for, a quarter more that are children and a twentieth more
/// that are archived, in some order; and how the parts are shared out: a few
/// sessions have most.
fn sessions_to_come(shape: &Shape, random: &mut Random) -> Vec<(Kind, u64)> {
    let (children, archived) = (shape.sessions / 4, shape.sessions / 20);
    let mut kinds = vec![Kind::Root; shape.sessions as usize];
    kinds.extend(vec![Kind::Child; children as usize]);
    kinds.extend(vec![Kind::Archived; archived as usize]);
    for at in (1..kinds.len()).rev() {
        kinds.swap(at, random.below(at as u64 + 1) as usize);
    }
    // The last is the first to be written, and a child needs a root.
    if let Some(root) = kinds.iter().position(|kind| *kind == Kind::Root) {
        let last = kinds.len() - 1;
        kinds.swap(root, last);
    }
    let weights: Vec<f64> = kinds.iter().map(|_| random.normal().exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut shared = 0.0;
    let mut given = 0;
    kinds
        .into_iter()
        .zip(weights)
        .map(|(kind, weight)| {
            shared += weight;
            let up_to = (shared / total * shape.parts as f64).round() as u64;
            let parts = up_to - given;
            given = up_to;
            (kind, parts)
        })
        .collect()
}

fn root_with_most_parts(sessions: &[(Kind, u64)]) -> Option<usize> {
    (0..sessions.len())
        .filter(|at| sessions[*at].0 == Kind::Root)
        .max_by_key(|at| sessions[*at].1)
}

fn integer(number: u64) -> i64 {
    number.cast_signed()
}

fn ascending(prefix: &str, now: u64, random: &mut Random) -> String {
    format!("{prefix}_{:012x}{}", now * 64, random.word(14))
}

const PROJECTS: [&str; 9] = [
    "alpha",
    "billing-api",
    "compiler",
    "docs",
    "editor",
    "freshell",
    "graph",
    "home-lab",
    "infra",
];

/// Where the project `global` was opened last.
const SCRATCH: &str = "/home/dev/scratch";

fn worktree(name: &str) -> String {
    format!("/home/dev/projects/{name}")
}

fn project_id(at: usize) -> String {
    format!("{:040x}", (at as u128 + 1) * 0x9e37_79b9_7f4a_7c15)
}

const NOUNS: [&str; 8] = [
    "forest", "circuit", "star", "meadow", "river", "lantern", "harbor", "comet",
];

const WORDS: [&str; 48] = [
    "the", "session", "of", "Test", "returns", "a", "value", "when", "reader", "Error", "is",
    "not", "file", "and", "config", "path", "to", "Server", "request", "in", "cache", "Each",
    "handler", "writes", "JSON", "for", "message", "with", "Update", "index", "this", "HTTP",
    "module", "please", "check", "why", "thread", "waits", "Build", "fails", "on", "line",
    "quickly", "grüße", "maximum", "size", "→", "view",
];

/// Lines of text as they stand in a JSON string, to take runs of.
struct Lines {
    text: String,
    starts: Vec<usize>,
}

impl Lines {
    const COUNT: usize = 40_000;

    fn new(random: &mut Random, markup: u64) -> Self {
        let mut lines = Self {
            text: String::new(),
            starts: Vec::new(),
        };
        let mut angles = 0;
        while lines.starts.len() < Self::COUNT {
            // Markup comes in blocks, whenever there is too little of it.
            if angles * markup < lines.text.len() as u64 {
                for _ in 0..1 + random.below(6) {
                    let line = lines.markup(random);
                    angles += line.matches('<').count() as u64;
                    lines.push(&line);
                }
            }
            let line = lines.line(random);
            lines.push(&line);
        }
        lines
    }

    fn push(&mut self, line: &str) {
        self.starts.push(self.text.len());
        self.text.push_str(line);
        self.text.push_str("\\n");
    }

    /// About so many bytes: whole lines that follow each other in the pool.
    fn about(&self, random: &mut Random, bytes: usize) -> String {
        let first = random.below(self.starts.len() as u64) as usize;
        let start = self.starts[first];
        let wanted = (start + bytes.max(1)).min(self.text.len());
        let next = self.starts.partition_point(|line| *line < wanted);
        let end = self.starts.get(next).copied().unwrap_or(self.text.len());
        self.text[start..end].to_owned()
    }

    fn line(&self, random: &mut Random) -> String {
        let number = random.below(3000);
        match random.below(40) {
            0..=12 => {
                let words = 6 + random.below(12) as usize;
                self.prose(random, words)
            }
            13..=19 => format!(
                r#"{number:05}|   const {} = await {}.{}({{ {}: \"{}\", retries: {} }})"#,
                self.name(random),
                self.name(random),
                random.pick(&WORDS),
                random.pick(&WORDS),
                random.word(8),
                random.below(9)
            ),
            20..=26 => format!(
                r"{}:{number}:\t\tif ({}.{} === {number} && !{}) return {};",
                self.path(random),
                random.pick(&WORDS),
                self.name(random),
                self.name(random),
                random.pick(&WORDS)
            ),
            27..=32 => format!(
                "2026-07-{:02}T{:02}:14:05.{number:04}Z INFO service={} id={} {} took={}ms",
                random.below(28) + 1,
                random.below(24),
                random.pick(&WORDS),
                random.word(20),
                self.prose(random, 4),
                random.below(900)
            ),
            33 => format!(
                "rsync --level={}-{} --max={}-{} {}",
                random.below(10),
                random.pick(&NOUNS),
                random.below(10),
                random.word(4),
                self.path(random)
            ),
            34..=38 => format!(
                "-rw-r--r-- 1 dev dev {:>8} {} {}",
                random.below(9_000_000),
                random.word(32),
                self.path(random)
            ),
            _ => format!("@@ -{number},9 +{number},12 @@ {}", self.name(random)),
        }
    }

    fn markup(&self, random: &mut Random) -> String {
        let number = random.below(3000);
        let (outer, inner) = (self.name(random), self.name(random));
        match random.below(3) {
            0 => format!(
                r#"{number:05}|     <{outer} className=\"{}\"><{inner}>{{{}}}</{inner}></{outer}>"#,
                random.pick(&WORDS),
                random.pick(&WORDS)
            ),
            1 => format!("+    pub fn {inner}(&self) -> Result<Vec<{outer}>, Error> {{"),
            _ => format!("<path>{}</path>", self.path(random)),
        }
    }

    /// As things are called in a program.
    fn name(&self, random: &mut Random) -> String {
        const ASCII: usize = 42;
        format!(
            "{}{}",
            random.pick(&WORDS[..ASCII]),
            random.pick(&WORDS[..ASCII])
        )
    }

    fn prose(&self, random: &mut Random, words: usize) -> String {
        let words: Vec<_> = (0..words).map(|_| random.pick(&WORDS)).collect();
        words.join(" ")
    }

    fn path(&self, random: &mut Random) -> String {
        format!(
            "src/{}/{}/{}.ts",
            random.pick(&NOUNS),
            random.pick(&NOUNS),
            random.word(6)
        )
    }
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>): no seed is a bad one.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least 0, less than `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len() as u64) as usize]
    }

    /// Letters of both cases and digits.
    fn word(&mut self, length: usize) -> String {
        const ALPHABET: &[u8; 62] =
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        (0..length)
            .map(|_| char::from(ALPHABET[self.below(62) as usize]))
            .collect()
    }

    /// Normal, roughly: mean 0, deviation 1.
    fn normal(&mut self) -> f64 {
        let sum: f64 = (0..12)
            .map(|_| self.below(1 << 32) as f64 / (1_u64 << 32) as f64)
            .sum();
        sum - 6.0
    }

    /// Log-normal, at most 100,000.
    fn skewed(&mut self, median: f64, deviation: f64) -> usize {
        (median * (deviation * self.normal()).exp()).min(100_000.0) as usize
    }
}
