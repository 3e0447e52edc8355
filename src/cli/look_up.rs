//! `opencode-sessions get` and `roots`: sessions by their ids.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::sessions::NAME;
use super::sources::{SourceArgs, source_lister};
use super::streams::results;
use super::waiting::Waiting;
use super::{FAILED, USAGE, duration, process_lister, report_error, session_ids};
use crate::json::to_json;
use crate::lister::{Cancel, until};
use crate::query::LookUpResult;
use crate::query::{LookUpJob, LookUpSource, LookedUp};
use crate::wire::{Answer, LookUp, limits};

/// The exit status where there is no such session, or it has no root.
const NO_SUCH: u8 = 4;

/// Which sessions, and where.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LookUpArgs {
    /// Ids of sessions
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,

    #[command(flatten)]
    sources: SourceArgs,

    /// How long it may take for each thousand ids, such as 500ms, 15s or 2m
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    deadline: Duration,

    /// The helper [default: the opencode-lister beside this program]
    #[arg(long, value_name = "PATH")]
    lister: Option<PathBuf>,
}

fn exit_status(found: &LookUpResult) -> u8 {
    match found {
        LookUpResult::Answer(Answer::Session(_) | Answer::Root { .. }) => 0,
        LookUpResult::Answer(Answer::Absent { .. } | Answer::Unresolved { .. }) => NO_SUCH,
        LookUpResult::Failed { .. } => FAILED,
    }
}

pub(super) fn run(what: LookUp, args: &LookUpArgs) -> io::Result<u8> {
    let ids = match session_ids(&args.ids) {
        Ok(ids) => ids,
        Err(why) => {
            report_error(NAME, &why);
            return Ok(USAGE);
        }
    };
    let mut out = Out {
        out: results(),
        status: 0,
        said: BTreeSet::new(),
    };
    match asked(args) {
        Ok(sources) => {
            for ids in ids.chunks(limits::IDS) {
                let job = LookUpJob {
                    what,
                    ids: ids.to_vec(),
                    deadline: args.deadline,
                    cancel: Cancel::default(),
                };
                let names = sources.iter().map(|asked| &asked.source_lister.source.name);
                let waiting = Waiting::begin(names, until(args.deadline));
                let found = job.run(&sources);
                drop(waiting);
                for found in found {
                    out.line(&found)?;
                }
            }
        }
        Err(why) => {
            for id in ids {
                let message = why.clone();
                out.line(&LookedUp::nowhere(LookUpResult::Failed { id, message }))?;
            }
        }
    }
    out.end()
}

fn asked(args: &LookUpArgs) -> Result<Vec<LookUpSource>, String> {
    let chosen = args.sources.choose();
    let sources = chosen.map_err(|none| none.why().to_owned())?.sources;
    let helper = process_lister(args.lister.as_deref());
    let helper = helper.map_err(|failure| failure.to_string())?;
    let source_lister = source_lister(&sources, &helper).into_iter();
    Ok(source_lister.map(LookUpSource::from).collect())
}

struct Out<W> {
    out: W,
    /// The worst so far: that nobody could look, then that there is no such session.
    status: u8,
    /// Why nobody could look, which is said once to a person.
    said: BTreeSet<String>,
}

impl<W: Write> Out<W> {
    fn line(&mut self, looked_up: &LookedUp) -> io::Result<()> {
        if let LookUpResult::Failed { message, .. } = &looked_up.found
            && self.said.insert(message.clone())
        {
            report_error(NAME, message);
        }
        let status = exit_status(&looked_up.found);
        if self.status == 0 || status == FAILED {
            self.status = status;
        }
        to_json(looked_up, &mut self.out)?;
        self.out.write_all(b"\n")
    }

    fn end(&mut self) -> io::Result<u8> {
        self.out.flush()?;
        Ok(self.status)
    }
}
