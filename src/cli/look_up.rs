//! `opencode-sessions get` and `roots`: sessions by their ids.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::sessions::NAME;
use super::{
    FAILED, IN_MEMORY, NO_HOME, USAGE, complain, default_database, duration, process_lister,
    session_ids,
};
use crate::lister::LookUpRequest;
use crate::locate::Located;
use crate::output::FoundOf;
use crate::project::Projects;
use crate::session::SessionId;
use crate::wire::{Answer, LookUp, limits, to_json};

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

fn exit_status(found: &FoundOf) -> u8 {
    match found {
        FoundOf::Answer(Answer::Session(_) | Answer::Root { .. }) => 0,
        FoundOf::Answer(Answer::Absent { .. } | Answer::Unresolved { .. }) => NO_SUCH,
        FoundOf::Failed { .. } => FAILED,
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
    out.look_up(what, args, &ids)?;
    out.end()
}

struct Out<W> {
    out: W,
    /// The worst so far: that nobody could look, then that there is no such session.
    status: u8,
    projects: Projects,
}

impl<W: Write> Out<W> {
    fn look_up(&mut self, what: LookUp, args: &LookUpArgs, ids: &[SessionId]) -> io::Result<()> {
        let db = match args.db.clone().map_or_else(default_database, Located::At) {
            Located::At(db) => db,
            Located::InMemory => return self.failed(ids, IN_MEMORY),
            Located::NoHome => return self.failed(ids, NO_HOME),
        };
        let lister = match process_lister(args.lister.as_deref()) {
            Ok(lister) => lister,
            Err(breakage) => return self.failed(ids, &breakage.to_string()),
        };
        for ids in ids.chunks(limits::IDS) {
            let request = LookUpRequest {
                deadline: args.deadline,
                ..LookUpRequest::of(&db, what, ids.to_vec())
            };
            match request.answers(&lister) {
                Ok(answers) => {
                    for answer in answers {
                        let found = FoundOf::answer(answer, &mut self.projects);
                        self.line(&found)?;
                    }
                }
                Err(why) => self.failed(ids, &why)?,
            }
        }
        Ok(())
    }

    /// Says it once to a person, and of each id to a program.
    fn failed(&mut self, ids: &[SessionId], message: &str) -> io::Result<()> {
        complain(NAME, message);
        for id in ids {
            self.line(&FoundOf::Failed {
                id: id.clone(),
                message: message.to_owned(),
            })?;
        }
        Ok(())
    }

    fn line(&mut self, found: &FoundOf) -> io::Result<()> {
        let status = exit_status(found);
        if self.status == 0 || status == FAILED {
            self.status = status;
        }
        to_json(found, &mut self.out)?;
        self.out.write_all(b"\n")
    }

    fn end(&mut self) -> io::Result<u8> {
        self.out.flush()?;
        Ok(self.status)
    }
}
