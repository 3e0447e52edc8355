//! `opencode-sessions list`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::sessions::NAME;
use super::sources::{Chosen, NoSources, SourceArgs, WhyEmpty, source_lister};
use super::status::places;
use super::streams::results;
use super::waiting::Waiting;
use super::wanted::Wanted;
use super::{DeadlineArgs, FAILED, MarkerArgs, process_lister, report_error};
use crate::entry::Sourced;
use crate::index::{Index, Moment, View};
use crate::launch::ProcessLister;
use crate::lister::{Cancel, ListRequest, Outcome, SCAN_BUDGET, ScanCache, until};
use crate::output::{self, Columns, Terminal, TimeColumn};
use crate::query;
use crate::service::SourcePlace;
use crate::service::client::{self, Client};
use crate::session::{Millis, Session};
use crate::source::{Place, Source};
use crate::wire::limits;

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    sources: SourceArgs,

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
    let until = until(args.deadline.deadline);
    let wanted = args.project.as_deref();
    let wanted = wanted.map(|path| Wanted::start(path, until)).transpose()?;
    let wanted = wanted.as_ref();
    let chosen = match args.sources.choose() {
        Ok(chosen) => chosen,
        Err(none @ NoSources::InMemory) => {
            print(args, false, &[])?;
            report_error(NAME, none.why());
            return Ok(0);
        }
        Err(none) => {
            report_error(NAME, none.why());
            return Ok(FAILED);
        }
    };
    if let Some(sessions) = known_by_a_service(args, &chosen, until) {
        present(args, &chosen, wanted, sessions, false)?;
        return Ok(0);
    }
    match process_lister(args.lister.as_deref()) {
        Ok(helper) => list(args, &chosen, wanted, &helper, until),
        Err(failure) => {
            report_error(NAME, &failure.to_string());
            Ok(FAILED)
        }
    }
}

fn list(
    args: &ListArgs,
    chosen: &Chosen,
    wanted: Option<&Wanted>,
    helper: &ProcessLister,
    until: Instant,
) -> io::Result<u8> {
    let sources = &chosen.sources;
    let source_lister = source_lister(sources, helper);
    let waiting = Waiting::begin(sources.iter().map(|source| &source.name), until);
    let request = |source: &Source| ListRequest {
        db: source.db(),
        marker: args.marker.marker(),
        children: args.children,
        archived: args.archived || query::lists_archived(sources.len()),
        deadline: until.saturating_duration_since(Instant::now()),
        scan_cache: Some(ScanCache::Auto),
        scan_budget: Some(SCAN_BUDGET),
        first_prompt_limit: limits::FIRST_PROMPT,
        cancel: Cancel::default(),
        known: None,
    };
    let outcomes = query::list(&source_lister, request, |source| {
        waiting.is_there(&source.name)
    });
    drop(waiting);
    let mut index = Index::new(sources);
    let now = Moment {
        wall: Millis::now(),
        // An index that takes each source once waits for nothing.
        monotonic: Duration::ZERO,
    };
    let mut failed = 0;
    let mut is_explained = false;
    for (source_lister, outcome) in source_lister.iter().zip(outcomes) {
        let source = &source_lister.source;
        let say = |sentence: &str| match chosen.are_several() {
            true => report_error(NAME, &format!("{}: {sentence}", source.name)),
            false => report_error(NAME, sentence),
        };
        let listing = match outcome {
            Outcome::Complete(listing) => listing,
            failure => {
                say(&failure.to_string());
                failed += 1;
                continue;
            }
        };
        match chosen.why_empty(source, &listing.end) {
            None => {}
            Some(WhyEmpty::Fine(why)) => {
                say(&why);
                is_explained = true;
            }
            Some(WhyEmpty::Wrong(why)) => {
                say(&why);
                failed += 1;
                continue;
            }
        }
        for note in listing.end.notes() {
            report_error(NAME, &format!("{}: {note}", source.name));
        }
        let invalid = listing.end.skipped.invalid_id;
        if invalid > 0 {
            let place = &source.place;
            say(&format!(
                "{invalid} rows of {place} have no valid id and are left out"
            ));
        }
        let listed = query::listed(listing, &source_lister.projects(), until);
        index.merge(&source.name, listed, now);
    }
    if failed == sources.len() {
        return Ok(FAILED);
    }
    let view = View {
        children: true,
        archived: args.archived,
    };
    let sessions = index.sessions(view).iter().map(Sourced::parse).collect();
    present(args, chosen, wanted, sessions, is_explained)?;
    Ok(if failed == 0 { 0 } else { FAILED })
}

/// What a running service knows, where that is exactly what was asked: the same
/// sources, the same marker, and its last listings were complete. Takes at most half of
/// what is left of the command's deadline, so that a listing of one's own has the rest; and
/// where nothing but this machine's disk has to answer, no longer than that should take.
fn known_by_a_service(args: &ListArgs, chosen: &Chosen, until: Instant) -> Option<Vec<Sourced>> {
    if args.no_service || args.archived || args.children || args.lister.is_some() {
        return None;
    }
    let now = Instant::now();
    let half = until.saturating_duration_since(now) / 2;
    let soon = now + client::PATIENCE.min(half);
    let mut service = Client::find(&places(None), soon).ok()?;
    let is_remote = |source: &Source| matches!(source.place, Place::Remote(_));
    service.must_answer_before(match chosen.sources.iter().any(is_remote) {
        true => now + half,
        false => soon,
    });
    let _waiting = Waiting::begin(["the service"], until);
    let hello = service.hello();
    if !SourcePlace::include(&hello.sources, &chosen.sources)
        || hello.marker != args.marker.marker()
    {
        return None;
    }
    let is_ours = |known: &SourcePlace| chosen.sources.iter().any(|source| known.is(source));
    let others = hello.sources.iter().filter(|known| !is_ours(known));
    let others: Vec<_> = others.map(|known| known.source.clone()).collect();
    let known = service.sessions_now().ok()?;
    let is_well = known.sources.iter().all(|known| {
        let state = known.health.state.as_str();
        match others.contains(&known.source) {
            false => state == "ok",
            // A database that is not looked for any more since it is not there.
            true => state == "missing" && chosen.config.discover,
        }
    });
    is_well.then_some(known.sessions)
}

/// Filters, sorts and prints; then says what is not shown, unless the reason why there is
/// nothing was said already.
fn present(
    args: &ListArgs,
    chosen: &Chosen,
    wanted: Option<&Wanted>,
    mut sessions: Vec<Sourced>,
    is_explained: bool,
) -> io::Result<()> {
    let is_explained = is_explained && sessions.is_empty();
    if let Some(wanted) = wanted {
        wanted.retain(&mut sessions, args.deadline.deadline)?;
    }
    sort(&mut sessions, args.sort);
    let mut count = Count {
        all: sessions.len(),
        ..Count::default()
    };
    if args.format == Format::Table && !args.all_marked {
        sessions.retain(|session| session.entry.session.marked != Some(true));
        count.hidden = count.all - sessions.len();
    }
    sessions.truncate(args.limit.unwrap_or(usize::MAX));
    count.shown = sessions.len();
    print(args, chosen.are_several(), &sessions)?;
    if args.format == Format::Table
        && !is_explained
        && let Some(said) = count.footer(wanted.is_some())
    {
        report_error(NAME, &said);
    }
    Ok(())
}

/// How many sessions there are.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// That were asked for.
    all: usize,
    /// Of these, the ones in the table.
    shown: usize,
    /// Of these, the ones that are not in the table since they carry the marker.
    hidden: usize,
}

impl Count {
    /// What to say below a table that does not show all.
    fn footer(self, is_of_project: bool) -> Option<String> {
        let Self { all, shown, hidden } = self;
        if all > 0 && shown == all {
            return None;
        }
        let of = match is_of_project {
            true => " of this project",
            false => "",
        };
        let hidden = match hidden {
            0 => String::new(),
            1 => "; 1 that carries the marker is hidden, --all-marked shows it".to_owned(),
            more => format!("; {more} that carry the marker are hidden, --all-marked shows them"),
        };
        Some(match all {
            0 => format!("no sessions{of}"),
            1 => format!("{shown} of 1 session{of}{hidden}"),
            _ => format!("{shown} of {all} sessions{of}{hidden}"),
        })
    }
}

fn print(args: &ListArgs, are_several: bool, sessions: &[Sourced]) -> io::Result<()> {
    let mut out = results();
    match args.format {
        Format::Table => {
            let columns = Columns {
                time: args.sort.time(),
                sources: are_several,
            };
            output::table(sessions, columns, &Terminal::of_stdout(), &mut out)?;
        }
        Format::Json => output::json(sessions, &mut out)?,
        Format::Ndjson => output::ndjson(sessions, &mut out)?,
        Format::Tsv => output::tsv(sessions, &mut out)?,
        Format::Ids => output::ids(sessions, &mut out)?,
    }
    out.flush()
}

impl Sort {
    /// The time that this order is by, or that is of interest beside it.
    fn time(self) -> TimeColumn {
        match self {
            Self::Updated | Self::Title => TimeColumn::Updated,
            Self::Activity => TimeColumn::Activity,
            Self::Created => TimeColumn::Created,
        }
    }
}

/// Ties by id, as in the helper's order.
fn sort(sessions: &mut [Sourced], by: Sort) {
    match by {
        Sort::Updated => newest_first(sessions, |session| session.time_updated),
        Sort::Activity => newest_first(sessions, Session::active_at),
        Sort::Created => newest_first(sessions, |session| session.time_created),
        Sort::Title => sessions.sort_by_cached_key(|Sourced { entry, .. }| {
            let title = entry.session.headline().unwrap_or_default();
            (title.trim().to_lowercase(), entry.session.id.clone())
        }),
    }
}

fn newest_first(sessions: &mut [Sourced], time: impl Fn(&Session) -> Option<Millis>) {
    sessions.sort_by(|a, b| {
        let (a, b) = (&a.entry.session, &b.entry.session);
        time(b).cmp(&time(a)).then_with(|| a.id.cmp(&b.id))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footer_counts_what_is_not_shown() {
        for (all, shown, hidden, is_of_project, expected) in [
            (18, 18, 0, false, None),
            (18, 5, 0, false, Some("5 of 18 sessions")),
            (
                18,
                5,
                1,
                false,
                Some(
                    "5 of 18 sessions; 1 that carries the marker is hidden, --all-marked shows it",
                ),
            ),
            (
                18,
                16,
                2,
                true,
                Some(
                    "16 of 18 sessions of this project; 2 that carry the marker are hidden, \
                     --all-marked shows them",
                ),
            ),
            (
                1,
                0,
                1,
                false,
                Some("0 of 1 session; 1 that carries the marker is hidden, --all-marked shows it"),
            ),
            (3, 0, 0, false, Some("0 of 3 sessions")),
            (0, 0, 0, false, Some("no sessions")),
            (0, 0, 0, true, Some("no sessions of this project")),
        ] {
            let count = Count { all, shown, hidden };
            assert_eq!(
                count.footer(is_of_project).as_deref(),
                expected,
                "{count:?}"
            );
        }
    }
}
