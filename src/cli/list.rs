//! `opencode-sessions list`.

use std::fs::DirBuilder;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use super::sessions::NAME;
use super::status::places;
use super::{
    DeadlineArgs, FAILED, IN_MEMORY, MarkerArgs, NO_HOME, complain, default_database,
    process_lister,
};
use crate::file;
use crate::lister::{Cancel, ListRequest, Lister, Outcome, SCAN_BUDGET};
use crate::locate::{self, Located};
use crate::output::{self, Entry, Terminal};
use crate::project::{self, Projects};
use crate::service::client::Client;
use crate::session::{Millis, Session};
use crate::source::sources_of;
use crate::text::Shown;
use crate::wire::{DatabaseState, Listing};

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// The database [default: OpenCode's own: OPENCODE_DB, else opencode.db in the data directory]
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,

    /// How to print the sessions
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Print at most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Which ones first
    #[arg(long, value_enum, default_value_t = Sort::Updated)]
    sort: Sort,

    /// Only sessions of the project that PATH is in
    #[arg(long, value_name = "PATH")]
    project: Option<PathBuf>,

    /// Archived sessions too
    #[arg(long)]
    archived: bool,

    /// Child sessions too, not just roots
    #[arg(long)]
    children: bool,

    /// In the table, also the sessions that carry the marker
    #[arg(long)]
    all_marked: bool,

    #[command(flatten)]
    marker: MarkerArgs,

    #[command(flatten)]
    deadline: DeadlineArgs,

    /// List by itself, also where a running service knows the answer
    #[arg(long)]
    no_service: bool,

    /// The helper [default: the opencode-lister beside this program]
    #[arg(long, value_name = "PATH")]
    lister: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: title, project, how long ago, id
    Table,
    /// One JSON array
    Json,
    /// One JSON object a line
    Ndjson,
    /// Tab-separated values with a header
    Tsv,
    /// One id a line
    Ids,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Those that OpenCode updated last
    Updated,
    /// Those with the newest message or update
    Activity,
    /// Those created last
    Created,
    /// By title, or how the first prompt begins
    Title,
}

pub(super) fn run(args: &ListArgs) -> io::Result<u8> {
    let db = match args.db.clone().map_or_else(default_database, Located::At) {
        Located::At(db) => db,
        Located::InMemory => return nothing(args, IN_MEMORY),
        Located::NoHome => {
            complain(NAME, NO_HOME);
            return Ok(FAILED);
        }
    };
    if let Some(entries) = known_by_a_service(args, &db) {
        return present(args, entries);
    }
    let lister = match process_lister(args.lister.as_deref()) {
        Ok(lister) => lister,
        Err(breakage) => {
            complain(NAME, &breakage.to_string());
            return Ok(FAILED);
        }
    };
    let request = ListRequest {
        marker: args.marker.marker(),
        children: args.children,
        archived: args.archived,
        deadline: args.deadline.deadline,
        scan_cache: scan_cache(&db),
        scan_budget: Some(SCAN_BUDGET),
        cancel: Cancel::default(),
        db,
    };
    match lister.list(&request) {
        Outcome::Complete(listing) => show(args, &request.db, listing),
        failed => {
            complain(NAME, &failed.to_string());
            Ok(FAILED)
        }
    }
}

/// So old is no file that a helper is writing.
const LEFT_OVER: Duration = Duration::from_secs(60 * 60);

/// What to say where sessions are, but not in a database.
const OLD_STORE: &str = "; there are sessions of OpenCode 1.1 or earlier beside it, in \
     storage/session: starting OpenCode 1.2 to 1.15 imports them";

/// Where the helper remembers what it knows of this database; `None` where no
/// directory for that can be had.
fn scan_cache(db: &Path) -> Option<PathBuf> {
    let directory = file::cache_dir()?;
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory);
    made.ok()?;
    // Other listings may be writing theirs.
    file::remove_leftovers(&directory, LEFT_OVER);
    Some(file::scan_cache_in(&directory, db))
}

fn show(args: &ListArgs, db: &Path, listing: Listing) -> io::Result<u8> {
    let shown = Shown(db);
    let hint = if locate::has_old_store(db) {
        OLD_STORE
    } else {
        ""
    };
    match listing.end.database {
        DatabaseState::Ready => {}
        DatabaseState::Missing => {
            let way_out = if hint.is_empty() {
                "; has OpenCode been run? Name another with --db"
            } else {
                hint
            };
            return nothing(args, &format!("there is no database at {shown}{way_out}"));
        }
        DatabaseState::Empty => {
            return nothing(
                args,
                &format!("the database at {shown} has no sessions yet{hint}"),
            );
        }
        DatabaseState::Young => {
            return nothing(
                args,
                &format!("the database at {shown} is just being made; try again in a second"),
            );
        }
    }
    if listing.end.skipped.invalid_id > 0 {
        complain(
            NAME,
            &format!(
                "{} rows of {shown} have no valid id and are left out",
                listing.end.skipped.invalid_id
            ),
        );
    }
    let mut projects = Projects::new();
    let entries = listing
        .sessions
        .into_values()
        .map(|session| Entry {
            project: projects.of(&session),
            session,
        })
        .collect();
    present(args, entries)
}

/// What a running service knows, where that is exactly what was asked: the same
/// database, the same marker, and its last listing was complete.
fn known_by_a_service(args: &ListArgs, db: &Path) -> Option<Vec<Entry>> {
    if args.no_service || args.archived || args.children || args.lister.is_some() {
        return None;
    }
    let mut service = Client::connect(&places(None))?;
    let hello = service.hello();
    let [source] = &hello.sources[..] else {
        return None;
    };
    let [ours] = &sources_of(&[db.to_owned()])[..] else {
        return None;
    };
    if Some(&*source.path) != ours.path.to_str() || hello.marker != args.marker.marker() {
        return None;
    }
    let known = service.snapshot().ok()?;
    if known
        .sources
        .iter()
        .any(|source| source.health.state != "ok")
    {
        return None;
    }
    let mut entries: Vec<_> = known
        .sessions
        .into_iter()
        .map(|there| there.entry)
        .collect();
    // The helper's order.
    entries.sort_by(|a, b| {
        let key = |entry: &Entry| entry.session.time_updated;
        key(b)
            .cmp(&key(a))
            .then_with(|| a.session.id.cmp(&b.session.id))
    });
    Some(entries)
}

/// Filters, sorts and prints.
fn present(args: &ListArgs, mut entries: Vec<Entry>) -> io::Result<u8> {
    if let Some(wanted) = &args.project {
        let wanted = wanted_projects(wanted)?;
        entries.retain(|entry| is_wanted(entry, &wanted));
    }
    sort(&mut entries, args.sort);
    let mut hidden = 0;
    if args.format == Format::Table && !args.all_marked {
        let all = entries.len();
        entries.retain(|entry| entry.session.marked != Some(true));
        hidden = all - entries.len();
    }
    let sessions = entries.len();
    entries.truncate(args.limit.unwrap_or(usize::MAX));
    print(args.format, &entries)?;
    if args.format == Format::Table && (sessions == 0 || hidden > 0) {
        let of = if args.project.is_some() {
            " of this project"
        } else {
            ""
        };
        let hidden = match hidden {
            0 => String::new(),
            1 => "; 1 that carries the marker is hidden, --all-marked shows it".to_owned(),
            more => format!("; {more} that carry the marker are hidden, --all-marked shows them"),
        };
        let said = match sessions {
            0 => "no sessions".to_owned(),
            1 => "1 session".to_owned(),
            more => format!("{more} sessions"),
        };
        complain(NAME, &format!("{said}{of}{hidden}"));
    }
    Ok(0)
}

/// An empty list, and why it is empty.
fn nothing(args: &ListArgs, why: &str) -> io::Result<u8> {
    print(args.format, &[])?;
    complain(NAME, why);
    Ok(0)
}

fn print(format: Format, entries: &[Entry]) -> io::Result<()> {
    let out = anstream::AutoStream::auto(io::stdout());
    let mut out = BufWriter::new(out);
    match format {
        Format::Table => output::table(entries, &Terminal::of_stdout(), &mut out)?,
        Format::Json => output::json(entries, &mut out)?,
        Format::Ndjson => output::ndjson(entries, &mut out)?,
        Format::Tsv => output::tsv(entries, &mut out)?,
        Format::Ids => output::ids(entries, &mut out)?,
    }
    out.flush()
}

/// What the project of a wanted session may be: the path itself, its real path,
/// and the repositories that these are in.
fn wanted_projects(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut wanted = vec![project::normal(&std::path::absolute(path)?)];
    wanted.extend(std::fs::canonicalize(path));
    let roots: Vec<_> = wanted
        .iter()
        .filter_map(|path| project::git_root(path))
        .collect();
    wanted.extend(roots);
    Ok(wanted)
}

fn is_wanted(entry: &Entry, wanted: &[PathBuf]) -> bool {
    [&entry.project, &entry.session.directory]
        .into_iter()
        .flatten()
        .any(|path| wanted.iter().any(|wanted| wanted == Path::new(path)))
}

/// Ties by id, as in the helper's order.
fn sort(entries: &mut [Entry], by: Sort) {
    match by {
        // The helper's order.
        Sort::Updated => {}
        Sort::Activity => newest_first(entries, Session::active_at),
        Sort::Created => newest_first(entries, |session| session.time_created),
        Sort::Title => entries.sort_by_cached_key(|Entry { session, .. }| {
            let title = session.headline().unwrap_or_default();
            (title.trim().to_lowercase(), session.id.clone())
        }),
    }
}

fn newest_first(entries: &mut [Entry], time: impl Fn(&Session) -> Option<Millis>) {
    entries.sort_by(|Entry { session: a, .. }, Entry { session: b, .. }| {
        time(b).cmp(&time(a)).then_with(|| a.id.cmp(&b.id))
    });
}
