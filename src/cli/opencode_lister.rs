//! The program `opencode-lister`: the helper.
//!
//! A listing that finds nothing new takes little longer than to start. What was tried to
//! start faster, each alone, on 490 MiB and 343 sessions (instructions by callgrind, of
//! 24.1 million; CPU time in turn with the program before, on a busy machine, where that took
//! 10.9 ms):
//!
//! | what | gain | kept |
//! | --- | --- | --- |
//! | the schema kept in the scan cache, compared by its text (`store/known_schema.rs`) | 1.91 million instructions | yes |
//! | the arguments of a launched listing without clap (`launched`), and the processors counted only when pages are read | 0.44 million instructions | yes |
//! | a scan cache that is the same is not written again | a file made and renamed | yes |
//! | the three together | CPU time less by 17 to 25 % in three runs, 562 system calls instead of 587 | |
//! | a page cache of 512 pages instead of 64 | CPU time more by 21 %: 604 page faults | no |
//! | LTO `fat` instead of `thin` | CPU time more by 5 % | no |
//! | fewer pragmas when connecting | opening has 0.12 million instructions in all, without the schema | no |
//! | libgcc and libm linked statically | 0.13 and 0.12 ms of CPU time of a program that does nothing, of 1.2; Cargo has no setting for it | no |
//! | a static program | 0.3 ms of that; the same, and tests replace functions of the C library | no |
//! | an own `main` instead of that of std | 0.2 ms of that; std's `main` opens the standard descriptors that are closed | no |

mod launched;

use std::io::{self, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::{FAILED, MarkerArgs, USAGE, exit_code, parse_session_ids, report_error};
use super::{streams, usage};
use crate::helper::difference::{Difference, HaveError};
use crate::helper::listing::{ListJob, RunStatus, list};
use crate::helper::look_up::{LookUpJob, look_up};
use crate::helper::{explain, pretty, process, verify};
use crate::lister::{BUSY_TIMEOUTS_MS, CPU_LIMITS_SECONDS, SCAN_BUDGETS_MS, ScanCache};
use crate::locate;
use crate::marker;
use crate::store::{Filter, OpenOptions};
use crate::wire::{
    ErrorKind, HelperError, LookUp, PROTOCOL_OF_DIFFERENCES, Request, Writer, limits,
};

/// The name of the helper.
const HELPER: &str = "opencode-lister";

/// How long a listing waits for a lock of another program by default, in milliseconds.
const BUSY_TIMEOUT_MS: u64 = 5000;

/// The default memory limit of SQLite, in MiB.
const MEMORY_LIMIT_MIB: u64 = 64;

/// Lists the sessions of one OpenCode database, one JSON object per line, and exits.
///
/// The last line is "end" if the listing is complete, or "error" with the reason.
/// Exit status: 0 complete, 1 failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(
    name = HELPER,
    version,
    args_conflicts_with_subcommands = true,
    args_override_self = true
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    listing: ListingArgs,

    /// Print a table
    #[arg(long, conflicts_with_all = ["request_stdin", "parent_pipe"])]
    pretty: bool,

    #[command(flatten)]
    launcher: LauncherArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the state of the database, the SQL with its query plan, and the time of each phase
    Explain(ListingArgs),
    /// Compare the search for the marker with SQL over every row, in one snapshot
    Verify(ListingArgs),
    /// Look up sessions by their ids, also archived and child sessions: one JSON object each, "session" or "absent"
    Get(GetArgs),
    /// Find the roots of sessions: one JSON object each, "root" or "unresolved"
    Roots(LookUpArgs),
}

#[derive(Debug, clap::Args)]
struct GetArgs {
    #[command(flatten)]
    look_up: LookUpArgs,

    #[command(flatten)]
    prompts: PromptArgs,
}

#[derive(Debug, clap::Args)]
struct PromptArgs {
    /// Maximum length of the first prompt of an untitled session, in characters (1 to 4000)
    #[arg(long = "first-prompt-limit", value_name = "N", default_value_t = limits::FIRST_PROMPT, value_parser = parse_prompt_limit)]
    limit: usize,
}

#[derive(Debug, clap::Args)]
struct LookUpArgs {
    /// Ids of sessions, at most 1000
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Wait this long for a lock of another program, in milliseconds (0 to 600000)
    #[arg(long = "busy-timeout", value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(BUSY_TIMEOUTS_MS))]
    busy_timeout_ms: u64,

    #[command(flatten)]
    launcher: LauncherArgs,
}

/// The database, and the limits of reading it.
#[derive(Debug, clap::Args)]
struct DatabaseArgs {
    /// The database [default: OpenCode's own, if there is only one: OPENCODE_DB, else opencode.db or opencode-CHANNEL.db in the data directory]
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,

    /// Memory that SQLite may allocate, in MiB (8 to 65536)
    #[arg(long = "memory-limit", value_name = "MIB", default_value_t = MEMORY_LIMIT_MIB, value_parser = clap::value_parser!(u64).range(8..=65_536))]
    memory_limit_mib: u64,
}

impl DatabaseArgs {
    fn open_options(&self, busy_timeout_ms: u64) -> OpenOptions {
        OpenOptions {
            busy_timeout: Duration::from_millis(busy_timeout_ms),
            heap_limit: Some(self.memory_limit_mib << 20),
            deadline: None,
        }
    }

    /// Returns the database; `None` if OpenCode has none.
    ///
    /// # Errors
    ///
    /// Returns a message if OpenCode has several databases and none is named.
    fn path(self) -> Result<Option<PathBuf>, String> {
        match self.db {
            Some(db) => Ok(Some(db)),
            None => locate::one_database().map_err(|ambiguous| ambiguous.to_string()),
        }
    }
}

#[derive(Debug, clap::Args)]
struct ListingArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    marker: MarkerArgs,

    /// List child sessions too, not just roots
    #[arg(long)]
    children: bool,

    /// List archived sessions too
    #[arg(long)]
    archived: bool,

    /// Wait this long for a lock of another program, in milliseconds (0 to 600000)
    #[arg(long = "busy-timeout", value_name = "MS", default_value_t = BUSY_TIMEOUT_MS, value_parser = clap::value_parser!(u64).range(BUSY_TIMEOUTS_MS))]
    busy_timeout_ms: u64,

    /// File that stores what is known about the marker, so that only new content is searched;
    /// "auto" is a file in the cache directory
    #[arg(long, value_name = "FILE|auto")]
    scan_cache: Option<ScanCache>,

    /// Time limit of the search for the marker, in milliseconds (1 to 600000); a mark that is unknown by then is null
    #[arg(long = "scan-budget", value_name = "MS", value_parser = clap::value_parser!(u64).range(SCAN_BUDGETS_MS))]
    scan_budget_ms: Option<u64>,

    #[command(flatten)]
    prompts: PromptArgs,

    /// Number of threads that read the database (1 to 64)
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options for the program that launches the helper")]
struct LauncherArgs {
    /// Read a request, one JSON line, from standard input first
    #[arg(long)]
    request_stdin: bool,

    /// Exit when standard input ends
    #[arg(long)]
    parent_pipe: bool,

    /// Exit with this process, which must be the parent (Linux)
    #[arg(long, value_name = "PID")]
    parent: Option<u32>,

    /// Low CPU and I/O priority, no core file, at most 1 GiB of address space
    #[arg(long)]
    background: bool,

    /// Exit after this many seconds of CPU time (1 to 86400)
    #[arg(long = "cpu-limit", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(CPU_LIMITS_SECONDS))]
    cpu_limit_seconds: Option<u64>,
}

impl ListingArgs {
    fn job(self) -> Result<ListJob, String> {
        let open = self.database.open_options(self.busy_timeout_ms);
        let db = self.database.path()?;
        Ok(ListJob {
            open,
            marker: marker::Options {
                marker: self.marker.marker(),
                cache: self
                    .scan_cache
                    .and_then(|cache| cache.prepare(db.as_ref()?)),
                budget: self.scan_budget_ms.map(Duration::from_millis),
                threads: self.threads.unwrap_or_default(),
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

fn parse_threads(text: &str) -> Result<usize, String> {
    parse_number(text, 64)
}

fn parse_prompt_limit(text: &str) -> Result<usize, String> {
    parse_number(text, limits::FIRST_PROMPT_MAX)
}

/// Parses a number from 1 to `max`.
fn parse_number(text: &str, max: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| (1..=max).contains(number))
        .ok_or_else(|| format!("expected a number from 1 to {max}"))
}

/// Runs the helper with the arguments of this process.
#[must_use]
pub fn run() -> ExitCode {
    let parsed = match launched::parse(std::env::args_os().skip(1)) {
        Some(args) => Ok(args),
        None => usage::parse::<Args>(),
    };
    let result = match parsed {
        Ok(args) => run_command(args),
        Err(error) if error.exit_code() == 0 => usage::print(&error),
        Err(error) => {
            let message = error.render().to_string();
            let first = message.lines().next().unwrap_or_default();
            let first = first.strip_prefix("error: ").unwrap_or(first).to_owned();
            let result = write_usage_error(Writer::new(streams::results()), first);
            let _ = usage::print(&error);
            result
        }
    };
    exit_code(HELPER, result.map_err(Into::into))
}

/// Writes an error of usage as the output: the caller may read nothing but the pipe.
fn write_usage_error<W: Write>(mut out: Writer<W>, message: String) -> io::Result<u8> {
    out.hello()?;
    write_error_of_usage(out, message)
}

fn write_error_of_usage<W: Write>(out: Writer<W>, message: String) -> io::Result<u8> {
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
        Some(Command::Explain(listing)) => {
            print_report(listing, |job| explain::print(job, out, err))
        }
        Some(Command::Verify(listing)) => print_report(listing, |job| verify::print(job, out, err)),
        Some(Command::Get(args)) => run_look_up(LookUp::Get, args.look_up, args.prompts.limit, out),
        Some(Command::Roots(args)) => run_look_up(LookUp::Roots, args, limits::FIRST_PROMPT, out),
        None if args.pretty => print_report(args.listing, |job| pretty::print(job, out, err)),
        None => run_listing(args, out, err),
    }
}

/// Runs a command whose output is for people: an error of usage is a message.
fn print_report(
    listing: ListingArgs,
    print: impl FnOnce(&ListJob) -> io::Result<RunStatus>,
) -> io::Result<u8> {
    match listing.job() {
        Ok(job) => Ok(print(&job)?.exit_status()),
        Err(message) => {
            report_error(HELPER, &message);
            Ok(USAGE)
        }
    }
}

fn run_listing(args: Args, out: impl Write, err: impl Write) -> io::Result<u8> {
    let mut out = Writer::new(out);
    let launcher = args.launcher;
    if !launcher.apply() {
        return Ok(FAILED);
    }
    let mut job = match args.listing.job() {
        Ok(job) => job,
        Err(message) => return refuse(out, message),
    };
    let mut stdin = process::stdin();
    let mut have = None;
    if launcher.request_stdin {
        match process::read_request(&mut stdin) {
            Ok(Request::List {
                marker,
                have: announced,
            }) => {
                job.marker.marker = marker.or(job.marker.marker);
                have = announced;
            }
            Ok(_) => return refuse(out, OTHER_COMMAND.to_owned()),
            Err(message) => return refuse(out, message),
        }
    }
    let difference = have.map(|have| {
        out.hello_of(PROTOCOL_OF_DIFFERENCES)
            .map_err(HaveError::Write)?;
        Difference::to(have, job.marker.cache.as_deref(), &mut stdin, &mut out)
    });
    let difference = match difference.transpose() {
        Ok(difference) => difference,
        Err(HaveError::Invalid(message)) => return refuse_after_hello(out, message),
        Err(HaveError::Write(error)) => return Err(error.into()),
    };
    if launcher.parent_pipe {
        exit_at_end_of_stdin(stdin)?;
    }
    if difference.is_none() {
        out.hello()?;
    }
    Ok(list(&job, difference, out, err)?.exit_status())
}

fn run_look_up(
    what: LookUp,
    args: LookUpArgs,
    first_prompt_limit: usize,
    out: impl Write,
) -> io::Result<u8> {
    let mut out = Writer::new(out);
    let launcher = args.launcher;
    if !launcher.apply() {
        return Ok(FAILED);
    }
    let mut stdin = process::stdin();
    let ids = if launcher.request_stdin {
        match (process::read_request(&mut stdin), what) {
            (Ok(Request::Get { ids }), LookUp::Get)
            | (Ok(Request::Roots { ids }), LookUp::Roots) => Ok(ids),
            (Ok(_), _) => Err(OTHER_COMMAND.to_owned()),
            (Err(message), _) => Err(message),
        }
    } else {
        parse_session_ids(&args.ids)
    };
    let ids = match ids {
        Ok(ids) if ids.len() <= limits::IDS => ids,
        Ok(ids) => {
            let message = format!(
                "too many ids: {}, expected at most {}",
                ids.len(),
                limits::IDS
            );
            return refuse(out, message);
        }
        Err(message) => return refuse(out, message),
    };
    if launcher.parent_pipe {
        exit_at_end_of_stdin(stdin)?;
    }
    let open = args.database.open_options(args.busy_timeout_ms);
    let db = match args.database.path() {
        Ok(db) => db,
        Err(message) => return refuse(out, message),
    };
    let job = LookUpJob {
        what,
        ids,
        open,
        first_prompt_limit,
        db,
    };
    out.hello()?;
    Ok(look_up(&job, out)?.exit_status())
}

fn exit_at_end_of_stdin(stdin: BufReader<io::Stdin>) -> io::Result<()> {
    process::exit_at_end_of_stdin(stdin).map_err(|error| {
        let message = format!("cannot watch standard input: {error}");
        io::Error::new(error.kind(), message)
    })
}

const OTHER_COMMAND: &str = "invalid request on standard input: it is for another command";

impl LauncherArgs {
    /// Ties this process to its parent and limits its resources. Returns false if the parent
    /// has exited.
    fn apply(&self) -> bool {
        if let Some(parent) = self.parent
            && let Err(orphan) = process::exit_with_parent(parent)
        {
            report_error(
                HELPER,
                &format!("{orphan}: the launching program has exited"),
            );
            return false;
        }
        if self.background {
            process::lower_priority_and_limit_memory();
        }
        if let Some(seconds) = self.cpu_limit_seconds {
            process::limit_cpu_time(seconds);
        }
        true
    }
}

/// Reports an invalid request, to people and in the output.
fn refuse<W: Write>(out: Writer<W>, message: String) -> io::Result<u8> {
    report_error(HELPER, &message);
    write_usage_error(out, message)
}

/// As [`refuse`], if the first line is written.
fn refuse_after_hello<W: Write>(out: Writer<W>, message: String) -> io::Result<u8> {
    report_error(HELPER, &message);
    write_error_of_usage(out, message)
}
