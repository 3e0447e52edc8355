//! Which sources a command is about: those named with `--db`, else those of the
//! configuration file, else what is found.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, Config, ConfiguredSource};
use crate::dirs;
use crate::launch::ProcessLister;
use crate::locate::aliases;
use crate::locate::{self, Located};
use crate::query::{self, OLD_STORE, SourceLister};
use crate::source::{Place, Source};
use crate::text::DisplayPath;
use crate::wire::{DatabaseState, End};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct SourceArgs {
    /// A database; may be given more than once [default: the sources of the configuration file, else OpenCode's own: OPENCODE_DB, else opencode.db and every opencode-*.db in the data directory]
    #[arg(long, value_name = "PATH")]
    db: Vec<PathBuf>,

    /// The configuration file [default: opencode-sessions/config.toml in $XDG_CONFIG_HOME or ~/.config, if it is there]
    #[arg(long, value_name = "FILE", conflicts_with = "db")]
    config: Option<PathBuf>,
}

/// Why there are no sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoSources {
    /// OpenCode keeps no file: there is nothing to read, and nothing wrong.
    InMemory,
    /// This is wrong.
    Because(String),
}

/// What to say where OpenCode keeps no file.
const IN_MEMORY: &str =
    "OPENCODE_DB is :memory:, so OpenCode keeps no sessions to read; name a database with --db";

/// What to say where nobody can know where the file is.
const NO_HOME: &str =
    "there is no home directory to look for OpenCode's database in; name it with --db";

impl NoSources {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::InMemory => IN_MEMORY,
            Self::Because(why) => why,
        }
    }
}

/// The sources there are now, and what they come from.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) config: Config,
    pub(super) sources: Vec<Source>,
    /// They were named with `--db`.
    are_named: bool,
}

/// Why a source has no sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WhyEmpty {
    /// That can be: OpenCode has not made its database yet.
    Fine(String),
    /// Somebody named what is no database of OpenCode.
    Wrong(String),
}

impl Chosen {
    /// Why a source whose listing ended so has no sessions; `None` where it can have some.
    pub(super) fn why_empty(&self, source: &Source, end: &End) -> Option<WhyEmpty> {
        let path = match &source.place {
            Place::Database(path) => Some(path),
            Place::Remote(_) => None,
        };
        let old = |path: &PathBuf| match locate::has_old_store(path) {
            true => format!("; {OLD_STORE}"),
            false => String::new(),
        };
        match (end.database, path) {
            (DatabaseState::Missing, Some(path)) if self.are_named => {
                Some(WhyEmpty::Wrong(format!(
                    "there is no database at {} (check the path that --db names){}",
                    DisplayPath(path),
                    old(path)
                )))
            }
            (DatabaseState::Missing, Some(path))
                if locate::is_named_by_environment(&source.written) =>
            {
                Some(WhyEmpty::Fine(format!(
                    "OPENCODE_DB names {}, which is not there{}",
                    DisplayPath(path),
                    old(path)
                )))
            }
            (state, _) => match query::why_another_programs(source, &end.other_tables) {
                Some(why) => Some(WhyEmpty::Wrong(why)),
                None => query::why_empty(source, state).map(WhyEmpty::Fine),
            },
        }
    }

    /// Whether there is more than one source, so that a session must say which it is of.
    pub(super) fn are_several(&self) -> bool {
        self.sources.len() > 1
    }
}

impl SourceArgs {
    /// The sources there are now.
    pub(super) fn choose(&self) -> Result<Chosen, NoSources> {
        let config = self.config().map_err(NoSources::Because)?;
        let sources = sources(config.clone())?;
        Ok(Chosen {
            config,
            sources,
            are_named: !self.uses_config(),
        })
    }

    /// What is to be the sources.
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
        let written = match self.config_file() {
            Some(path) => load(&path)?,
            None => None,
        };
        match (written, &self.config) {
            (Some(config), _) => Ok(config),
            (None, Some(named)) => Err(format!(
                "there is no configuration at {}",
                DisplayPath(named)
            )),
            (None, None) => Ok(Config::default()),
        }
    }

    /// Whether the configuration counts: `--db` stands for it.
    pub(super) fn uses_config(&self) -> bool {
        self.db.is_empty()
    }

    /// Where the configuration is, or would be.
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

/// The sources that this configuration comes to now.
pub(super) fn sources(config: Config) -> Result<Vec<Source>, NoSources> {
    let located = located(&config);
    let found = written_of(&located);
    let found = match (config.sources.len(), found.len()) {
        // What is not there is of interest where nothing else is.
        (0, 0 | 1) => found,
        (named, _) => match (named, there(&found)) {
            (0, there) if there.is_empty() => found.into_iter().take(1).collect(),
            (_, there) => there,
        },
    };
    let sources = config.sources(&found);
    match sources.is_empty() {
        false => Ok(sources),
        true if located.contains(&Located::InMemory) => Err(NoSources::InMemory),
        true => Err(NoSources::Because(NO_HOME.to_owned())),
    }
}

/// The sources that are written down, and the databases that are found and there.
pub(super) fn sources_there(config: Config) -> Vec<Source> {
    let found = there(&written_of(&located(&config)));
    config.sources(&found)
}

fn located(config: &Config) -> Vec<Located> {
    let programs = config.programs.iter();
    programs
        .map(|program| locate::databases_of(*program))
        .collect()
}

/// All paths of these databases.
pub(super) fn written_of(located: &[Located]) -> Vec<PathBuf> {
    let databases = located.iter().flat_map(|located| match located {
        Located::At(databases) => databases.as_slice(),
        Located::InMemory | Located::NoHome => &[],
    });
    databases
        .flat_map(|database| database.written.clone())
        .collect()
}

/// Those of these paths that lead to a file, or where the disk does not say.
fn there(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut databases = aliases::databases(paths);
    databases.retain(|database| database.exists != Some(false));
    databases
        .into_iter()
        .flat_map(|database| database.written)
        .collect()
}

/// What asks these sources: this helper, or their commands.
pub(super) fn source_lister(sources: &[Source], helper: &ProcessLister) -> Vec<SourceLister> {
    let source_lister = sources.iter().map(|source| SourceLister {
        source: source.clone(),
        lister: Arc::new(helper.of(source)),
    });
    source_lister.collect()
}
