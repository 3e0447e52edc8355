//! `opencode-sessions doctor`: what there is, whether it can be read, and what to do
//! where it cannot.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::sources::{Chosen, NoSources, SourceArgs, WhyEmpty, source_lister, written_of};
use super::status::places;
use super::streams::results;
use super::waiting::Waiting;
use super::{DeadlineArgs, FAILED, process_lister};
use crate::lister::{Cancel, ListRequest, Outcome, until};
use crate::locate::DatabaseFiles;
use crate::locate::aliases;
use crate::locate::{self, Program};
use crate::query::{self, LOG_ELSEWHERE, OLD_STORE};
use crate::service::SourcePlace;
use crate::service::client::{self, Client, ConnectError};
use crate::source::{self, Place, Source};
use crate::text::{DisplayPath, format_duration, name_line};
use crate::wire::{DatabaseState, Listing, VERSION, notes};

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    sources: SourceArgs,

    #[command(flatten)]
    deadline: DeadlineArgs,

    /// The helper [default: the opencode-lister beside this program]
    #[arg(long, value_name = "PATH")]
    lister: Option<PathBuf>,
}

pub(super) fn run(args: &DoctorArgs) -> io::Result<u8> {
    let mut report = Report {
        out: results(),
        is_ill: false,
    };
    report.programs(args)?;
    match args.sources.choose() {
        Ok(chosen) => {
            report.sources(args, &chosen)?;
            if args.sources.uses_config() {
                report.forks(&chosen)?;
            }
        }
        Err(none @ NoSources::InMemory) => report.line("note", none.why())?,
        Err(none) => report.wrong(none.why())?,
    }
    report.out.flush()?;
    Ok(if report.is_ill { FAILED } else { 0 })
}

struct Report<W> {
    out: W,
    /// Something is wrong.
    is_ill: bool,
}

impl<W: Write> Report<W> {
    fn line(&mut self, what: &str, text: &str) -> io::Result<()> {
        writeln!(self.out, "{what:<9} {}", name_line(text))
    }

    fn wrong(&mut self, text: &str) -> io::Result<()> {
        self.is_ill = true;
        self.line("WRONG", text)
    }

    fn programs(&mut self, args: &DoctorArgs) -> io::Result<()> {
        self.line("program", &format!("version {VERSION}"))?;
        match process_lister(args.lister.as_deref()) {
            Ok(helper) => {
                let program = helper
                    .program()
                    .map(|program| DisplayPath(program).to_string());
                self.line("helper", &program.unwrap_or_default())?;
            }
            Err(failure) => self.wrong(&failure.to_string())?,
        }
        match args.sources.config_file() {
            Some(path) if path.exists() => self.line("config", &DisplayPath(&path).to_string()),
            Some(path) => self.line("config", &format!("none at {}", DisplayPath(&path))),
            None => self.line("config", "none: there is no home directory"),
        }
    }

    fn service(&mut self, sources: &[Source]) -> io::Result<()> {
        let until = Instant::now() + client::PATIENCE;
        let service = match Client::find(&places(None), until) {
            Ok(service) => service,
            Err(ConnectError::None) => return self.line("service", "none is running"),
            Err(why) => return self.wrong(&why.to_string()),
        };
        let hello = service.hello();
        let which = match SourcePlace::are(&hello.sources, sources) {
            true => "with these sources",
            false => "with other sources; SIGHUP makes it read the configuration again",
        };
        let sentence = format!(
            "version {} is running as process {}, {which}",
            hello.version, hello.pid
        );
        self.line("service", &sentence)
    }

    fn sources(&mut self, args: &DoctorArgs, chosen: &Chosen) -> io::Result<()> {
        let sources = &chosen.sources;
        self.service(sources)?;
        let Ok(helper) = process_lister(args.lister.as_deref()) else {
            return Ok(());
        };
        let source_lister = source_lister(sources, &helper);
        // A source can take its time, and what is known is of use until then.
        self.out.flush()?;
        let until = until(args.deadline.deadline);
        let waiting = Waiting::begin(sources.iter().map(|source| &source.name), until);
        let request = |source: &Source| ListRequest {
            db: source.db(),
            marker: None,
            children: true,
            archived: true,
            deadline: args.deadline.deadline,
            scan_cache: None,
            scan_budget: None,
            first_prompt_limit: crate::wire::limits::FIRST_PROMPT,
            cancel: Cancel::default(),
            known: None,
        };
        let outcomes = query::list(&source_lister, request, |source| {
            waiting.is_there(&source.name)
        });
        drop(waiting);
        let programs = chosen.config.programs.iter();
        let located: Vec<_> = programs
            .map(|program| locate::databases_of(*program))
            .collect();
        let found = source::sources_of(&written_of(&located));
        for (source, outcome) in sources.iter().zip(outcomes) {
            writeln!(self.out)?;
            // Where nobody asked for it by name it may well be missing.
            let is_named = !found.iter().any(|found| found.place == source.place);
            self.source(chosen, source, outcome, is_named)?;
        }
        Ok(())
    }

    /// The databases of forks that are there and are not listed.
    fn forks(&mut self, chosen: &Chosen) -> io::Result<()> {
        let mut programs = chosen.config.programs.clone();
        let mut unlisted = Vec::new();
        for fork in Program::ALL
            .into_iter()
            .filter(|one| *one != Program::OpenCode)
        {
            let there = aliases::databases(&written_of(&[locate::databases_of(fork)])).into_iter();
            let there = there.filter(|database| database.exists == Some(true));
            let is_listed = |path: &Path| {
                let mut sources = chosen.sources.iter();
                sources.any(|one| matches!(&one.place, Place::Database(listed) if listed == path))
            };
            let new: Vec<_> = there.filter(|one| !is_listed(&one.path)).collect();
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
            let sentence = format!(
                "the database of {fork} at {} is not listed; to list it, write `discover = [{names}]` \
                 in the configuration",
                DisplayPath(&path)
            );
            self.line("note", &sentence)?;
        }
        Ok(())
    }

    fn source(
        &mut self,
        chosen: &Chosen,
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
            failure => return self.wrong(&failure.to_string()),
        };
        let mut log_elsewhere = listing.end.log_elsewhere;
        // The disk answers.
        if let Place::Database(path) = &source.place {
            let files = DatabaseFiles::of_canonical(path.clone());
            self.files(&files)?;
            log_elsewhere |= log_can_be_elsewhere(&files).unwrap_or(false);
        }
        if log_elsewhere {
            self.line("warning", LOG_ELSEWHERE)?;
        }
        // Where its log can be was said.
        for note in notes(&listing.end.degraded, false) {
            self.line("warning", &note)?;
        }
        self.listing(&listing)?;
        let state = listing.end.database;
        match (chosen.why_empty(source, &listing.end), state) {
            (Some(WhyEmpty::Wrong(why)), _) => self.wrong(&why),
            (Some(WhyEmpty::Fine(why)), DatabaseState::Missing) if is_named => self.wrong(&why),
            (Some(WhyEmpty::Fine(why)), state) => self.line(state.as_str(), &why),
            (None, _) => match &source.place {
                Place::Database(path) if locate::has_old_store(path) => {
                    self.line("note", OLD_STORE)
                }
                _ => Ok(()),
            },
        }
    }

    fn files(&mut self, files: &DatabaseFiles) -> io::Result<()> {
        let size = |path: &Path| fs::metadata(path).map(|about| about.len());
        match (size(&files.main), size(&files.log)) {
            (Ok(database), Ok(log)) => {
                self.line("size", &format!("{database} bytes, and {log} in its log"))
            }
            (Ok(database), Err(_)) => self.line("size", &format!("{database} bytes, no log")),
            (Err(_), _) => Ok(()),
        }
    }

    fn listing(&mut self, listing: &Listing) -> io::Result<()> {
        let end = &listing.end;
        if listing.lister != VERSION {
            let sentence = format!(
                "the helper there is version {}, this is version {VERSION}",
                listing.lister
            );
            self.line("note", &sentence)?;
        }
        if end.database == DatabaseState::Ready {
            let sessions = match end.sessions {
                1 => "1 session".to_owned(),
                count => format!("{count} sessions"),
            };
            let sentence = format!(
                "{sessions}, archived ones and children too, read in {} ms from {}",
                end.elapsed_ms,
                end.tables.join(" and "),
            );
            self.line("ok", &sentence)?;
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

/// The size of a database's header, in bytes.
const HEADER: u64 = 100;

/// This process has no connection to the database, so it may open and close the file.
fn log_can_be_elsewhere(files: &DatabaseFiles) -> io::Result<bool> {
    let file = File::open(&files.main)?;
    let about = file.metadata()?;
    let mut header = Vec::new();
    file.take(HEADER).read_to_end(&mut header)?;
    Ok(files.log_can_be_elsewhere(&header, &about))
}
