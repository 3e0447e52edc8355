//! The sources of a command: those named with `--db`, else those of the configuration file,
//! else the databases that are discovered.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, Config, ConfiguredSource};
use crate::dirs;
use crate::launch::ProcessLister;
use crate::locate::aliases;
use crate::locate::{self, Located};
use crate::query::{self, OLD_STORE_NOTE, SourceLister};
use crate::source::{Place, Source};
use crate::text::DisplayPath;
use crate::wire::{DatabaseState, End};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct SourceArgs {
    /// A database; may be given more than once [default: the sources of the configuration file, else OpenCode's own: OPENCODE_DB, else opencode.db and every opencode-*.db in the data directory]
    #[arg(long, value_name = "PATH")]
    db: Vec<PathBuf>,

    /// The configuration file [default: opencode-sessions/config.toml in $XDG_CONFIG_HOME or ~/.config, if it exists]
    #[arg(long, value_name = "FILE", conflicts_with = "db")]
    config: Option<PathBuf>,
}

/// Why no sources can be selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SelectionError {
    /// OpenCode keeps its sessions in memory. Nothing is wrong, but no database can be read.
    #[error(
        "OPENCODE_DB is :memory:, so OpenCode stores no sessions that can be read (name a \
         database with --db)"
    )]
    InMemory,
    /// The directory of OpenCode's databases is unknown.
    #[error("no home directory, so OpenCode's database cannot be found (name it with --db)")]
    NoHome,
    /// The configuration is not valid. Holds the message.
    #[error("{0}")]
    Config(String),
}

/// The selected sources, and the configuration that they come from.
#[derive(Debug, Clone)]
pub(super) struct SourceSelection {
    pub(super) config: Config,
    pub(super) sources: Vec<Source>,
    /// Whether `--db` names them.
    is_explicit: bool,
}

/// Why a source has no sessions. Holds the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EmptyReason {
    /// OpenCode has not created its database or its first session yet.
    Expected(String),
    /// The named file does not exist, or is not a database of OpenCode.
    Wrong(String),
}

impl SourceSelection {
    /// Returns why a source whose listing ended with `end` has no sessions; `None` if it can
    /// have sessions.
    pub(super) fn empty_reason(&self, source: &Source, end: &End) -> Option<EmptyReason> {
        let path = match &source.place {
            Place::Database(path) => Some(path),
            Place::Remote(_) => None,
        };
        let old_store_note = |path: &PathBuf| match locate::has_old_store(path) {
            true => format!("; {OLD_STORE_NOTE}"),
            false => String::new(),
        };
        match (end.database, path) {
            (DatabaseState::Missing, Some(path)) if self.is_explicit => {
                Some(EmptyReason::Wrong(format!(
                    "no database at {} (check the path that --db names){}",
                    DisplayPath(path),
                    old_store_note(path)
                )))
            }
            (DatabaseState::Missing, Some(path))
                if locate::is_named_by_environment(&source.written) =>
            {
                Some(EmptyReason::Expected(format!(
                    "OPENCODE_DB names {}, which does not exist{}",
                    DisplayPath(path),
                    old_store_note(path)
                )))
            }
            (state, _) => match query::foreign_database_message(source, &end.other_tables) {
                Some(message) => Some(EmptyReason::Wrong(message)),
                None => query::empty_message(source, state).map(EmptyReason::Expected),
            },
        }
    }

    /// Returns true if there is more than one source, so that output and messages must name
    /// the source.
    pub(super) fn has_several(&self) -> bool {
        self.sources.len() > 1
    }
}

impl SourceArgs {
    /// Selects the sources as the configuration and the disk are now.
    pub(super) fn select(&self) -> Result<SourceSelection, SelectionError> {
        let config = self.config().map_err(SelectionError::Config)?;
        let sources = sources(config.clone())?;
        Ok(SourceSelection {
            config,
            sources,
            is_explicit: !self.uses_config(),
        })
    }

    /// Returns the configuration; a database that `--db` names becomes a source of one.
    fn config(&self) -> Result<Config, String> {
        if !self.db.is_empty() {
            let named = self.db.iter().map(|path| ConfiguredSource {
                name: None,
                place: Place::Database(path.clone()),
            });
            return Ok(Config {
                sources: named.collect(),
                discover: false,
                programs: Vec::new(),
            });
        }
        let config = match self.config_file() {
            Some(path) => load(&path)?,
            None => None,
        };
        match (config, &self.config) {
            (Some(config), _) => Ok(config),
            (None, Some(named)) => Err(format!("no configuration at {}", DisplayPath(named))),
            (None, None) => Ok(Config::default()),
        }
    }

    /// Returns true if the configuration file applies: `--db` replaces it.
    pub(super) fn uses_config(&self) -> bool {
        self.db.is_empty()
    }

    /// Returns the path of the configuration file, which need not exist.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        match &self.config {
            Some(named) => Some(named.clone()),
            None => Some(dirs::config_dir()?.join("config.toml")),
        }
    }
}

fn load(path: &Path) -> Result<Option<Config>, String> {
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    config::load(path, home.as_deref()).map_err(|error| error.to_string())
}

/// Returns the sources of a configuration as the disk is now. A discovered database that does
/// not exist is a source only if there is no other source.
fn sources(config: Config) -> Result<Vec<Source>, SelectionError> {
    let located = located(&config);
    let mut found = paths_of(&located);
    if !config.sources.is_empty() || found.len() > 1 {
        let existing = existing_paths(&found);
        found = match config.sources.is_empty() && existing.is_empty() {
            true => found.into_iter().take(1).collect(),
            false => existing,
        };
    }
    let sources = config.sources(&found);
    match sources.is_empty() {
        false => Ok(sources),
        true if located.contains(&Located::InMemory) => Err(SelectionError::InMemory),
        true => Err(SelectionError::NoHome),
    }
}

/// Returns the sources that the configuration names, and the discovered databases that exist.
pub(super) fn existing_sources(config: Config) -> Vec<Source> {
    let found = existing_paths(&paths_of(&located(&config)));
    config.sources(&found)
}

/// Returns where the databases of the programs of a configuration are.
pub(super) fn located(config: &Config) -> Vec<Located> {
    let programs = config.programs.iter();
    programs
        .map(|program| locate::databases_of(*program))
        .collect()
}

/// Returns all paths of these databases.
pub(super) fn paths_of(located: &[Located]) -> Vec<PathBuf> {
    let databases = located.iter().flat_map(|located| match located {
        Located::At(databases) => databases.as_slice(),
        Located::InMemory | Located::NoHome => &[],
    });
    databases
        .flat_map(|database| database.written.clone())
        .collect()
}

/// Returns the paths whose file exists, or may exist because the disk does not answer.
fn existing_paths(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut databases = aliases::databases(paths);
    databases.retain(|database| database.exists != Some(false));
    databases
        .into_iter()
        .flat_map(|database| database.written)
        .collect()
}

/// Returns the listers of these sources: the helper, or the command of each source.
pub(super) fn source_listers(sources: &[Source], helper: &ProcessLister) -> Vec<SourceLister> {
    let source_listers = sources.iter().map(|source| SourceLister {
        source: source.clone(),
        lister: Arc::new(helper.of(source)),
    });
    source_listers.collect()
}
