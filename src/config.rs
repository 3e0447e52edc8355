//! The configuration file: which sources there are.
//!
//! ```toml
//! discover = true                 # OpenCode's databases, as without this file, too
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
//! It is taken whole or not at all: a key that is not known, or a value that is not
//! what it should be, is an error that names the file, the line and the key, and says
//! what would be right.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::locate::Program;
use crate::locate::aliases::{self, Database};
use crate::source::{self, Place, Remote, Source, SourceName, is_plain_argument};
use crate::text::{DisplayPath, escaped, parse_duration, unsafe_on_a_terminal};

/// A larger file is none of these, in bytes.
const LARGEST: u64 = 1 << 20;

/// The most sources: each has its threads, and its helpers.
const MOST: usize = 100;

/// The longest name of a source, in characters.
const LONGEST_NAME: usize = 64;

/// How often a command may be asked.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 60 * 60));

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its sources, in its order. Their databases are as written but for the tilde.
    pub sources: Vec<Configured>,
    /// Also the databases that are found: those of `programs`.
    pub discover: bool,
    /// The programs whose databases are looked for. Not empty where `discover` is true.
    pub programs: Vec<Program>,
}

/// What holds without a file: what OpenCode has.
impl Default for Config {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            discover: true,
            programs: vec![Program::OpenCode],
        }
    }
}

/// A source as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// Its name, where it has one; a command always has.
    pub name: Option<SourceName>,
    /// Where it is.
    pub place: Place,
}

/// The file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("the configuration {file} cannot be read: {why}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        why: io::Error,
    },
    /// It is not what it should be.
    #[error("{file}:{line}: {message}")]
    Wrong {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// Something wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// At this byte.
    at: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Wrong {
    /// The line, from 1, in the text that is wrong.
    #[must_use]
    pub fn line(&self, text: &str) -> usize {
        line_of(text.as_bytes(), self.at)
    }
}

/// The line, from 1, of the byte at `at`.
fn line_of(text: &[u8], at: usize) -> usize {
    1 + memchr::memchr_iter(b'\n', &text[..at.min(text.len())]).count()
}

/// The configuration in the file at `path`; `None` where there is no file.
///
/// # Errors
///
/// Where it cannot be read, or is not what it should be.
pub fn load(path: &Path, home: Option<&Path>) -> Result<Option<Config>, ConfigError> {
    let file = DisplayPath(path).to_string();
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(ConfigError::Unreadable { file, why }),
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            return Err(ConfigError::Wrong {
                file,
                line: line_of(error.as_bytes(), at),
                message: "this is no UTF-8; save the file as UTF-8".to_owned(),
            });
        }
    };
    match parse(&text, home) {
        Ok(config) => Ok(Some(config)),
        Err(wrong) => Err(ConfigError::Wrong {
            file,
            line: wrong.line(&text),
            message: wrong.message,
        }),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Opening a FIFO would wait for its writer; a directory fails in words of its own.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// The configuration in `text`. A `~` in it is `home`.
///
/// # Errors
///
/// The first thing that is not as it should be.
pub fn parse(text: &str, home: Option<&Path>) -> Result<Config, Wrong> {
    let table = DeTable::parse(text).map_err(|error| Wrong {
        at: error.span().map_or(0, |span| span.start),
        message: format!("this is no TOML: {}", escaped(error.message())),
    })?;
    let table = table.get_ref();
    if let Some((key, _)) = table.get_key_value("sources") {
        let message = "`sources` is no key here; each source begins with [[source]]".to_owned();
        return Err(wrong(key.span().start, message));
    }
    only(table, &["discover", "source"], "here")?;
    let programs = match table.get("discover") {
        None => Vec::new(),
        Some(value) => programs(value)?,
    };
    let discover = !programs.is_empty();
    let mut sources: Vec<(usize, Configured)> = Vec::new();
    for value in sources_in(table)? {
        let at = value.span().start;
        let Some(table) = value.get_ref().as_table() else {
            return Err(brackets(value));
        };
        let one = one_source(table, at, home)?;
        if sources.len() == MOST {
            return Err(wrong(
                at,
                format!("these are more than {MOST} sources; leave some out"),
            ));
        }
        for (earlier, other) in &sources {
            let is_name = one.name.is_some() && one.name == other.name;
            let is_db = matches!(one.place, Place::Database(_)) && one.place == other.place;
            let (key, way_out) = match (is_name, is_db) {
                (true, _) => ("name", "give each its own"),
                (false, true) => ("db", "name it once"),
                (false, false) => continue,
            };
            let line = line_of(text.as_bytes(), *earlier);
            return Err(wrong(
                table.get(key).map_or(at, |value| value.span().start),
                format!("the source in line {line} has this `{key}` too; {way_out}"),
            ));
        }
        sources.push((at, one));
    }
    if sources.is_empty() && !discover {
        return Err(wrong(
            0,
            "no source is named: add a [[source]], or `discover = true`, or remove the file"
                .to_owned(),
        ));
    }
    Ok(Config {
        sources: sources.into_iter().map(|(_, one)| one).collect(),
        discover,
        programs,
    })
}

/// The programs whose databases are to be found.
fn programs(value: &Spanned<DeValue<'_>>) -> Result<Vec<Program>, Wrong> {
    let should = "`discover` must be true, false or a list such as [\"opencode\", \"kilo\"]";
    let names = match value.get_ref() {
        DeValue::Boolean(true) => return Ok(vec![Program::OpenCode]),
        DeValue::Boolean(false) => return Ok(Vec::new()),
        DeValue::Array(names) => names,
        _ => return Err(not(value, should)),
    };
    let mut programs = Vec::new();
    for value in names {
        let name = value.get_ref().as_str();
        let name = name.ok_or_else(|| not(value, should))?;
        let program = Program::named(name).ok_or_else(|| {
            let known = Program::ALL.map(Program::name).join(", ");
            let message = format!(
                "unknown program `{}`; the programs are: {known}",
                escaped(name)
            );
            wrong(value.span().start, message)
        })?;
        if !programs.contains(&program) {
            programs.push(program);
        }
    }
    Ok(programs)
}

fn wrong(at: usize, message: String) -> Wrong {
    Wrong { at, message }
}

/// This value is another kind of thing than it should be.
fn not(value: &Spanned<DeValue<'_>>, should: &str) -> Wrong {
    let kind = value.get_ref().type_str();
    let article = if kind.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    wrong(
        value.span().start,
        format!("{should}, not {article} {kind}"),
    )
}

fn brackets(value: &Spanned<DeValue<'_>>) -> Wrong {
    not(value, "each source begins with [[source]], in two brackets")
}

/// Refuses a key that is not among these.
fn only(table: &DeTable<'_>, keys: &[&str], of: &str) -> Result<(), Wrong> {
    let unknown = table
        .keys()
        .filter(|key| !keys.contains(&key.get_ref().as_ref()));
    match unknown.min_by_key(|key| key.span().start) {
        None => Ok(()),
        Some(key) => Err(wrong(
            key.span().start,
            format!(
                "`{}` is no key {of}; the keys are: {}",
                escaped(key.get_ref()),
                keys.join(", ")
            ),
        )),
    }
}

fn sources_in<'a>(table: &'a DeTable<'a>) -> Result<&'a [Spanned<DeValue<'a>>], Wrong> {
    match table.get("source") {
        None => Ok(&[]),
        Some(value) => match value.get_ref().as_array() {
            Some(array) => Ok(array),
            None => Err(brackets(value)),
        },
    }
}

fn one_source(table: &DeTable<'_>, at: usize, home: Option<&Path>) -> Result<Configured, Wrong> {
    only(table, &["name", "db", "command", "every"], "of a source")?;
    let name = text_of(table, "name", "a text such as \"devbox\"")?
        .map(|(at, name)| source_name(name).map_err(|why| wrong(at, why)))
        .transpose()?;
    let db = text_of(table, "db", "a path in quotes")?;
    let every = match text_of(table, "every", "a time in quotes such as \"15s\"")? {
        None => None,
        Some((at, text)) => Some((at, every(text).map_err(|why| wrong(at, why))?)),
    };
    let command = match table.get("command") {
        None => None,
        Some(value) => Some(command(value)?),
    };
    let place = match (command, db, every) {
        (None, None, _) => {
            return Err(wrong(
                at,
                "this source has neither a `db` nor a `command`; give it one".to_owned(),
            ));
        }
        (None, Some(_), Some((at, _))) => {
            return Err(wrong(
                at,
                "`every` is for a source with a `command`; a database of this machine is watched"
                    .to_owned(),
            ));
        }
        (None, Some((at, db)), None) => {
            Place::Database(database(db, home).map_err(|why| wrong(at, why))?)
        }
        (Some(_), _, _) if name.is_none() => {
            return Err(wrong(
                at,
                "a source with a `command` needs a `name`, such as name = \"devbox\"".to_owned(),
            ));
        }
        (Some(_), Some((at, db)), _) if !is_plain_argument(db) || db.starts_with(['-', '=']) => {
            return Err(wrong(
                at,
                "beside a `command`, `db` is handed to a shell there: only letters, digits and \
                 _ . / : - (- not first), and no ~; write the whole path"
                    .to_owned(),
            ));
        }
        (Some(command), db, every) => Place::Remote(Remote {
            command,
            db: db.map(|(_, db)| db.to_owned()),
            every: every.map_or(Remote::EVERY, |(_, every)| every),
        }),
    };
    Ok(Configured { name, place })
}

/// The text under this key, and where it is.
fn text_of<'a>(
    table: &'a DeTable<'_>,
    key: &str,
    what: &str,
) -> Result<Option<(usize, &'a str)>, Wrong> {
    let Some(value) = table.get(key) else {
        return Ok(None);
    };
    match value.get_ref().as_str() {
        Some(text) => Ok(Some((value.span().start, text))),
        None => Err(not(value, &format!("`{key}` must be {what}"))),
    }
}

fn source_name(name: &str) -> Result<SourceName, String> {
    let is_hidden = |c: char| {
        unsafe_on_a_terminal(c)
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}')
    };
    let is_shown = !name.trim().is_empty() && !name.chars().any(is_hidden);
    if !is_shown || name.chars().count() > LONGEST_NAME || name.starts_with('/') {
        return Err(format!(
            "`name` must be 1 to {LONGEST_NAME} characters that can be seen, and not begin with /"
        ));
    }
    Ok(name.into())
}

fn every(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|every| (EVERY.0..=EVERY.1).contains(every))
        .ok_or_else(|| "`every` must be a time from \"1s\" to \"24h\", such as \"15s\"".to_owned())
}

fn command(value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, Wrong> {
    let should =
        "`command` must be a list of texts such as [\"ssh\", \"devbox\", \"opencode-lister\"]";
    let words: &DeArray<'_> = value
        .get_ref()
        .as_array()
        .ok_or_else(|| not(value, should))?;
    let texts = words.iter().map(|word| match word.get_ref().as_str() {
        None => Err(not(word, should)),
        Some(text) if text.contains('\0') => Err(wrong(
            word.span().start,
            "`command` must have no zero byte".to_owned(),
        )),
        Some(text) => Ok(text.to_owned()),
    });
    let texts: Vec<_> = texts.collect::<Result<_, _>>()?;
    match texts.first() {
        Some(program) if !program.is_empty() => Ok(texts),
        _ => Err(wrong(
            value.span().start,
            format!("{should}; this one names no program"),
        )),
    }
}

fn database(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let path = match (text.strip_prefix("~/"), home) {
        (None, _) => PathBuf::from(text),
        (Some(rest), Some(home)) => home.join(rest),
        (Some(_), None) => {
            return Err("`db` begins with ~/, and there is no home directory".to_owned());
        }
    };
    if !path.is_absolute() || text.contains('\0') {
        return Err("`db` must be a whole path, which begins with / or ~/".to_owned());
    }
    Ok(path)
}

impl Config {
    /// The sources, then those that were discovered where they are wanted. A database
    /// that is there twice, under whatever names, is one source, called as the first.
    /// Where the file's name of a database is taken, its whole path is its name.
    #[must_use]
    pub fn sources(self, discovered: &[PathBuf]) -> Vec<Source> {
        let discovered = discovered.iter().filter(|_| self.discover);
        let discovered = discovered.map(|path| Configured {
            name: None,
            place: Place::Database(path.clone()),
        });
        let all: Vec<_> = self.sources.into_iter().chain(discovered).collect();
        let all = each_once(all);
        let nameless = all.iter().filter(|(one, _)| one.name.is_none());
        let nameless = nameless.filter_map(|(one, _)| match &one.place {
            Place::Database(path) => Some(path.clone()),
            Place::Remote(_) => None,
        });
        let nameless: Vec<_> = nameless.collect();
        let mut names = source::names_after_files(&nameless).into_iter();
        let taken: Vec<_> = all.iter().filter_map(|(one, _)| one.name.clone()).collect();
        let sources = all
            .into_iter()
            .filter_map(|(Configured { name, place }, written)| {
                let name = match (name, &place) {
                    (Some(name), _) => name,
                    (None, Place::Database(path)) => {
                        let name = names.next()?;
                        match taken.contains(&name) {
                            true => source::whole_name(path),
                            false => name,
                        }
                    }
                    (None, Place::Remote(_)) => return None,
                };
                Some(Source {
                    name,
                    place,
                    written,
                })
            });
        sources.collect()
    }
}

/// Each database once, at its canonical path, with all paths that were given for it.
fn each_once(all: Vec<Configured>) -> Vec<(Configured, Vec<PathBuf>)> {
    let path_of = |one: &Configured| match &one.place {
        Place::Database(path) => Some(aliases::absolute(path)),
        Place::Remote(_) => None,
    };
    let paths: Vec<_> = all.iter().filter_map(path_of).collect();
    let mut databases = aliases::databases(&paths);
    let each = all.into_iter().filter_map(|one| {
        let Some(path) = path_of(&one) else {
            return Some((one, Vec::new()));
        };
        let is_its = |database: &Database| database.written.contains(&path);
        let database = databases.remove(databases.iter().position(is_its)?);
        let place = Place::Database(database.path);
        Some((Configured { place, ..one }, database.written))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line and the message.
    fn refused(text: &str) -> String {
        let wrong = parse(text, Some(Path::new("/home/me"))).unwrap_err();
        format!("{}: {}", wrong.line(text), wrong.message)
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_would_be_right() {
        let remote = "[[source]]\nname = \"devbox\"\ncommand = [\"ssh\", \"devbox\"]\n";
        for (text, expected) in [
            (
                "",
                "1: no source is named: add a [[source]], or `discover = true`, or remove the file",
            ),
            (
                "[[source]]\nname = devbox\n",
                "2: this is no TOML: string values must be quoted, expected literal string",
            ),
            (
                "[[sources]]\ndb = \"/a\"\n",
                "1: `sources` is no key here; each source begins with [[source]]",
            ),
            (
                "colour = 1\n",
                "1: `colour` is no key here; the keys are: discover, source",
            ),
            (
                "discover = \"yes\"\n",
                "1: `discover` must be true, false or a list such as [\"opencode\", \"kilo\"], not a string",
            ),
            (
                "discover = [\n  \"opencode\",\n  1,\n]\n",
                "3: `discover` must be true, false or a list such as [\"opencode\", \"kilo\"], not an integer",
            ),
            (
                "discover = [\n  \"opencode\",\n  \"cursor\",\n]\n",
                "3: unknown program `cursor`; the programs are: opencode, kilo, mimocode",
            ),
            (
                "discover = []\n",
                "1: no source is named: add a [[source]], or `discover = true`, or remove the file",
            ),
            (
                "\n[source]\ndb = \"/a\"\n",
                "2: each source begins with [[source]], in two brackets, not a table",
            ),
            (
                "source = [1]\n",
                "1: each source begins with [[source]], in two brackets, not an integer",
            ),
            (
                "[[source]]\n",
                "1: this source has neither a `db` nor a `command`; give it one",
            ),
            (
                "[[source]]\ndb = 5\n",
                "2: `db` must be a path in quotes, not an integer",
            ),
            (
                "[[source]]\ndb = \"opencode.db\"\n",
                "2: `db` must be a whole path, which begins with / or ~/",
            ),
            (
                "[[source]]\ndb = \"/a\"\nevery = \"5s\"\n",
                "3: `every` is for a source with a `command`; a database of this machine is watched",
            ),
            (
                "[[source]]\ncomand = []\ndatabase = 1\n",
                "2: `comand` is no key of a source; the keys are: name, db, command, every",
            ),
            (
                "[[source]]\ncommand = [\"ssh\"]\n",
                "1: a source with a `command` needs a `name`, such as name = \"devbox\"",
            ),
            (
                "[[source]]\nname = \"x\"\ncommand = \"ssh x\"\n",
                "3: `command` must be a list of texts such as [\"ssh\", \"devbox\", \"opencode-lister\"], not a string",
            ),
            (
                "[[source]]\nname = \"x\"\ncommand = []\n",
                "3: `command` must be a list of texts such as [\"ssh\", \"devbox\", \"opencode-lister\"]; this one names no program",
            ),
            (
                "[[source]]\nname = \"x\"\ncommand = [\"ssh\",\n 22]\n",
                "4: `command` must be a list of texts such as [\"ssh\", \"devbox\", \"opencode-lister\"], not an integer",
            ),
            (
                "[[source]]\nname = \"\"\ndb = \"/a\"\n",
                "2: `name` must be 1 to 64 characters that can be seen, and not begin with /",
            ),
            (
                "[[source]]\nname = \"a\\u001b[31m\"\ndb = \"/a\"\n",
                "2: `name` must be 1 to 64 characters that can be seen, and not begin with /",
            ),
            (
                &format!("{remote}every = 15\n"),
                "4: `every` must be a time in quotes such as \"15s\", not an integer",
            ),
            (
                &format!("{remote}every = \"15 parsecs\"\n"),
                "4: `every` must be a time from \"1s\" to \"24h\", such as \"15s\"",
            ),
            (
                &format!("{remote}every = \"10ms\"\n"),
                "4: `every` must be a time from \"1s\" to \"24h\", such as \"15s\"",
            ),
            (
                &format!("{remote}db = \"/srv/$(reboot)\"\n"),
                "4: beside a `command`, `db` is handed to a shell there: only letters, digits and _ . / : - (- not first), and no ~; write the whole path",
            ),
            (
                &format!("{remote}{remote}"),
                "5: the source in line 1 has this `name` too; give each its own",
            ),
            (
                "[[source]]\ndb = \"/a\"\n[[source]]\nname = \"b\"\ndb = \"/a\"\n",
                "5: the source in line 1 has this `db` too; name it once",
            ),
            (
                "[[source]]\nname = \"a\"\nname = \"b\"\n",
                "3: this is no TOML: duplicate key",
            ),
        ] {
            assert_eq!(refused(text), expected, "{text}");
        }
    }

    #[test]
    fn sources_keep_their_order_and_get_names() {
        let text = "discover = true\n[[source]]\ndb = \"~/a/opencode.db\"\n[[source]]\n\
            name = \"devbox\"\ncommand = [\"ssh\", \"devbox\", \"opencode-lister\"]\n[[source]]\n\
            name = \"old\"\ndb = \"/nowhere/old.db\"\n";
        let config = parse(text, Some(Path::new("/nowhere/me"))).unwrap();
        let found = ["/nowhere/opencode.db", "/nowhere/old.db"].map(PathBuf::from);
        let sources = config.clone().sources(&found);
        let shown: Vec<_> = sources
            .iter()
            .map(|source| format!("{}: {}", source.name, source.place))
            .collect();
        assert_eq!(
            shown,
            [
                "a/opencode.db: /nowhere/me/a/opencode.db",
                "devbox: ssh devbox opencode-lister",
                "old: /nowhere/old.db",
                "nowhere/opencode.db: /nowhere/opencode.db",
            ]
        );
        let Place::Remote(remote) = &sources[1].place else {
            panic!("{sources:?}");
        };
        assert_eq!((remote.every, &remote.db), (Remote::EVERY, &None));
        let without = Config {
            discover: false,
            ..config
        };
        assert_eq!(without.sources(&found).len(), 3);
        // A name that is taken is not taken away.
        let text = "discover = true\n[[source]]\nname=\"b.db\"\ndb=\"/x/a.db\"";
        let sources = parse(text, None).unwrap().sources(&["/x/b.db".into()]);
        let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["b.db", "/x/b.db"]);
    }

    #[test]
    fn discover_names_the_programs_to_look_for() {
        use Program::{Kilo, MimoCode, OpenCode};
        for (value, expected) in [
            ("true", &[OpenCode][..]),
            ("false", &[]),
            ("[]", &[]),
            ("[\"opencode\"]", &[OpenCode]),
            ("[\"mimocode\", \"kilo\"]", &[MimoCode, Kilo]),
            ("[\"kilo\", \"kilo\"]", &[Kilo]),
        ] {
            let text = format!("discover = {value}\n[[source]]\ndb = \"/a\"\n");
            let config = parse(&text, None).unwrap();
            assert_eq!(config.programs, expected, "{value}");
            assert_eq!(config.discover, !expected.is_empty(), "{value}");
        }
    }

    #[test]
    fn there_are_not_too_many_sources() {
        let text = |count| -> String {
            (0..count)
                .map(|n| format!("[[source]]\ndb = \"/{n}\"\n"))
                .collect()
        };
        assert_eq!(parse(&text(100), None).unwrap().sources.len(), 100);
        assert_eq!(
            refused(&text(101)),
            "201: these are more than 100 sources; leave some out"
        );
    }

    #[test]
    fn no_text_is_too_odd() {
        use proptest::prelude::*;
        let piece = prop_oneof![
            Just("[[source]]\n".to_owned()),
            Just("name = \"a\"\n".to_owned()),
            Just("command = [".to_owned()),
            Just("every = ".to_owned()),
            Just("db.x = \"".to_owned()),
            "[ -~\n\u{80}-\u{2fff}]{0,12}",
        ];
        proptest!(|(text in prop::collection::vec(piece, 0..12))| {
            let text = text.concat();
            if let Err(wrong) = parse(&text, None) {
                prop_assert!(wrong.line(&text) <= text.lines().count().max(1) + 1);
                prop_assert!(!wrong.message.chars().any(unsafe_on_a_terminal), "{:?}", wrong.message);
            }
        });
    }
}
