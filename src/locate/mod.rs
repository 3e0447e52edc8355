//! Where OpenCode's databases are, when nobody says.
//!
//! As OpenCode does it (seen in versions 1.2.1 to 1.18.33):
//!
//! * `OPENCODE_DB`: an absolute path, a name in the data directory, or
//!   `:memory:`, where there is nothing to read;
//! * else `opencode.db` in the data directory, `$XDG_DATA_HOME/opencode`, by
//!   default `~/.local/share/opencode`, on every system;
//! * other release channels than latest, beta and prod use
//!   `opencode-<channel>.db` there, unless `OPENCODE_DISABLE_CHANNEL_DB` is `1`
//!   or `true`. A reader cannot know the channel, so every database there is one.
//!
//! Forks of OpenCode keep the same tables in `kilo/kilo.db` and `mimocode/mimocode.db`,
//! beside its data directory. They are looked for only if the configuration asks for them.

pub mod aliases;
mod database_files;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::text::DisplayPath;

use aliases::Database;
pub use database_files::DatabaseFiles;
pub(crate) use database_files::{is_missing, says_wal};

/// A program that keeps its sessions in OpenCode's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// OpenCode.
    OpenCode,
    /// The fork Kilo.
    Kilo,
    /// The fork MiMo Code.
    MimoCode,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OpenCode, Self::Kilo, Self::MimoCode];

    /// What it is called in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenCode => "opencode",
            Self::Kilo => "kilo",
            Self::MimoCode => "mimocode",
        }
    }

    /// The program of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.name() == name)
    }
}

/// What the environment says about a program's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// They should be here, the usual one first, each once under whatever names, whether
    /// or not there is a file. At least one.
    At(Vec<Database>),
    /// The program keeps it in memory (`OPENCODE_DB=:memory:`).
    InMemory,
    /// There is neither `XDG_DATA_HOME` nor a home directory.
    NoHome,
}

/// The environment variables that decide.
#[derive(Debug, Clone, Default)]
struct Environment {
    opencode_db: Option<OsString>,
    xdg_data_home: Option<OsString>,
    home: Option<PathBuf>,
    no_channels: bool,
}

/// The databases of OpenCode in this process's environment.
#[must_use]
pub fn databases() -> Located {
    databases_of(Program::OpenCode)
}

/// The databases of this program in this process's environment.
#[must_use]
pub fn databases_of(program: Program) -> Located {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let environment = Environment {
        opencode_db: set("OPENCODE_DB"),
        xdg_data_home: set("XDG_DATA_HOME"),
        home: env::home_dir().filter(|home| !home.as_os_str().is_empty()),
        no_channels: set("OPENCODE_DISABLE_CHANNEL_DB")
            .is_some_and(|value| value == "1" || value == "true"),
    };
    match program {
        Program::OpenCode => locate(&environment),
        Program::Kilo | Program::MimoCode => locate_fork(&environment, program.name()),
    }
}

/// Whether the environment names a database by one of these paths, as they were written,
/// so that OpenCode uses no other.
#[must_use]
pub fn is_named_by_environment(written: &[PathBuf]) -> bool {
    let is_set = env::var_os("OPENCODE_DB").is_some_and(|value| !value.is_empty());
    is_set
        && match databases() {
            Located::At(databases) => databases
                .iter()
                .any(|one| written.iter().any(|path| path == one.read_by())),
            Located::InMemory | Located::NoHome => false,
        }
}

/// The database to read where only one can be; `None` where there is nothing to read.
///
/// # Errors
///
/// Where there are several: which one is taken must not depend on which was written to
/// last, since to whoever asks again the sessions of the other would be gone.
pub fn one_database() -> Result<Option<PathBuf>, SeveralDatabases> {
    match databases() {
        Located::At(databases) => one_of(&databases),
        Located::InMemory | Located::NoHome => Ok(None),
    }
}

fn one_of(databases: &[Database]) -> Result<Option<PathBuf>, SeveralDatabases> {
    let mut paths = databases.iter().map(|one| one.read_by().to_owned());
    match databases.len() {
        0 | 1 => Ok(paths.next()),
        _ => Err(SeveralDatabases(paths.collect())),
    }
}

/// There are several databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeveralDatabases(Vec<PathBuf>);

impl std::error::Error for SeveralDatabases {}

impl fmt::Display for SeveralDatabases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self
            .0
            .iter()
            .map(|path| DisplayPath(path).to_string())
            .collect();
        write!(
            f,
            "there are several databases, {}: name one with --db, or for a command with `db` in the \
             configuration",
            paths.join(", ")
        )
    }
}

/// The name of the usual database.
const USUAL: &str = "opencode.db";

/// True where the JSON files of OpenCode 1.1 and earlier are beside the database at
/// `db`, which hold sessions that this crate does not read.
#[must_use]
pub fn has_old_store(db: &Path) -> bool {
    let store = db.with_file_name("storage").join("session");
    // A directory for each project.
    fs::read_dir(store).is_ok_and(|mut projects| projects.next().is_some())
}

fn locate(environment: &Environment) -> Located {
    let named = environment.opencode_db.as_deref();
    if named.is_some_and(|name| name == ":memory:") {
        return Located::InMemory;
    }
    if let Some(path) = named.map(Path::new).filter(|path| path.is_absolute()) {
        return Located::At(vec![Database::as_written(path)]);
    }
    let Some(data_home) = data_home(environment) else {
        return Located::NoHome;
    };
    let directory = data_home.join("opencode");
    if let Some(name) = named {
        return Located::At(vec![Database::as_written(&directory.join(name))]);
    }
    let usual = directory.join(USUAL);
    let channels = match environment.no_channels {
        true => Vec::new(),
        false => channels(&directory),
    };
    if channels.is_empty() {
        return Located::At(vec![Database::as_written(&usual)]);
    }
    let mut all = vec![usual.clone()];
    all.extend(channels);
    let mut databases = aliases::databases(&all);
    // A link that leads nowhere is no database, and neither is the usual one where only
    // another channel has been used.
    databases.retain(|database| database.is_there != Some(false));
    if databases.is_empty() {
        databases.push(Database::as_written(&usual));
    }
    Located::At(databases)
}

/// A fork has one database, of its own name.
fn locate_fork(environment: &Environment, name: &str) -> Located {
    match data_home(environment) {
        Some(home) => {
            let path = home.join(name).join(format!("{name}.db"));
            Located::At(vec![Database::as_written(&path)])
        }
        None => Located::NoHome,
    }
}

fn data_home(environment: &Environment) -> Option<PathBuf> {
    match (&environment.xdg_data_home, &environment.home) {
        (Some(data_home), _) => Some(PathBuf::from(data_home)),
        (None, Some(home)) => Some(home.join(".local/share")),
        (None, None) => None,
    }
}

/// Every `opencode-<channel>.db`, by name.
fn channels(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut channels: Vec<_> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.strip_prefix("opencode-")
                .is_some_and(|rest| rest.len() > 3 && rest.ends_with(".db"))
        })
        .map(|entry| entry.path())
        .collect();
    channels.sort();
    channels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(db: Option<&str>, xdg: Option<&str>, home: Option<&str>) -> Environment {
        Environment {
            opencode_db: db.map(Into::into),
            xdg_data_home: xdg.map(Into::into),
            home: home.map(Into::into),
            no_channels: false,
        }
    }

    #[test]
    fn every_variable_has_its_say() {
        let usual = "/h/.local/share/opencode/opencode.db";
        for (db, xdg, home, expected) in [
            (None, None, Some("/h"), Some(usual)),
            (
                None,
                Some("/x"),
                Some("/h"),
                Some("/x/opencode/opencode.db"),
            ),
            (
                Some("/abs/my.db"),
                Some("/x"),
                Some("/h"),
                Some("/abs/my.db"),
            ),
            (Some("/abs/my.db"), None, None, Some("/abs/my.db")),
            (
                Some("my.db"),
                Some("/x"),
                Some("/h"),
                Some("/x/opencode/my.db"),
            ),
            (
                Some("my.db"),
                None,
                Some("/h"),
                Some("/h/.local/share/opencode/my.db"),
            ),
        ] {
            let located = locate(&environment(db, xdg, home));
            let expected = expected.map(|path| Database::as_written(Path::new(path)));
            assert_eq!(located, Located::At(expected.into_iter().collect()));
        }
        assert_eq!(
            locate(&environment(Some(":memory:"), None, None)),
            Located::InMemory
        );
        assert_eq!(locate(&environment(None, None, None)), Located::NoHome);
    }

    #[test]
    fn every_channel_is_found_beside_the_usual_database() {
        let data = tempfile::tempdir().unwrap();
        let directory = data.path().join("opencode");
        fs::create_dir(&directory).unwrap();
        let environment = Environment {
            xdg_data_home: Some(data.path().into()),
            ..Environment::default()
        };
        let at = |environment: &Environment| match locate(environment) {
            Located::At(databases) => databases,
            other => panic!("{other:?}"),
        };
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let named = |databases: Vec<Database>| {
            databases
                .iter()
                .map(|one| name(one.read_by()))
                .collect::<Vec<_>>()
        };
        let touch = |name: &str| fs::write(directory.join(name), "").unwrap();
        let one = || one_of(&at(&environment)).map(|one| one.map(|path| name(&path)));
        assert_eq!(named(at(&environment)), [USUAL]);
        touch("opencode-.db");
        assert_eq!(named(at(&environment)), [USUAL], "a channel has a name");
        assert_eq!(one().unwrap().as_deref(), Some(USUAL));
        touch("opencode-local.db");
        assert_eq!(one().unwrap().as_deref(), Some("opencode-local.db"));
        touch("opencode-dev.db");
        assert_eq!(
            named(at(&environment)),
            ["opencode-dev.db", "opencode-local.db"]
        );
        let several = one().unwrap_err().to_string();
        assert!(
            several.contains("opencode-dev.db, ") && several.contains("--db"),
            "{several}"
        );
        let alone = Environment {
            no_channels: true,
            ..environment.clone()
        };
        assert_eq!(named(at(&alone)), [USUAL]);
        touch(USUAL);
        assert_eq!(
            named(at(&environment)),
            [USUAL, "opencode-dev.db", "opencode-local.db"]
        );
        assert!(one().is_err());
        let set = Environment {
            opencode_db: Some("opencode-dev.db".into()),
            ..environment.clone()
        };
        assert_eq!(named(at(&set)), ["opencode-dev.db"]);
    }

    #[test]
    fn a_channel_that_is_a_link_counts_where_it_leads() {
        use std::os::unix::fs::symlink;
        // The link, what is there, and what is found.
        for (link, files, expected) in [
            ("opencode.db", &[USUAL][..], &[USUAL][..]),
            ("opencode.db", &[], &[USUAL]),
            ("none.db", &[USUAL], &[USUAL]),
            ("none.db", &[], &[USUAL]),
            ("opencode-a.db", &[USUAL], &[USUAL]),
            ("other.db", &["other.db"], &["opencode-a.db"]),
            ("other.db", &["other.db", USUAL], &[USUAL, "opencode-a.db"]),
            ("opencode-b.db", &["opencode-b.db"], &["opencode-a.db"]),
        ] {
            let data = tempfile::tempdir().unwrap();
            let directory = data.path().join("opencode");
            fs::create_dir(&directory).unwrap();
            for file in files {
                fs::write(directory.join(file), "").unwrap();
            }
            symlink(link, directory.join("opencode-a.db")).unwrap();
            let environment = Environment {
                xdg_data_home: Some(data.path().into()),
                ..Environment::default()
            };
            let Located::At(found) = locate(&environment) else {
                panic!("nothing is found");
            };
            let expected: Vec<_> = expected.iter().map(|name| directory.join(name)).collect();
            let found: Vec<_> = found.iter().map(Database::read_by).collect();
            assert_eq!(found, expected, "{link} {files:?}");
        }
    }
}
