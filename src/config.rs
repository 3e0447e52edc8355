//! The configuration file: which sources to list.
//!
//! ```toml
//! discover = true                 # also OpenCode's databases, as without this file
//! # discover = ["opencode", "kilo", "mimocode"]   # the databases of these programs
//!
//! [[source]]
//! db = "~/backup/opencode.db"
//!
//! [[source]]
//! name = "devbox"
//! command = ["ssh", "-o", "BatchMode=yes", "-o", "ControlMaster=no", "devbox", "opencode-lister"]
//! every = "15s"
//! ```
//!
//! The file is accepted as a whole or rejected as a whole. An unknown key or an invalid
//! value is an error that names the file, the line and the key, and says what is expected.
//! `document` reads the tables and the types of their values; this module checks the values.

mod document;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use self::document::{Discover, Document, SourceTable, expected};
use crate::locate::aliases::{self, Database};
use crate::locate::{Program, is_missing};
use crate::source::{self, Place, Remote, Source, SourceName, is_plain_argument};
use crate::text::{DisplayPath, escaped, is_unsafe_on_terminal, parse_duration};

const MAX_FILE_BYTES: u64 = 1 << 20;

/// Each source has its own threads and helpers.
const MAX_SOURCES: usize = 100;

const MAX_NAME_CHARS: usize = 64;

/// The values that `every` can have.
const INTERVALS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// The content of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The sources, in the order of the file. A `~` in the path of a database is expanded;
    /// links are not resolved.
    pub sources: Vec<ConfiguredSource>,
    /// True if the databases of `programs` are sources too.
    pub discover: bool,
    /// The programs whose databases are discovered. Not empty if `discover` is true.
    pub programs: Vec<Program>,
}

/// The configuration without a file: the databases of OpenCode.
impl Default for Config {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            discover: true,
            programs: vec![Program::OpenCode],
        }
    }
}

/// A source of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredSource {
    /// The name in the file. Always present if the source is a command.
    pub name: Option<SourceName>,
    /// The database or the command.
    pub place: Place,
}

impl ConfiguredSource {
    fn database(&self) -> Option<&Path> {
        match &self.place {
            Place::Database(path) => Some(path),
            Place::Remote(_) => None,
        }
    }
}

/// Why a configuration file was rejected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {file}: {error}")]
    Unreadable {
        /// The path, as shown to people.
        file: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The content of the file is invalid.
    #[error("{file}:{line}: {message}")]
    Invalid {
        /// The path, as shown to people.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is invalid, and what is expected.
        message: String,
    },
}

/// A problem at one place of the text.
#[derive(Debug)]
pub struct ParseError {
    /// In the text, in bytes.
    offset: usize,
    message: String,
}

impl ParseError {
    fn new(offset: usize, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { offset, message }
    }
}

/// The line, from 1, of the byte at `offset`.
fn line_of(text: &[u8], offset: usize) -> usize {
    1 + memchr::memchr_iter(b'\n', &text[..offset.min(text.len())]).count()
}

/// Reads the configuration file at `path`. Returns `None` if the file does not exist. A `~`
/// in the file stands for `home`.
///
/// # Errors
///
/// Returns [`ConfigError::Unreadable`] if the file cannot be read, is not a regular file or
/// is larger than 1 MiB, and [`ConfigError::Invalid`] for the first problem in its content.
pub fn load(path: &Path, home: Option<&Path>) -> Result<Option<Config>, ConfigError> {
    let file = DisplayPath(path).to_string();
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(ConfigError::Unreadable { file, error }),
    };
    let config = match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, home),
        Err(error) => Err(ParseError::new(
            error.valid_up_to(),
            "not valid UTF-8; save the file as UTF-8",
        )),
    };
    config.map(Some).map_err(|error| ConfigError::Invalid {
        file,
        line: line_of(&bytes, error.offset),
        message: error.message,
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Parses the text of a configuration file.
pub fn parse(text: &str, home: Option<&Path>) -> Result<Config, ParseError> {
    let document = Document::parse(text)?;
    let programs = match &document.discover {
        None | Some(Discover::Switch(false)) => Vec::new(),
        Some(Discover::Switch(true)) => vec![Program::OpenCode],
        Some(Discover::Programs(names)) => programs(names)?,
    };
    if let Some(table) = document.source.get(MAX_SOURCES) {
        let message = format!("more than {MAX_SOURCES} sources; remove some");
        return Err(ParseError::new(table.span().start, message));
    }
    let mut sources: Vec<ConfiguredSource> = Vec::new();
    for table in &document.source {
        let (offset, table) = (table.span().start, table.get_ref());
        let source = table.configure(offset, home)?;
        for (other, other_table) in sources.iter().zip(&document.source) {
            let (key, value, fix) = if source.name.is_some() && source.name == other.name {
                ("name", &table.name, "give each source its own")
            } else if source.database().is_some() && source.place == other.place {
                ("db", &table.db, "remove one of them")
            } else {
                continue;
            };
            let offset = value.as_ref().map_or(offset, |value| value.span().start);
            let line = line_of(text.as_bytes(), other_table.span().start);
            let message = format!("duplicate `{key}`: the source in line {line} has it too; {fix}");
            return Err(ParseError::new(offset, message));
        }
        sources.push(source);
    }
    let discover = !programs.is_empty();
    if sources.is_empty() && !discover {
        let message = "no sources; add a [[source]], or `discover = true`, or remove the file";
        return Err(ParseError::new(0, message));
    }
    Ok(Config {
        sources,
        discover,
        programs,
    })
}

/// The programs of these names, each once.
fn programs(names: &[Spanned<String>]) -> Result<Vec<Program>, ParseError> {
    let mut programs = Vec::new();
    for name in names {
        let program = checked(name, program)?;
        if !programs.contains(&program) {
            programs.push(program);
        }
    }
    Ok(programs)
}

fn program(name: &str) -> Result<Program, String> {
    Program::from_name(name).ok_or_else(|| {
        let known = Program::ALL.map(|program| format!("`{}`", program.name()));
        let (name, known) = (escaped(name), known.join(", "));
        format!("unknown program `{name}`; expected one of {known}")
    })
}

/// The result of `check` for this value; an error gets the offset of the value.
fn checked<T>(
    value: &Spanned<String>,
    check: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ParseError> {
    check(value.get_ref()).map_err(|message| ParseError::new(value.span().start, message))
}

impl SourceTable {
    /// Checks the values and what they need of each other. `offset` is that of the table.
    fn configure(
        &self,
        offset: usize,
        home: Option<&Path>,
    ) -> Result<ConfiguredSource, ParseError> {
        let name = self.name.as_ref();
        let name = name.map(|name| checked(name, source_name)).transpose()?;
        let every = self.every.as_ref();
        let interval = every.map(|every| checked(every, interval)).transpose()?;
        let place = match (&self.command, &self.db, every) {
            (None, None, _) => {
                let message = "this source has neither `db` nor `command`; add one of them";
                return Err(ParseError::new(offset, message));
            }
            (None, Some(_), Some(every)) => {
                let message = "`every` requires `command`; remove it (a local database is \
                    watched for changes)";
                return Err(ParseError::new(every.span().start, message));
            }
            (None, Some(db), None) => Place::Database(checked(db, |db| database(db, home))?),
            (Some(_), _, _) if name.is_none() => {
                let message = "`command` requires `name`; add one such as name = \"devbox\"";
                return Err(ParseError::new(offset, message));
            }
            (Some(words), db, _) => Place::Remote(Remote {
                command: command(words)?,
                db: db.as_ref().map(|db| checked(db, remote_db)).transpose()?,
                every: interval.unwrap_or(Remote::EVERY),
            }),
        };
        Ok(ConfiguredSource { name, place })
    }
}

fn source_name(name: &str) -> Result<SourceName, String> {
    let is_hidden = |c: char| {
        is_unsafe_on_terminal(c)
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}')
    };
    let is_shown = !name.trim().is_empty() && !name.chars().any(is_hidden);
    if !is_shown || name.chars().count() > MAX_NAME_CHARS || name.starts_with('/') {
        return Err(format!(
            "`name` must be 1 to {MAX_NAME_CHARS} printable characters and not start with /"
        ));
    }
    Ok(name.into())
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).filter(|interval| INTERVALS.contains(interval));
    interval.ok_or_else(|| "`every` must be from \"1s\" to \"24h\", such as \"15s\"".to_owned())
}

fn command(words: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<String>, ParseError> {
    let program = words.get_ref().first();
    if program.is_none_or(|program| program.get_ref().is_empty()) {
        let message = format!("{}; this one has no program", expected("command"));
        return Err(ParseError::new(words.span().start, message));
    }
    let words = words.get_ref().iter();
    words.map(|word| checked(word, argument)).collect()
}

fn argument(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("`command` must not contain a NUL character".to_owned());
    }
    Ok(text.to_owned())
}

fn database(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let path = match (text.strip_prefix("~/"), home) {
        (None, _) => PathBuf::from(text),
        (Some(rest), Some(home)) => home.join(rest),
        (Some(_), None) => {
            return Err("cannot expand ~ in `db`: no home directory; write the full path".into());
        }
    };
    if text.contains('\0') {
        return Err("`db` must not contain a NUL character".to_owned());
    }
    if !path.is_absolute() {
        return Err("`db` must be a full path, starting with / or ~/".to_owned());
    }
    Ok(path)
}

fn remote_db(text: &str) -> Result<String, String> {
    if !is_plain_argument(text) || text.starts_with(['-', '=']) {
        return Err(
            "`db` with `command` passes through a remote shell; use only letters, digits \
            and _ . / : = - (not starting with = or -), and the full path instead of ~"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

impl Config {
    /// The sources of the file, then the `discovered` databases if the file asks for them.
    /// A database that occurs twice, under whatever paths, is one source with the name of
    /// its first occurrence. A database without a name is named after its file, or after its
    /// whole path if that name is taken.
    #[must_use]
    pub fn sources(self, discovered: &[PathBuf]) -> Vec<Source> {
        let discovered = discovered.iter().filter(|_| self.discover);
        let discovered = discovered.map(|path| ConfiguredSource {
            name: None,
            place: Place::Database(path.clone()),
        });
        let all = merge_aliases(self.sources.into_iter().chain(discovered).collect());
        let taken: Vec<_> = all.iter().filter_map(|(one, _)| one.name.clone()).collect();
        let unnamed = all.iter().filter(|(one, _)| one.name.is_none());
        let unnamed = unnamed.filter_map(|(one, _)| one.database().map(Path::to_owned));
        let unnamed: Vec<_> = unnamed.collect();
        let mut file_names = source::names_after_files(&unnamed).into_iter();
        let sources = all.into_iter().filter_map(|(one, written)| {
            let name = match &one.name {
                Some(name) => name.clone(),
                None => {
                    let path = one.database()?;
                    let name = file_names.next()?;
                    match taken.contains(&name) {
                        true => source::whole_name(path),
                        false => name,
                    }
                }
            };
            Some(Source {
                name,
                place: one.place,
                written,
            })
        });
        sources.collect()
    }
}

/// Each database once, at its canonical path, with all paths that were given for it.
fn merge_aliases(all: Vec<ConfiguredSource>) -> Vec<(ConfiguredSource, Vec<PathBuf>)> {
    let path_of = |one: &ConfiguredSource| one.database().map(aliases::absolute);
    let paths: Vec<_> = all.iter().filter_map(path_of).collect();
    let mut databases = aliases::databases(&paths);
    let merged = all.into_iter().filter_map(|one| {
        let Some(path) = path_of(&one) else {
            return Some((one, Vec::new()));
        };
        let has_path = |database: &Database| database.written.contains(&path);
        let database = databases.remove(databases.iter().position(has_path)?);
        let place = Place::Database(database.path);
        Some((ConfiguredSource { place, ..one }, database.written))
    });
    merged.collect()
}
