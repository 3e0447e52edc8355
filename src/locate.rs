//! Where OpenCode's database is, when nobody says.
//!
//! As OpenCode does it (seen in versions 1.2.1 to 1.18.33):
//!
//! * `OPENCODE_DB`: an absolute path, a name in the data directory, or
//!   `:memory:`, where there is nothing to read;
//! * else `opencode.db` in the data directory, `$XDG_DATA_HOME/opencode`, by
//!   default `~/.local/share/opencode`, on every system;
//! * other release channels than latest, beta and prod use
//!   `opencode-<channel>.db` there, unless `OPENCODE_DISABLE_CHANNEL_DB` is `1`
//!   or `true`. A reader cannot know the channel. So where there is no
//!   `opencode.db`, the channel's database that was written to last is taken.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What the environment says about the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// It should be here, whether or not there is a file.
    At(PathBuf),
    /// OpenCode keeps it in memory (`OPENCODE_DB=:memory:`).
    InMemory,
    /// There is neither `XDG_DATA_HOME` nor a home directory.
    NoHome,
}

impl Located {
    /// The path, where there is one.
    #[must_use]
    pub fn path(self) -> Option<PathBuf> {
        match self {
            Self::At(path) => Some(path),
            Self::InMemory | Self::NoHome => None,
        }
    }
}

/// The environment variables that decide.
#[derive(Debug, Clone, Default)]
struct Environment {
    opencode_db: Option<OsString>,
    xdg_data_home: Option<OsString>,
    home: Option<PathBuf>,
    no_channels: bool,
}

/// The default database of this process's environment.
#[must_use]
pub fn default_database() -> Located {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    locate(&Environment {
        opencode_db: set("OPENCODE_DB"),
        xdg_data_home: set("XDG_DATA_HOME"),
        home: env::home_dir().filter(|home| !home.as_os_str().is_empty()),
        no_channels: set("OPENCODE_DISABLE_CHANNEL_DB")
            .is_some_and(|value| value == "1" || value == "true"),
    })
}

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
        return Located::At(path.to_owned());
    }
    let data_home = match (&environment.xdg_data_home, &environment.home) {
        (Some(data_home), _) => PathBuf::from(data_home),
        (None, Some(home)) => home.join(".local/share"),
        (None, None) => return Located::NoHome,
    };
    let directory = data_home.join("opencode");
    if let Some(name) = named {
        return Located::At(directory.join(name));
    }
    let usual = directory.join("opencode.db");
    if environment.no_channels || usual.exists() {
        return Located::At(usual);
    }
    Located::At(last_written_channel(&directory).unwrap_or(usual))
}

/// The `opencode-<channel>.db` that was written to last.
fn last_written_channel(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory)
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.strip_prefix("opencode-")
                .is_some_and(|rest| rest.len() > 3 && rest.ends_with(".db"))
        })
        .map(|entry| entry.path())
        .max_by_key(|path| (last_written(path), path.clone()))
}

/// New data is in the log first.
fn last_written(database: &Path) -> Option<SystemTime> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let written = |path: &Path| fs::metadata(path).and_then(|about| about.modified()).ok();
    written(database).max(written(Path::new(&log)))
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
            assert_eq!(
                located.clone().path(),
                expected.map(PathBuf::from),
                "{located:?}"
            );
        }
        assert_eq!(
            locate(&environment(Some(":memory:"), None, None)),
            Located::InMemory
        );
        assert_eq!(locate(&environment(None, None, None)), Located::NoHome);
    }

    #[test]
    fn without_the_usual_database_the_channel_written_last_is_taken() {
        let data = tempfile::tempdir().unwrap();
        let directory = data.path().join("opencode");
        fs::create_dir(&directory).unwrap();
        let environment = Environment {
            xdg_data_home: Some(data.path().into()),
            ..Environment::default()
        };
        let named = |environment: &Environment| {
            let path = locate(environment).path().unwrap();
            path.file_name().unwrap().to_string_lossy().into_owned()
        };
        let touch = |name: &str, seconds| {
            let file = fs::File::create(directory.join(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
                .unwrap();
        };
        assert_eq!(named(&environment), "opencode.db");
        touch("opencode-.db", 99);
        assert_eq!(named(&environment), "opencode.db", "a channel has a name");
        touch("opencode-dev.db", 20);
        touch("opencode-local.db", 10);
        assert_eq!(named(&environment), "opencode-dev.db");
        touch("opencode-local.db-wal", 30);
        assert_eq!(named(&environment), "opencode-local.db");
        let alone = Environment {
            no_channels: true,
            ..environment.clone()
        };
        assert_eq!(named(&alone), "opencode.db");
        touch("opencode.db", 1);
        assert_eq!(named(&environment), "opencode.db");
    }
}
