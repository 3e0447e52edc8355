//! `opencode-sessions get` and `roots`: sessions by their ids.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::sessions::NAME;
use super::{
    FAILED, IN_MEMORY, NO_HOME, USAGE, complain, default_database, duration, process_lister,
    session_ids,
};
use crate::lister::{Lister, LookUpRequest, Outcome};
use crate::locate::Located;
use crate::output::Entry;
use crate::project::Projects;
use crate::session::SessionId;
use crate::text::Shown;
use crate::wire::{Answer, DatabaseState, LookUp, Unresolved, limits, to_json};

/// The exit status where there is no such session, or it has no root.
const NO_SUCH: u8 = 4;

/// Which sessions, and where.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LookUpArgs {
    /// Ids of sessions
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,

    /// The database [default: OpenCode's own: OPENCODE_DB, else opencode.db in the data directory]
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,

    /// How long it may take for each thousand ids, such as 500ms, 15s or 2m
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    deadline: Duration,

    /// The helper [default: the opencode-lister beside this program]
    #[arg(long, value_name = "PATH")]
    lister: Option<PathBuf>,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Session(Box<Entry>),
    Absent {
        id: &'a SessionId,
    },
    Root {
        id: &'a SessionId,
        root: &'a SessionId,
    },
    Unresolved {
        id: &'a SessionId,
        reason: Unresolved,
    },
    /// Nobody could look.
    Failed {
        id: &'a SessionId,
        message: &'a str,
    },
}

impl Line<'_> {
    fn exit_status(&self) -> u8 {
        match self {
            Self::Session(_) | Self::Root { .. } => 0,
            Self::Absent { .. } | Self::Unresolved { .. } => NO_SUCH,
            Self::Failed { .. } => FAILED,
        }
    }
}

pub(super) fn run(what: LookUp, args: &LookUpArgs) -> io::Result<u8> {
    let ids = match session_ids(&args.ids) {
        Ok(ids) => ids,
        Err(why) => {
            complain(NAME, &why);
            return Ok(USAGE);
        }
    };
    let mut out = Out {
        out: BufWriter::new(io::stdout().lock()),
        status: 0,
        projects: Projects::new(),
    };
    let db = match args.db.clone().map_or_else(default_database, Located::At) {
        Located::At(db) => db,
        Located::InMemory => return out.failed(&ids, IN_MEMORY),
        Located::NoHome => return out.failed(&ids, NO_HOME),
    };
    let lister = match process_lister(args.lister.as_deref()) {
        Ok(lister) => lister,
        Err(breakage) => return out.failed(&ids, &breakage.to_string()),
    };
    for ids in ids.chunks(limits::IDS) {
        let request = LookUpRequest {
            deadline: args.deadline,
            ..LookUpRequest::of(&db, what, ids.to_vec())
        };
        match look_up(&lister, &request) {
            Ok(answers) => out.answers(&answers)?,
            Err(why) => drop(out.failed(ids, &why)?),
        }
    }
    out.end()
}

/// The answers, or why nobody could look. Where there is no database nobody can say
/// that there is no such session.
fn look_up(lister: &impl Lister, request: &LookUpRequest) -> Result<Vec<Answer>, String> {
    let answers = match lister.look_up(request) {
        Outcome::Complete(answers) => answers,
        failed => return Err(failed.to_string()),
    };
    let db = Shown(&request.db);
    match answers.end.database {
        DatabaseState::Ready | DatabaseState::Empty => Ok(answers.answers),
        DatabaseState::Missing => Err(format!(
            "there is no database at {db}; has OpenCode been run? Name another with --db"
        )),
        DatabaseState::Young => Err(format!(
            "{db} is just being made or restored; try again in a second"
        )),
    }
}

struct Out<W> {
    out: W,
    /// The worst so far: that nobody could look, then that there is no such session.
    status: u8,
    projects: Projects,
}

impl<W: Write> Out<W> {
    fn answers(&mut self, answers: &[Answer]) -> io::Result<()> {
        for answer in answers {
            let line = match answer {
                Answer::Session(session) => Line::Session(Box::new(Entry {
                    project: self.projects.of(session),
                    session: (**session).clone(),
                })),
                Answer::Absent { id } => Line::Absent { id },
                Answer::Root { id, root } => Line::Root { id, root },
                Answer::Unresolved { id, reason } => Line::Unresolved {
                    id,
                    reason: *reason,
                },
            };
            self.line(&line)?;
        }
        Ok(())
    }

    /// Says it once to a person, and of each id to a program.
    fn failed(&mut self, ids: &[SessionId], message: &str) -> io::Result<u8> {
        complain(NAME, message);
        for id in ids {
            self.line(&Line::Failed { id, message })?;
        }
        self.end()
    }

    fn line(&mut self, line: &Line<'_>) -> io::Result<()> {
        let status = line.exit_status();
        if self.status == 0 || status == FAILED {
            self.status = status;
        }
        to_json(line, &mut self.out)?;
        self.out.write_all(b"\n")
    }

    fn end(&mut self) -> io::Result<u8> {
        self.out.flush()?;
        Ok(self.status)
    }
}
