//! `opencode-lister`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::streams;
use super::{MarkerArgs, USAGE, cannot, exit, report_error, session_ids, usage};
use crate::helper::listing::{ListJob, RunStatus, list};
use crate::helper::look_up::{LookUpJob, look_up};
use crate::helper::{explain, pretty, process, verify};
use crate::lister::{ScanCache, default_threads};
use crate::locate;
use crate::marker;
use crate::store::{Filter, OpenOptions};
use crate::wire::{ErrorKind, HelperError, LookUp, Request, Writer, limits};

const NAME: &str = "opencode-lister";

/// Lists the sessions of one OpenCode database, one JSON object a line, and exits.
///
/// The last line says whether the listing is complete ("end") or why it failed ("error").
/// Exit status: 0 complete, 1 failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    version,
    args_conflicts_with_subcommands = true,
    args_override_self = true
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    reading: Reading,

    /// Print a table for a person
    #[arg(long, conflicts_with_all = ["request_stdin", "parent_pipe"])]
    pretty: bool,

    #[command(flatten)]
    launched: Launched,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what is in the database, the SQL with its query plan, and how long each phase takes
    Explain(Reading),
    /// Compare what is found of the marker with what SQL says of every row, in one snapshot
    Verify(Reading),
    /// Look up sessions by their ids, any of them: one JSON object each, "session" or "absent"
    Get(Getting),
    /// Find the roots of sessions: one JSON object each, "root" or "unresolved"
    Roots(LookingUp),
}

#[derive(Debug, clap::Args)]
struct Getting {
    #[command(flatten)]
    looking_up: LookingUp,

    #[command(flatten)]
    prompts: Prompts,
}

#[derive(Debug, clap::Args)]
struct Prompts {
    /// The most characters of the first prompt of an untitled session (1 to 4000)
    #[arg(long = "first-prompt-limit", value_name = "N", default_value_t = limits::FIRST_PROMPT, value_parser = first_prompt_limit)]
    limit: usize,
}

#[derive(Debug, clap::Args)]
struct LookingUp {
    /// Ids of sessions, at most 1000
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    #[command(flatten)]
    place: Place,

    /// Wait so long for another program's lock, in milliseconds (0 to 600000)
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    busy_timeout: u64,

    #[command(flatten)]
    launched: Launched,
}

/// The database, and what reading it may take.
#[derive(Debug, clap::Args)]
struct Place {
    /// The database [default: OpenCode's own, where there is one: OPENCODE_DB, else opencode.db or opencode-<channel>.db in the data directory]
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,

    /// Memory that SQLite may allocate, in MiB (8 to 65536)
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(8..=65_536))]
    memory_limit: u64,
}

impl Place {
    fn open(&self, busy_timeout: u64) -> OpenOptions {
        OpenOptions {
            busy_timeout: Duration::from_millis(busy_timeout),
            heap_limit: Some(self.memory_limit << 20),
            deadline: None,
        }
    }

    fn path(self) -> Result<Option<PathBuf>, String> {
        match self.db {
            Some(db) => Ok(Some(db)),
            None => locate::one_database().map_err(|several| several.to_string()),
        }
    }
}

#[derive(Debug, clap::Args)]
struct Reading {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    marker: MarkerArgs,

    /// List child sessions too, not just roots
    #[arg(long)]
    children: bool,

    /// List archived sessions too
    #[arg(long)]
    archived: bool,

    /// Wait so long for another program's lock, in milliseconds (0 to 600000)
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    busy_timeout: u64,

    /// Remember in this file what is known about the marker, and read only what is new;
    /// "auto" is one in the cache directory
    #[arg(long, value_name = "FILE|auto")]
    scan_cache: Option<ScanCache>,

    /// Look for the marker for so long, in milliseconds (1 to 600000); what is not known then is null
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    scan_budget: Option<u64>,

    #[command(flatten)]
    prompts: Prompts,

    /// Threads that read the database (1 to 64)
    #[arg(long, value_name = "N", default_value_t = default_threads(), hide_default_value = true, value_parser = threads)]
    threads: usize,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "For the program that launches it")]
struct Launched {
    /// Read a request, one JSON line, from standard input first
    #[arg(long)]
    request_stdin: bool,

    /// Die when standard input ends
    #[arg(long)]
    parent_pipe: bool,

    /// Die with this process, which must be the parent (Linux)
    #[arg(long, value_name = "PID")]
    parent: Option<u32>,

    /// Low CPU and I/O priority, no core file, 1 GiB of address space
    #[arg(long)]
    background: bool,

    /// Die after so many seconds of CPU time (1 to 86400)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    cpu_limit: Option<u64>,
}

impl Reading {
    fn task(self) -> Result<ListJob, String> {
        let open = self.place.open(self.busy_timeout);
        let db = self.place.path()?;
        Ok(ListJob {
            open,
            marker: marker::Options {
                marker: self.marker.marker(),
                cache: self
                    .scan_cache
                    .and_then(|cache| cache.prepare(db.as_ref()?)),
                budget: self.scan_budget.map(Duration::from_millis),
                threads: self.threads,
            },
            filter: Filter {
                children: self.children,
                archived: self.archived,
            },
            first_prompt_limit: self.prompts.limit,
            db,
        })
    }
}

fn threads(text: &str) -> Result<usize, String> {
    number(text, 64)
}

fn first_prompt_limit(text: &str) -> Result<usize, String> {
    number(text, limits::FIRST_PROMPT_MAX)
}

/// A number from 1 to `most`.
fn number(text: &str, most: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("not a number from 1 to {most}"))
}

/// Runs the helper with the arguments of this process.
#[must_use]
pub fn run() -> ExitCode {
    match usage::parse::<Args>() {
        Ok(args) => exit(NAME, run_command(args)),
        Err(error) if error.exit_code() == 0 => exit(NAME, usage::say(&error)),
        Err(error) => {
            let message = error.render().to_string();
            let first = message.lines().next().unwrap_or_default();
            let first = first.strip_prefix("error: ").unwrap_or(first).to_owned();
            let result = wrong_usage(Writer::new(streams::results()), first);
            let _ = usage::say(&error);
            exit(NAME, result)
        }
    }
}

/// A caller must learn from the pipe alone what was wrong with its call.
fn wrong_usage<W: Write>(mut out: Writer<W>, message: String) -> io::Result<u8> {
    out.hello()?;
    out.error(HelperError {
        kind: ErrorKind::Usage,
        message,
    })?;
    Ok(USAGE)
}

fn run_command(args: Args) -> io::Result<u8> {
    let out = streams::results();
    let err = streams::messages();
    match args.command {
        Some(Command::Explain(reading)) => {
            for_a_person(reading, |task| explain::print(task, out, err))
        }
        Some(Command::Verify(reading)) => {
            for_a_person(reading, |task| verify::print(task, out, err))
        }
        Some(Command::Get(args)) => {
            looking_up(LookUp::Get, args.looking_up, args.prompts.limit, out)
        }
        Some(Command::Roots(args)) => looking_up(LookUp::Roots, args, limits::FIRST_PROMPT, out),
        None if args.pretty => for_a_person(args.reading, |task| pretty::print(task, out, err)),
        None => listing(args, out, err),
    }
}

fn for_a_person(
    reading: Reading,
    print: impl FnOnce(&ListJob) -> io::Result<RunStatus>,
) -> io::Result<u8> {
    match reading.task() {
        Ok(task) => Ok(print(&task)?.exit_status()),
        Err(why) => {
            report_error(NAME, &why);
            Ok(USAGE)
        }
    }
}

fn listing(args: Args, out: impl Write, err: impl Write) -> io::Result<u8> {
    let mut out = Writer::new(out);
    let launched = args.launched;
    if !launched.begins() {
        return Ok(super::FAILED);
    }
    let mut task = match args.reading.task() {
        Ok(task) => task,
        Err(why) => return refused(out, Err(why)),
    };
    let mut stdin = process::stdin();
    if launched.request_stdin {
        match process::read_request(&mut stdin) {
            Ok(Request::List { marker }) => task.marker.marker = marker.or(task.marker.marker),
            other => return refused(out, other),
        }
    }
    if launched.parent_pipe {
        process::exit_at_end_of_stdin(stdin).map_err(cannot("watch standard input"))?;
    }
    out.hello()?;
    Ok(list(&task, out, err)?.exit_status())
}

fn looking_up(
    what: LookUp,
    args: LookingUp,
    first_prompt_limit: usize,
    out: impl Write,
) -> io::Result<u8> {
    let mut out = Writer::new(out);
    let launched = args.launched;
    if !launched.begins() {
        return Ok(super::FAILED);
    }
    let mut stdin = process::stdin();
    let ids = if launched.request_stdin {
        match (process::read_request(&mut stdin), what) {
            (Ok(Request::Get { ids }), LookUp::Get)
            | (Ok(Request::Roots { ids }), LookUp::Roots) => Ok(ids),
            (other, _) => return refused(out, other),
        }
    } else {
        session_ids(&args.ids)
    };
    let ids = match ids {
        Ok(ids) if ids.len() <= limits::IDS => ids,
        Ok(_) => {
            let why = format!("more than {} ids are too many at once", limits::IDS);
            return refused(out, Err(why));
        }
        Err(why) => return refused(out, Err(why)),
    };
    if launched.parent_pipe {
        process::exit_at_end_of_stdin(stdin).map_err(cannot("watch standard input"))?;
    }
    let open = args.place.open(args.busy_timeout);
    let db = match args.place.path() {
        Ok(db) => db,
        Err(why) => return refused(out, Err(why)),
    };
    let task = LookUpJob {
        what,
        ids,
        open,
        first_prompt_limit,
        db,
    };
    out.hello()?;
    Ok(look_up(&task, out)?.exit_status())
}

impl Launched {
    /// Ties this process to the one that launched it, and limits it; false where that
    /// one is gone.
    fn begins(&self) -> bool {
        if let Some(parent) = self.parent
            && let Err(orphan) = process::exit_with_parent(parent)
        {
            report_error(NAME, &format!("{orphan}: nobody reads this listing"));
            return false;
        }
        if self.background {
            process::lower_priority_and_limit_memory();
        }
        if let Some(seconds) = self.cpu_limit {
            process::limit_cpu_time(seconds);
        }
        true
    }
}

/// Says that this request is not one to obey.
fn refused<W: Write>(out: Writer<W>, request: Result<Request, String>) -> io::Result<u8> {
    let why = request.map_or_else(
        |why| why,
        |_| "the request is for another command".to_owned(),
    );
    report_error(NAME, &why);
    wrong_usage(out, why)
}
