//! Queries several sources at once. Each source has a lister and a deadline of its own, so a
//! query takes as long as the slowest source, and a source that fails affects no other.

mod look_up;
mod result;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::index::SourceListing;
use crate::lister::{FailureReason, ListRequest, Lister, Outcome};
use crate::locate;
use crate::project::Projects;
use crate::row::{Row, RowPlace, Rows};
use crate::source::{Place, Source};
use crate::text::DisplayPath;
use crate::wire::{DatabaseState, Known, Listing, other_tables_line};

pub use look_up::{LookUpJob, LookUpSource, LookedUp};
pub use result::LookUpResult;

/// A source and its lister.
#[derive(Clone)]
pub struct SourceLister {
    /// The source.
    pub source: Source,
    /// The lister.
    pub lister: Arc<dyn Lister + Send + Sync>,
}

impl SourceLister {
    /// Returns what finds the projects of this source's sessions. For the sessions of another
    /// machine it accesses no directory of this machine.
    #[must_use]
    pub fn projects(&self) -> Projects {
        match self.source.place {
            Place::Database(_) => Projects::new(),
            Place::Remote(_) => Projects::remote(),
        }
    }
}

/// Returns true if archived sessions must be listed even if they are not shown. With several
/// sources, an archived session hides its older copies in other sources.
#[must_use]
pub fn lists_archived(source_count: usize) -> bool {
    source_count > 1
}

/// Returns the rows of a listing for the index. Searches for their projects until `until` at
/// most. If the listing is a difference to the rows of `known`, the result also has those of
/// them whose projects are others now; without `known` these are not looked for.
#[must_use]
pub fn listed(
    listing: Listing,
    known: Option<&Known>,
    projects: &Projects,
    until: Instant,
) -> SourceListing {
    let mut rows = listing.rows;
    let known_rows = match (&listing.difference, known) {
        (Some(_), Some(known)) => &*known.rows,
        _ => &Rows::new(),
    };
    let all = rows.iter().chain(known_rows.values());
    let projects = ProjectsOfPlaces::find(all, projects, until);
    for row in &mut rows {
        projects.set(row);
    }
    if let Some(difference) = &listing.difference {
        let listed: HashSet<_> = rows.iter().map(Row::id).collect();
        let is_left = |row: &&Row| {
            !listed.contains(row.id()) && difference.gone.binary_search(row.id()).is_err()
        };
        let moved = known_rows.values().filter(|row| projects.have_moved(row));
        let mut moved: Vec<_> = moved.filter(is_left).cloned().collect();
        moved.iter_mut().for_each(|row| projects.set(row));
        rows.append(&mut moved);
    }
    SourceListing {
        database: listing.end.database,
        rows,
        difference: listing.difference,
    }
}

/// The projects of rows. Rows that share a place share its project.
struct ProjectsOfPlaces(HashMap<*const RowPlace, (Option<Arc<str>>, bool)>);

impl ProjectsOfPlaces {
    fn find<'a>(rows: impl Iterator<Item = &'a Row>, projects: &Projects, until: Instant) -> Self {
        let mut seen = HashSet::new();
        let places: Vec<_> = rows.filter(|row| seen.insert(row.place_key())).collect();
        projects.resolve(places.iter().map(|row| row.place()), until);
        let projects = places.iter().map(|row| {
            let (project, is_gone) = projects.of(row.place());
            (row.place_key(), (project.map(Into::into), is_gone))
        });
        Self(projects.collect())
    }

    fn set(&self, row: &mut Row) {
        if let Some((project, is_gone)) = self.0.get(&row.place_key()) {
            row.set_project(project.clone(), *is_gone);
        }
    }

    /// Returns true if the row has another project.
    fn have_moved(&self, row: &Row) -> bool {
        let found = self.0.get(&row.place_key());
        found.is_some_and(|(project, is_gone)| !row.has_project(project.as_deref(), *is_gone))
    }
}

/// Lists each source, and waits for all. Returns one outcome for each source, in order. Calls
/// `done` when a source has an outcome.
#[must_use]
pub fn list(
    sources: &[SourceLister],
    request: impl Fn(&Source) -> ListRequest + Sync,
    done: impl Fn(&Source) + Sync,
) -> Vec<Outcome> {
    for_each_source(
        sources,
        |source_lister| {
            let outcome = source_lister.lister.list(&request(&source_lister.source));
            done(&source_lister.source);
            outcome
        },
        |message| Outcome::Failed(FailureReason::Thread(message).into()),
    )
}

/// Calls `ask` for each source, and waits for all. Several sources have a thread each, which
/// outlives the helper that it launches. `failed` makes a result of the error of a thread.
fn for_each_source<S: Sync, T: Send>(
    sources: &[S],
    ask: impl Fn(&S) -> T + Sync,
    failed: impl Fn(String) -> T,
) -> Vec<T> {
    if let [only] = sources {
        return vec![ask(only)];
    }
    let ask = &ask;
    thread::scope(|scope| {
        let threads = sources.iter().map(|source| {
            thread::Builder::new()
                .name("asking".into())
                .spawn_scoped(scope, move || ask(source))
        });
        let threads: Vec<_> = threads.collect();
        let results = threads.into_iter().map(|thread| match thread {
            Ok(thread) => thread
                .join()
                .unwrap_or_else(|_| failed("the thread of the source has panicked".to_owned())),
            Err(error) => failed(format!("cannot spawn a thread: {error}")),
        });
        results.collect()
    })
}

/// The note about sessions that OpenCode has not imported into its database yet.
pub const OLD_STORE_NOTE: &str = "sessions of OpenCode 1.1 or earlier are beside it, in \
     storage/session: starting OpenCode 1.2 to 1.15 imports them";

/// The warning about a database whose log can be elsewhere
/// (`DatabaseFiles::log_can_be_elsewhere`).
pub const LOG_ELSEWHERE_WARNING: &str = "the log of this database can be elsewhere: it is not beside the \
     database, whose file has another hard link or is a mount of its own. Sessions that are only in that \
     log are missing here: name the database by the path that OpenCode uses, or mount its whole directory";

/// Returns the message about a source whose database has these tables, and none of
/// OpenCode's; `None` if it has no tables at all, as OpenCode has just created it.
#[must_use]
pub fn foreign_database_message(source: &Source, tables: &[String]) -> Option<String> {
    let database = match &source.place {
        Place::Database(path) => DisplayPath(path).to_string(),
        Place::Remote(_) => format!("the database of {}", source.name),
    };
    (!tables.is_empty()).then(|| {
        format!(
            "{database} has no table session or session_v2, but: {} (check that it is a database \
             of OpenCode)",
            other_tables_line(tables)
        )
    })
}

/// Returns the message about a source without sessions whose database is in this state, with
/// the way out; `None` if the source can have sessions.
#[must_use]
pub fn empty_message(source: &Source, state: DatabaseState) -> Option<String> {
    let (database, missing, way_out) = match &source.place {
        Place::Database(path) => {
            let path_shown = DisplayPath(path);
            (
                format!("the database at {path_shown}"),
                format!("no database at {path_shown}"),
                "run OpenCode once, or name another database with --db or in the configuration",
            )
        }
        Place::Remote(_) => (
            format!("the database of {}", source.name),
            format!("{} has no database", source.name),
            "run OpenCode there once, or name another database with `db` in the configuration",
        ),
    };
    let has_old_store = || match &source.place {
        Place::Database(path) => locate::has_old_store(path),
        Place::Remote(_) => false,
    };
    match state {
        DatabaseState::Ready => None,
        DatabaseState::Missing if has_old_store() => Some(format!("{missing}; {OLD_STORE_NOTE}")),
        DatabaseState::Missing => Some(format!("{missing} ({way_out})")),
        DatabaseState::Empty if has_old_store() => {
            Some(format!("{database} has no sessions yet; {OLD_STORE_NOTE}"))
        }
        DatabaseState::Empty => Some(format!("{database} has no sessions yet")),
        DatabaseState::Young => Some(format!(
            "{database} is being created or restored (try again in a second)"
        )),
    }
}
