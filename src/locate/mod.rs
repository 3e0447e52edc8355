//! Locates OpenCode's databases if none is named.
//!
//! The rules are those of OpenCode (observed in versions 1.2.1 to 1.18.33):
//!
//! * `OPENCODE_DB` is an absolute path, a name in the data directory, or `:memory:`; with the
//!   last there is no database to read.
//! * Otherwise the database is `opencode.db` in the data directory, `$XDG_DATA_HOME/opencode`,
//!   by default `~/.local/share/opencode`, on every system.
//! * Release channels other than latest, beta and prod use `opencode-<channel>.db` there,
//!   unless `OPENCODE_DISABLE_CHANNEL_DB` is `1` or `true`. The channel in use is unknown, so
//!   every such database counts.
//!
//! Forks of OpenCode use the same tables in `kilo/kilo.db` and `mimocode/mimocode.db`, next to
//! OpenCode's data directory. These are located only if the configuration requests them.

pub(crate) mod aliases;
mod database_files;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::text::DisplayPath;

use aliases::Database;
pub(crate) use database_files::DatabaseFiles;
pub(crate) use database_files::{is_missing, is_wal_header, normalize};

/// A program that stores its sessions in OpenCode's tables.
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
    /// All programs.
    pub const ALL: [Self; 3] = [Self::OpenCode, Self::Kilo, Self::MimoCode];

    /// Returns the name of the program in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenCode => "opencode",
            Self::Kilo => "kilo",
            Self::MimoCode => "mimocode",
        }
    }

    /// Returns the program with this name in the configuration.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.name() == name)
    }
}

/// The locations of a program's databases, as determined by the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Located {
    /// The databases, the default one first; never empty. A database with several names is
    /// listed once. The files need not exist.
    At(Vec<Database>),
    /// The program keeps its database in memory (`OPENCODE_DB=:memory:`).
    InMemory,
    /// Neither `XDG_DATA_HOME` nor a home directory is set.
    NoHome,
}

/// The environment variables that determine the locations.
#[derive(Debug, Clone, Default)]
struct Environment {
    opencode_db: Option<OsString>,
    xdg_data_home: Option<OsString>,
    home: Option<PathBuf>,
    no_channels: bool,
}

/// Locates OpenCode's databases in the environment of this process.
#[must_use]
pub(crate) fn databases() -> Located {
    databases_of(Program::OpenCode)
}

/// Locates the databases of `program` in the environment of this process.
#[must_use]
pub(crate) fn databases_of(program: Program) -> Located {
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

/// Returns true if the environment names a database by one of these paths, compared without
/// resolving them. OpenCode then uses no other database.
#[must_use]
pub(crate) fn is_named_by_environment(written: &[PathBuf]) -> bool {
    let is_set = env::var_os("OPENCODE_DB").is_some_and(|value| !value.is_empty());
    is_set
        && match databases() {
            Located::At(databases) => databases
                .iter()
                .any(|database| written.iter().any(|path| path == database.primary_path())),
            Located::InMemory | Located::NoHome => false,
        }
}

/// Returns the path of OpenCode's only database; `None` if there is none to read.
///
/// # Errors
///
/// Returns an error if several databases are located. Taking the one written to last, for
/// example, would make the sessions of the other disappear in the next listing.
pub(crate) fn one_database() -> Result<Option<PathBuf>, AmbiguousDatabase> {
    match databases() {
        Located::At(databases) => one_of(&databases),
        Located::InMemory | Located::NoHome => Ok(None),
    }
}

fn one_of(databases: &[Database]) -> Result<Option<PathBuf>, AmbiguousDatabase> {
    let mut paths = databases
        .iter()
        .map(|database| database.primary_path().to_owned());
    match databases.len() {
        0 | 1 => Ok(paths.next()),
        _ => Err(AmbiguousDatabase(paths.collect())),
    }
}

/// Several databases were located where only one may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AmbiguousDatabase(Vec<PathBuf>);

impl std::error::Error for AmbiguousDatabase {}

impl fmt::Display for AmbiguousDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self
            .0
            .iter()
            .map(|path| DisplayPath(path).to_string())
            .collect();
        write!(
            f,
            "several databases found, {}: name one with --db, or for a command with `db` in the \
             configuration",
            paths.join(", ")
        )
    }
}

/// The file name of the default database.
const DEFAULT_NAME: &str = "opencode.db";

/// Returns true if the JSON files of OpenCode 1.1 and earlier are next to the database at
/// `db`. They contain sessions that this crate does not read.
#[must_use]
pub(crate) fn has_old_store(db: &Path) -> bool {
    let store = db.with_file_name("storage").join("session");
    // It has one directory per project.
    fs::read_dir(store).is_ok_and(|mut projects| projects.next().is_some())
}

fn locate(environment: &Environment) -> Located {
    let named = environment.opencode_db.as_deref();
    if named.is_some_and(|name| name == ":memory:") {
        return Located::InMemory;
    }
    if let Some(path) = named.map(Path::new).filter(|path| path.is_absolute()) {
        return Located::At(vec![Database::unresolved(path)]);
    }
    let Some(data_home) = data_home(environment) else {
        return Located::NoHome;
    };
    let directory = data_home.join("opencode");
    if let Some(name) = named {
        return Located::At(vec![Database::unresolved(&directory.join(name))]);
    }
    let default = directory.join(DEFAULT_NAME);
    let channels = match environment.no_channels {
        true => Vec::new(),
        false => channel_databases(&directory),
    };
    if channels.is_empty() {
        return Located::At(vec![Database::unresolved(&default)]);
    }
    let mut all = vec![default.clone()];
    all.extend(channels);
    let mut databases = aliases::databases(&all);
    // Drops dangling links, and the default database if only other channels have been used.
    databases.retain(|database| database.exists != Some(false));
    if databases.is_empty() {
        databases.push(Database::unresolved(&default));
    }
    Located::At(databases)
}

/// Locates the database of a fork: one file, named after the fork.
fn locate_fork(environment: &Environment, name: &str) -> Located {
    match data_home(environment) {
        Some(home) => {
            let path = home.join(name).join(format!("{name}.db"));
            Located::At(vec![Database::unresolved(&path)])
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

/// Returns the paths of every `opencode-<channel>.db`, sorted by name.
fn channel_databases(directory: &Path) -> Vec<PathBuf> {
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
    fn environment_determines_the_location() {
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
            let expected = expected.map(|path| Database::unresolved(Path::new(path)));
            assert_eq!(located, Located::At(expected.into_iter().collect()));
        }
        assert_eq!(
            locate(&environment(Some(":memory:"), None, None)),
            Located::InMemory
        );
        assert_eq!(locate(&environment(None, None, None)), Located::NoHome);
    }

    #[test]
    fn channel_databases_are_found_beside_the_default_one() {
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
                .map(|one| name(one.primary_path()))
                .collect::<Vec<_>>()
        };
        let touch = |name: &str| fs::write(directory.join(name), "").unwrap();
        let one = || one_of(&at(&environment)).map(|one| one.map(|path| name(&path)));
        assert_eq!(named(at(&environment)), [DEFAULT_NAME]);
        touch("opencode-.db");
        assert_eq!(
            named(at(&environment)),
            [DEFAULT_NAME],
            "a channel has a name"
        );
        assert_eq!(one().unwrap().as_deref(), Some(DEFAULT_NAME));
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
        assert_eq!(named(at(&alone)), [DEFAULT_NAME]);
        touch(DEFAULT_NAME);
        assert_eq!(
            named(at(&environment)),
            [DEFAULT_NAME, "opencode-dev.db", "opencode-local.db"]
        );
        assert!(one().is_err());
        let set = Environment {
            opencode_db: Some("opencode-dev.db".into()),
            ..environment.clone()
        };
        assert_eq!(named(at(&set)), ["opencode-dev.db"]);
    }

    #[test]
    fn channel_link_counts_as_its_target() {
        use std::os::unix::fs::symlink;
        // The target of the link, the files, and the databases found.
        for (link, files, expected) in [
            ("opencode.db", &[DEFAULT_NAME][..], &[DEFAULT_NAME][..]),
            ("opencode.db", &[], &[DEFAULT_NAME]),
            ("none.db", &[DEFAULT_NAME], &[DEFAULT_NAME]),
            ("none.db", &[], &[DEFAULT_NAME]),
            ("opencode-a.db", &[DEFAULT_NAME], &[DEFAULT_NAME]),
            ("other.db", &["other.db"], &["opencode-a.db"]),
            (
                "other.db",
                &["other.db", DEFAULT_NAME],
                &[DEFAULT_NAME, "opencode-a.db"],
            ),
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
                panic!("no database is found");
            };
            let expected: Vec<_> = expected.iter().map(|name| directory.join(name)).collect();
            let found: Vec<_> = found.iter().map(Database::primary_path).collect();
            assert_eq!(found, expected, "{link} {files:?}");
        }
    }
}
