//! `opencode-sessions doctor`: what there is, whether it can be read, and what to do
//! where it cannot.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::list::{OLD_STORE, hint};
use super::sources::{SourceArgs, reached};
use super::status::places;
use super::{DeadlineArgs, FAILED, process_lister};
use crate::gather;
use crate::lister::{Cancel, ListRequest, Outcome};
use crate::locate;
use crate::service::SourcePlace;
use crate::service::client::Client;
use crate::source::{Place, Source};
use crate::text::{Shown, one_line};
use crate::wire::{DatabaseState, Listing, VERSION};

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
        out: io::stdout().lock(),
        is_ill: false,
    };
    report.head(args)?;
    report.sources(args)?;
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
        writeln!(self.out, "{what:<9} {}", one_line(text))
    }

    fn wrong(&mut self, text: &str) -> io::Result<()> {
        self.is_ill = true;
        self.line("WRONG", text)
    }

    /// What does not belong to one source.
    fn head(&mut self, args: &DoctorArgs) -> io::Result<()> {
        self.line("program", &format!("version {VERSION}"))?;
        match process_lister(args.lister.as_deref()) {
            Ok(helper) => {
                let program = helper.program().map(|program| Shown(program).to_string());
                self.line("helper", &program.unwrap_or_default())?;
            }
            Err(breakage) => self.wrong(&breakage.to_string())?,
        }
        match args.sources.config_file() {
            Some(path) if path.exists() => self.line("config", &Shown(&path).to_string())?,
            Some(path) => {
                let sentence = format!("none: {} is not there", Shown(&path));
                self.line("config", &sentence)?;
            }
            None => self.line("config", "none: there is no home directory")?,
        }
        if let Some(db) = std::env::var_os("OPENCODE_DB") {
            let sentence = format!("OPENCODE_DB is {}", Shown(Path::new(&db)));
            self.line("note", &sentence)?;
        }
        Ok(())
    }

    fn service(&mut self, sources: &[Source]) -> io::Result<()> {
        let Some(service) = Client::connect(&places(None)) else {
            return self.line("service", "none is running");
        };
        let hello = service.hello();
        let which = match SourcePlace::are(&hello.sources, sources) {
            true => "these sources",
            false => "other sources",
        };
        let sentence = format!(
            "version {} is running as process {}, with {which}",
            hello.version, hello.pid
        );
        self.line("service", &sentence)
    }

    fn sources(&mut self, args: &DoctorArgs) -> io::Result<()> {
        let sources = match args.sources.sources() {
            Ok(sources) => sources,
            Err(none) => return self.wrong(none.why()),
        };
        self.service(&sources)?;
        let Ok(helper) = process_lister(args.lister.as_deref()) else {
            return Ok(());
        };
        let reached = reached(&sources, &helper);
        let outcomes = gather::list(&reached, |source| ListRequest {
            db: source.db(),
            marker: None,
            children: true,
            archived: true,
            deadline: args.deadline.deadline,
            scan_cache: None,
            scan_budget: None,
            cancel: Cancel::default(),
        });
        for (source, outcome) in sources.iter().zip(outcomes) {
            writeln!(self.out)?;
            self.source(source, outcome)?;
        }
        Ok(())
    }

    fn source(&mut self, source: &Source, outcome: Outcome) -> io::Result<()> {
        self.line("source", source.name.as_str())?;
        match &source.place {
            Place::Database(path) => {
                self.line("database", &Shown(path).to_string())?;
                self.files(path)?;
            }
            Place::Remote(remote) => {
                self.line("command", &source.place.to_string())?;
                let every = format!("every {:?}", remote.every);
                self.line("asked", &every)?;
            }
        }
        match outcome {
            Outcome::Complete(listing) => self.listing(source, &listing)?,
            failure => self.wrong(&failure.to_string())?,
        }
        match &source.place {
            Place::Database(path) if locate::has_old_store(path) => self.line("note", OLD_STORE),
            _ => Ok(()),
        }
    }

    fn files(&mut self, database: &Path) -> io::Result<()> {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        let size = |path: &Path| fs::metadata(path).map(|about| about.len());
        match (size(database), size(Path::new(&log))) {
            (Ok(database), Ok(log)) => {
                self.line("size", &format!("{database} bytes, and {log} in its log"))
            }
            (Ok(database), Err(_)) => self.line("size", &format!("{database} bytes, no log")),
            (Err(_), _) => Ok(()),
        }
    }

    fn listing(&mut self, source: &Source, listing: &Listing) -> io::Result<()> {
        let end = &listing.end;
        if listing.lister != VERSION {
            let sentence = format!(
                "the helper there is version {}, this is version {VERSION}",
                listing.lister
            );
            self.line("note", &sentence)?;
        }
        match hint(source, end.database) {
            // Nothing can be read, but nothing is broken.
            Some(hint) if end.database == DatabaseState::Young => self.line("wait", &hint)?,
            Some(hint) => self.line("empty", &hint)?,
            None => {
                let sentence = format!(
                    "{} sessions with archived ones and children, of {}, read in {} ms",
                    end.sessions,
                    end.tables.join(" and "),
                    end.elapsed_ms
                );
                self.line("ok", &sentence)?;
            }
        }
        if end.skipped.invalid_id > 0 {
            let sentence = format!("{} rows have no valid id", end.skipped.invalid_id);
            self.line("note", &sentence)?;
        }
        Ok(())
    }
}
