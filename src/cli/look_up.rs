//! `opencode-sessions get` and `roots`: sessions by their ids.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::sources::{SourceArgs, source_listers};
use super::streams::results;
use super::wait_notice::WaitNotice;
use super::{FAILED, PROGRAM, USAGE};
use super::{parse_deadline, parse_session_ids, process_lister, report_error};
use crate::json::to_json;
use crate::lister::{Cancel, until};
use crate::query::{LookUpJob, LookUpResult, LookUpSource, LookedUp};
use crate::wire::{Answer, LookUp, limits};

/// The exit status if a session does not exist, or has no root.
const NOT_FOUND: u8 = 4;

/// The arguments of `get` and `roots`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LookUpArgs {
    /// Ids of sessions
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,

    #[command(flatten)]
    sources: SourceArgs,

    /// Time limit for each thousand ids, such as 500ms, 15s or 2m
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_deadline)]
    deadline: Duration,

    /// The helper program [default: the opencode-lister beside this program]
    #[arg(long, value_name = "PATH")]
    lister: Option<PathBuf>,
}

fn exit_status(result: &LookUpResult) -> u8 {
    match result {
        LookUpResult::Answer(Answer::Session(_) | Answer::Root { .. }) => 0,
        LookUpResult::Answer(Answer::Absent { .. } | Answer::Unresolved { .. }) => NOT_FOUND,
        LookUpResult::Failed { .. } => FAILED,
    }
}

pub(super) fn run(what: LookUp, args: &LookUpArgs) -> anyhow::Result<u8> {
    let ids = match parse_session_ids(&args.ids) {
        Ok(ids) => ids,
        Err(message) => {
            report_error(PROGRAM, &message);
            return Ok(USAGE);
        }
    };
    let mut output = Output {
        out: results(),
        status: 0,
        reported: BTreeSet::new(),
    };
    match look_up_sources(args) {
        Ok(sources) => {
            for ids in ids.chunks(limits::IDS) {
                let job = LookUpJob {
                    what,
                    ids: ids.to_vec(),
                    deadline: args.deadline,
                    cancel: Cancel::default(),
                };
                let names = sources.iter().map(|one| &one.source_lister.source.name);
                let waiting = WaitNotice::start(names, until(args.deadline));
                let looked_up = job.run(&sources);
                drop(waiting);
                for one in looked_up {
                    output.write(&one)?;
                }
            }
        }
        Err(error) => {
            let message = error.to_string();
            for id in ids {
                let message = message.clone();
                output.write(&LookedUp::in_no_source(LookUpResult::Failed {
                    id,
                    message,
                }))?;
            }
        }
    }
    Ok(output.finish()?)
}

fn look_up_sources(args: &LookUpArgs) -> anyhow::Result<Vec<LookUpSource>> {
    let sources = args.sources.select()?.sources;
    let helper = process_lister(args.lister.as_deref())?;
    let source_listers = source_listers(&sources, &helper).into_iter();
    Ok(source_listers.map(LookUpSource::from).collect())
}

struct Output<W> {
    out: W,
    /// The worst exit status so far: 1, else 4, else 0.
    status: u8,
    /// The messages of failures that standard error has: each is reported once.
    reported: BTreeSet<String>,
}

impl<W: Write> Output<W> {
    fn write(&mut self, looked_up: &LookedUp) -> io::Result<()> {
        if let LookUpResult::Failed { message, .. } = &looked_up.result
            && self.reported.insert(message.clone())
        {
            report_error(PROGRAM, message);
        }
        let status = exit_status(&looked_up.result);
        if self.status == 0 || status == FAILED {
            self.status = status;
        }
        to_json(looked_up, &mut self.out)?;
        self.out.write_all(b"\n")
    }

    fn finish(&mut self) -> io::Result<u8> {
        self.out.flush()?;
        Ok(self.status)
    }
}
