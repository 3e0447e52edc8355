//! Asking several sources at once, each with a lister and a deadline of its own: it
//! takes as long as the slowest, and none speaks for another.

mod look_up;
mod result;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::entry::RowPlace;
use crate::index::Listed;
use crate::lister::{FailureReason, ListRequest, Lister, Outcome};
use crate::locate;
use crate::project::Projects;
use crate::source::{Place, Source};
use crate::text::DisplayPath;
use crate::wire::{DatabaseState, Listing, other_tables_line};

pub use look_up::{LookUpJob, LookUpSource, LookedUp};
pub use result::LookUpResult;

/// A source, and what asks it.
#[derive(Clone)]
pub struct SourceLister {
    /// The source.
    pub source: Source,
    /// Its lister.
    pub lister: Arc<dyn Lister + Send + Sync>,
}

impl SourceLister {
    /// What finds the projects of this source's sessions: of another machine's no
    /// directory is looked at here.
    #[must_use]
    pub fn projects(&self) -> Projects {
        match self.source.place {
            Place::Database(_) => Projects::new(),
            Place::Remote(_) => Projects::remote(),
        }
    }
}

/// Whether so many sources are to list archived sessions, too, also where these are not
/// shown: that a session is archived hides its older copies in other sources.
#[must_use]
pub fn lists_archived(sources: usize) -> bool {
    sources > 1
}

/// Returns the rows of a listing for the index. Their projects are found within what is left
/// until the deadline.
#[must_use]
pub fn listed(listing: Listing, projects: &Projects, until: Instant) -> Listed {
    let mut rows = listing.rows;
    projects.resolve(rows.iter().map(|row| row.place()), until);
    // Rows share their places, and so their projects.
    let mut projects_of: HashMap<*const RowPlace, (Option<Arc<str>>, bool)> = HashMap::new();
    for row in &mut rows {
        let (project, is_gone) = projects_of
            .entry(row.place_key())
            .or_insert_with(|| {
                let (project, is_gone) = projects.of(row.place());
                (project.map(Into::into), is_gone)
            })
            .clone();
        row.set_project(project, is_gone);
    }
    Listed {
        database: listing.end.database,
        rows,
    }
}

/// Lists each source, and waits for all: one outcome a source, in order. `done` is told of
/// each when it is there.
#[must_use]
pub fn list(
    sources: &[SourceLister],
    request: impl Fn(&Source) -> ListRequest + Sync,
    done: impl Fn(&Source) + Sync,
) -> Vec<Outcome> {
    at_once(
        sources,
        |source_lister| {
            let outcome = source_lister.lister.list(&request(&source_lister.source));
            done(&source_lister.source);
            outcome
        },
        |why| Outcome::Failed(FailureReason::Thread(why).into()),
    )
}

/// Does `ask` for each source on a thread of its own, where there are several, and waits
/// for all. The thread that launches a helper must outlive it.
fn at_once<S: Sync, T: Send>(
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
                .unwrap_or_else(|_| failed("the thread that asked has failed".to_owned())),
            Err(error) => failed(format!("there is no thread to ask with: {error}")),
        });
        results.collect()
    })
}

/// What to say where sessions are, but not in a database.
pub const OLD_STORE: &str = "there are sessions of OpenCode 1.1 or earlier beside it, in \
     storage/session: starting OpenCode 1.2 to 1.15 imports them";

/// What to say where the log of a database can be elsewhere
/// ([`DatabaseFiles::log_can_be_elsewhere`](crate::locate::DatabaseFiles::log_can_be_elsewhere)).
pub const LOG_ELSEWHERE: &str = "the log of this database can be elsewhere: none is beside it, and its \
     file has another hard link or is mounted by itself. The newest sessions are missing here if they \
     are only in that log: name the database by the path that OpenCode uses, or mount its whole \
     directory";

/// What is wrong with a source whose database has these tables and none of sessions, for
/// people; `None` where it has no tables at all, as one that OpenCode has just made.
#[must_use]
pub fn why_another_programs(source: &Source, tables: &[String]) -> Option<String> {
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

/// Why a source whose database is in this state has no sessions, for people, with the
/// way out; `None` where it can have some.
#[must_use]
pub fn why_empty(source: &Source, state: DatabaseState) -> Option<String> {
    let (database, none, elsewhere) = match &source.place {
        Place::Database(path) => {
            let path_shown = DisplayPath(path);
            (
                format!("the database at {path_shown}"),
                format!("there is no database at {path_shown}"),
                "has OpenCode been run? Name another with --db, or in the configuration",
            )
        }
        Place::Remote(_) => (
            format!("the database of {}", source.name),
            format!("{} has no database", source.name),
            "has OpenCode been run there? Name another with `db` in the configuration",
        ),
    };
    let has_old_store = || match &source.place {
        Place::Database(path) => locate::has_old_store(path),
        Place::Remote(_) => false,
    };
    match state {
        DatabaseState::Ready => None,
        DatabaseState::Missing if has_old_store() => Some(format!("{none}; {OLD_STORE}")),
        DatabaseState::Missing => Some(format!("{none}; {elsewhere}")),
        DatabaseState::Empty if has_old_store() => {
            Some(format!("{database} has no sessions yet; {OLD_STORE}"))
        }
        DatabaseState::Empty => Some(format!("{database} has no sessions yet")),
        DatabaseState::Young => Some(format!(
            "{database} is just being made or restored; try again in a second"
        )),
    }
}
