//! `opencode-sessions doctor`: checks the programs, the configuration, the service and every
//! source, and prints what to do about each problem.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::sources::{
    EmptyReason, SelectionError, SourceArgs, SourceSelection, located, paths_of, source_listers,
};
use super::streams::results;
use super::wait_notice::WaitNotice;
use super::{FAILED, parse_deadline, process_lister, service_sockets};
use crate::lister::{Cancel, ListRequest, Outcome, until};
use crate::locate::DatabaseFiles;
use crate::locate::aliases;
use crate::locate::{self, Program};
use crate::query::{self, LOG_ELSEWHERE_WARNING, OLD_STORE_NOTE};
use crate::service::SourcePlace;
use crate::service::client::{self, Client, ConnectError};
use crate::source::{self, Place, Source};
use crate::text::{DisplayPath, format_duration, name_line};
use crate::wire::{DatabaseState, Listing, VERSION, notes};

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    sources: SourceArgs,

    /// Time limit for the listing of each source, such as 500ms, 15s or 2m
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_deadline)]
    deadline: Duration,

    /// The helper program [default: the opencode-lister beside this program]
    #[arg(long, value_name = "PATH")]
    lister: Option<PathBuf>,
}

pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<u8> {
    let mut report = Report {
        out: results(),
        has_problem: false,
    };
    report.write_programs(args)?;
    match args.sources.select() {
        Ok(selection) => {
            report.check_sources(args, &selection)?;
            if args.sources.uses_config() {
                report.write_unlisted_forks(&selection)?;
            }
        }
        Err(error @ SelectionError::InMemory) => report.line("note", &error.to_string())?,
        Err(error) => report.problem(&error.to_string())?,
    }
    report.out.flush()?;
    Ok(if report.has_problem { FAILED } else { 0 })
}

struct Report<W> {
    out: W,
    has_problem: bool,
}

impl<W: Write> Report<W> {
    fn line(&mut self, label: &str, text: &str) -> io::Result<()> {
        writeln!(self.out, "{label:<9} {}", name_line(text))
    }

    fn problem(&mut self, text: &str) -> io::Result<()> {
        self.has_problem = true;
        self.line("WRONG", text)
    }

    fn write_programs(&mut self, args: &DoctorArgs) -> io::Result<()> {
        self.line("program", &format!("version {VERSION}"))?;
        match process_lister(args.lister.as_deref()) {
            Ok(helper) => {
                let program = helper
                    .program()
                    .map(|program| DisplayPath(program).to_string());
                self.line("helper", &program.unwrap_or_default())?;
            }
            Err(failure) => self.problem(&failure.to_string())?,
        }
        match args.sources.config_file() {
            Some(path) if path.exists() => self.line("config", &DisplayPath(&path).to_string()),
            Some(path) => self.line("config", &format!("none at {}", DisplayPath(&path))),
            None => self.line("config", "none: no home directory"),
        }
    }

    fn write_service(&mut self, sources: &[Source]) -> io::Result<()> {
        let until = Instant::now() + client::DEFAULT_TIMEOUT;
        let service = match Client::connect_first(&service_sockets(None), until) {
            Ok(service) => service,
            Err(ConnectError::NotRunning) => return self.line("service", "none is running"),
            Err(error) => return self.problem(&error.to_string()),
        };
        let hello = service.hello();
        let state = match SourcePlace::are_same(&hello.sources, sources) {
            true => "with these sources",
            false => "with other sources; SIGHUP makes it read the configuration again",
        };
        let text = format!(
            "version {} is running as process {}, {state}",
            hello.version, hello.pid
        );
        self.line("service", &text)
    }

    fn check_sources(&mut self, args: &DoctorArgs, selection: &SourceSelection) -> io::Result<()> {
        let sources = &selection.sources;
        self.write_service(sources)?;
        // A missing helper is among the programs that are reported already.
        let Ok(helper) = process_lister(args.lister.as_deref()) else {
            return Ok(());
        };
        let source_listers = source_listers(sources, &helper);
        // The report so far appears before a slow source answers.
        self.out.flush()?;
        let until = until(args.deadline);
        let waiting = WaitNotice::start(sources.iter().map(|source| &source.name), until);
        let request = |source: &Source| ListRequest {
            db: source.db(),
            marker: None,
            children: true,
            archived: true,
            deadline: args.deadline,
            scan_cache: None,
            scan_budget: None,
            first_prompt_limit: crate::wire::limits::FIRST_PROMPT,
            cancel: Cancel::default(),
            known: None,
            only_differences: false,
        };
        let outcomes = query::list(&source_listers, request, |source| {
            waiting.answered(&source.name);
        });
        drop(waiting);
        let located = located(&selection.config);
        let discovered = source::sources_of(&paths_of(&located));
        for (source, outcome) in sources.iter().zip(outcomes) {
            writeln!(self.out)?;
            // A discovered database may be missing; a named one may not.
            let is_named = !discovered.iter().any(|one| one.place == source.place);
            self.write_source(selection, source, outcome, is_named)?;
        }
        Ok(())
    }

    /// Writes which databases of forks exist and are not listed.
    fn write_unlisted_forks(&mut self, selection: &SourceSelection) -> io::Result<()> {
        let mut programs = selection.config.programs.clone();
        let mut unlisted = Vec::new();
        for fork in Program::ALL
            .into_iter()
            .filter(|one| *one != Program::OpenCode)
        {
            let paths = paths_of(&[locate::databases_of(fork)]);
            let existing = aliases::databases(&paths).into_iter();
            let existing = existing.filter(|database| database.exists == Some(true));
            let is_listed = |path: &Path| {
                let mut sources = selection.sources.iter();
                sources.any(|one| matches!(&one.place, Place::Database(listed) if listed == path))
            };
            let new: Vec<_> = existing.filter(|one| !is_listed(&one.path)).collect();
            if !new.is_empty() && !programs.contains(&fork) {
                programs.push(fork);
            }
            unlisted.extend(new.into_iter().map(|database| (fork.name(), database.path)));
        }
        let names = programs
            .iter()
            .map(|program| format!("\"{}\"", program.name()));
        let names = names.collect::<Vec<_>>().join(", ");
        for (fork, path) in unlisted {
            writeln!(self.out)?;
            let text = format!(
                "the database of {fork} at {} is not listed; to list it, write `discover = [{names}]` \
                 in the configuration",
                DisplayPath(&path)
            );
            self.line("note", &text)?;
        }
        Ok(())
    }

    fn write_source(
        &mut self,
        selection: &SourceSelection,
        source: &Source,
        outcome: Outcome,
        is_named: bool,
    ) -> io::Result<()> {
        self.line("source", source.name.as_str())?;
        match &source.place {
            Place::Database(path) => {
                self.line("database", &DisplayPath(path).to_string())?;
                for other in source.written.iter().filter(|other| *other != path) {
                    self.line("also", &DisplayPath(other).to_string())?;
                }
            }
            Place::Remote(remote) => {
                self.line("command", &source.place.to_string())?;
                self.line("asked", &format!("every {}", format_duration(remote.every)))?;
            }
        }
        let listing = match outcome {
            Outcome::Complete(listing) => listing,
            failure => return self.problem(&failure.to_string()),
        };
        let mut log_elsewhere = listing.end.log_elsewhere;
        // The helper has read the database, so the disk answers.
        if let Place::Database(path) = &source.place {
            let files = DatabaseFiles::of_canonical(path.clone());
            self.write_sizes(&files)?;
            log_elsewhere |= log_can_be_elsewhere(&files).unwrap_or(false);
        }
        if log_elsewhere {
            self.line("warning", LOG_ELSEWHERE_WARNING)?;
        }
        // The warning about the log is written already.
        for note in notes(&listing.end.degraded, false) {
            self.line("warning", &note)?;
        }
        self.write_listing(&listing)?;
        let state = listing.end.database;
        match (selection.empty_reason(source, &listing.end), state) {
            (Some(EmptyReason::Wrong(message)), _) => self.problem(&message),
            (Some(EmptyReason::Expected(message)), DatabaseState::Missing) if is_named => {
                self.problem(&message)
            }
            (Some(EmptyReason::Expected(message)), state) => self.line(state.as_str(), &message),
            (None, _) => match &source.place {
                Place::Database(path) if locate::has_old_store(path) => {
                    self.line("note", OLD_STORE_NOTE)
                }
                _ => Ok(()),
            },
        }
    }

    fn write_sizes(&mut self, files: &DatabaseFiles) -> io::Result<()> {
        let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len());
        match (size(&files.main), size(&files.log)) {
            (Ok(database), Ok(log)) => {
                self.line("size", &format!("{database} bytes, and {log} in its log"))
            }
            (Ok(database), Err(_)) => self.line("size", &format!("{database} bytes, no log")),
            (Err(_), _) => Ok(()),
        }
    }

    fn write_listing(&mut self, listing: &Listing) -> io::Result<()> {
        let end = &listing.end;
        if listing.helper_version != VERSION {
            let text = format!(
                "the remote helper is version {}, this program is version {VERSION}",
                listing.helper_version
            );
            self.line("note", &text)?;
        }
        if end.database == DatabaseState::Ready {
            let sessions = match end.sessions {
                1 => "1 session".to_owned(),
                count => format!("{count} sessions"),
            };
            let text = format!(
                "{sessions}, archived ones and children too, read in {} ms from {}",
                end.elapsed_ms,
                end.tables.join(" and "),
            );
            self.line("ok", &text)?;
        }
        match end.skipped.invalid_id {
            0 => Ok(()),
            rows => self.line(
                "note",
                &format!("rows without a valid id, left out: {rows}"),
            ),
        }
    }
}

/// The size of a database's header.
const HEADER_BYTES: u64 = 100;

/// Returns whether the log of the database can be elsewhere.
///
/// Opens the file. In a process with a connection to the database, closing it would release
/// SQLite's locks; this process has none.
fn log_can_be_elsewhere(files: &DatabaseFiles) -> io::Result<bool> {
    let file = File::open(&files.main)?;
    let metadata = file.metadata()?;
    let mut header = Vec::new();
    file.take(HEADER_BYTES).read_to_end(&mut header)?;
    Ok(files.log_can_be_elsewhere(&header, &metadata))
}
