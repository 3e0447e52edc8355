//! `opencode-sessions list`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::project_filter::ProjectFilter;
use super::sources::{EmptyReason, SelectionError, SourceArgs, SourceSelection, source_listers};
use super::streams::results;
use super::wait_notice::WaitNotice;
use super::{FAILED, MarkerArgs, PROGRAM, parse_deadline, process_lister, report_error};
use crate::cli::service_sockets;
use crate::entry::Sourced;
use crate::index::{Index, Moment, View};
use crate::launch::ProcessLister;
use crate::lister::{Cancel, ListRequest, Outcome, SCAN_BUDGET, ScanCache, until};
use crate::marker_text::MarkerText;
use crate::output::{self, Columns, Terminal, TimeColumn};
use crate::query::{self, SourceLister};
use crate::service::SourcePlace;
use crate::service::client::{self, Client};
use crate::session::{Millis, Session};
use crate::source::{Place, Source};
use crate::wire::{Listing, limits};

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    sources: SourceArgs,

    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Print at most N sessions
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Order of the sessions
    #[arg(long, value_enum, default_value_t = Sort::Updated)]
    sort: Sort,

    /// Only sessions of the project that PATH is in
    #[arg(long, value_name = "PATH")]
    project: Option<PathBuf>,

    /// Include archived sessions
    #[arg(long)]
    archived: bool,

    /// Include child sessions
    #[arg(long)]
    children: bool,

    /// Include subagents in the table; the other formats always include them
    #[arg(long)]
    all_marked: bool,

    #[command(flatten)]
    marker: MarkerArgs,

    /// Time limit for the whole command, such as 500ms, 15s or 2m
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_deadline)]
    deadline: Duration,

    /// Read the databases even if a running service knows the answer
    #[arg(long)]
    no_service: bool,

    /// The helper program [default: the opencode-lister beside this program]
    #[arg(long, value_name = "PATH")]
    lister: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: title, project, time, id
    Table,
    /// One JSON array
    Json,
    /// One JSON object per line
    Ndjson,
    /// Tab-separated values with a header
    Tsv,
    /// One id per line
    Ids,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Last updated first
    Updated,
    /// Newest message or update first
    Activity,
    /// Last created first
    Created,
    /// By title, or by the first prompt of an untitled session
    Title,
}

pub(super) fn run(args: &ListArgs) -> anyhow::Result<u8> {
    let until = until(args.deadline);
    let filter = args.project.as_deref();
    let filter = filter.map(|path| ProjectFilter::start(path, until));
    let filter = filter.transpose()?;
    let selection = match args.sources.select() {
        Ok(selection) => selection,
        Err(error @ SelectionError::InMemory) => {
            print(args, false, &[])?;
            report_error(PROGRAM, &error.to_string());
            return Ok(0);
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(sessions) = sessions_of_service(args, &selection, until) {
        present(args, &selection, filter.as_ref(), sessions, false)?;
        return Ok(0);
    }
    let helper = process_lister(args.lister.as_deref())?;
    list(args, &selection, filter.as_ref(), &helper, until)
}

fn list(
    args: &ListArgs,
    selection: &SourceSelection,
    filter: Option<&ProjectFilter>,
    helper: &ProcessLister,
    until: Instant,
) -> anyhow::Result<u8> {
    let sources = &selection.sources;
    let source_listers = source_listers(sources, helper);
    let outcomes = list_sources(args, &source_listers, until);
    let mut index = Index::new(sources);
    let now = Moment {
        wall: Millis::now(),
        // This index merges one listing of each source, so no time passes in it.
        monotonic: Duration::ZERO,
    };
    let mut failed = 0;
    let mut is_explained = false;
    for (source_lister, outcome) in source_listers.iter().zip(outcomes) {
        let source = &source_lister.source;
        match report_outcome(selection, source, outcome, &mut is_explained) {
            Some(listing) => {
                let listed = query::listed(listing, None, &source_lister.projects(), until);
                index.merge(&source.name, listed, now);
            }
            None => failed += 1,
        }
    }
    if failed == sources.len() {
        return Ok(FAILED);
    }
    let view = View {
        children: true,
        archived: args.archived,
    };
    let sessions = index.sessions(view).iter().map(Sourced::parse).collect();
    present(args, selection, filter, sessions, is_explained)?;
    Ok(if failed == 0 { 0 } else { FAILED })
}

fn list_sources(args: &ListArgs, source_listers: &[SourceLister], until: Instant) -> Vec<Outcome> {
    let names = source_listers.iter().map(|one| &one.source.name);
    let waiting = WaitNotice::start(names, until);
    let request = |source: &Source| ListRequest {
        db: source.db(),
        marker: args.marker.marker(),
        children: args.children,
        archived: args.archived || query::lists_archived(source_listers.len()),
        deadline: until.saturating_duration_since(Instant::now()),
        scan_cache: Some(ScanCache::Auto),
        scan_budget: Some(SCAN_BUDGET),
        first_prompt_limit: limits::FIRST_PROMPT,
        cancel: Cancel::default(),
        known: None,
        only_differences: false,
    };
    query::list(source_listers, request, |source| {
        waiting.answered(&source.name);
    })
}

/// Reports what is wrong with the listing of one source. Returns the listing, or `None` if
/// the source failed. Sets `is_explained` if a message says why the source has no sessions.
fn report_outcome(
    selection: &SourceSelection,
    source: &Source,
    outcome: Outcome,
    is_explained: &mut bool,
) -> Option<Listing> {
    let report = |message: &str| match selection.has_several() {
        true => report_error(PROGRAM, &format!("{}: {message}", source.name)),
        false => report_error(PROGRAM, message),
    };
    let listing = match outcome {
        Outcome::Complete(listing) => listing,
        failure => {
            report(&failure.to_string());
            return None;
        }
    };
    match selection.empty_reason(source, &listing.end) {
        None => {}
        Some(EmptyReason::Expected(message)) => {
            report(&message);
            *is_explained = true;
        }
        Some(EmptyReason::Wrong(message)) => {
            report(&message);
            return None;
        }
    }
    for note in listing.end.notes() {
        report_error(PROGRAM, &format!("{}: {note}", source.name));
    }
    let invalid = listing.end.skipped.invalid_id;
    if invalid > 0 {
        let place = &source.place;
        report(&format!(
            "{place}: rows without a valid id, left out: {invalid}"
        ));
    }
    Some(listing)
}

/// Returns the sessions of a running service if it knows the whole answer: it has the same
/// sources, searches for the same marker, and its last listings were complete.
///
/// Takes at most half of the time until `until`, so that the other half is left for a listing
/// by this process; and at most [`client::DEFAULT_TIMEOUT`] if no source is a command.
fn sessions_of_service(
    args: &ListArgs,
    selection: &SourceSelection,
    until: Instant,
) -> Option<Vec<Sourced>> {
    if args.no_service || args.archived || args.children || args.lister.is_some() {
        return None;
    }
    let now = Instant::now();
    let half = until.saturating_duration_since(now) / 2;
    let soon = now + client::DEFAULT_TIMEOUT.min(half);
    let mut service = Client::connect_first(&service_sockets(None), soon).ok()?;
    let is_remote = |source: &Source| matches!(source.place, Place::Remote(_));
    service.set_deadline(match selection.sources.iter().any(is_remote) {
        true => now + half,
        false => soon,
    });
    let _waiting = WaitNotice::start(["the service"], until);
    let hello = service.hello();
    if !SourcePlace::include(&hello.sources, &selection.sources)
        || hello.marker != args.marker.marker()
    {
        return None;
    }
    let is_selected = |place: &SourcePlace| selection.sources.iter().any(|one| place.is_same(one));
    let others = hello.sources.iter().filter(|place| !is_selected(place));
    let others: Vec<_> = others.map(|place| place.source.clone()).collect();
    let snapshot = service.refresh().ok()?;
    let is_usable = snapshot.sources.iter().all(|source| {
        let state = source.health.state.as_str();
        match others.contains(&source.source) {
            false => state == "ok",
            // A discovered database that has been deleted since.
            true => state == "missing" && selection.config.discover,
        }
    });
    is_usable.then_some(snapshot.sessions)
}

/// Filters, sorts and prints the sessions. Then reports how many are not shown, unless there
/// are none and a message has explained that already.
fn present(
    args: &ListArgs,
    selection: &SourceSelection,
    filter: Option<&ProjectFilter>,
    mut sessions: Vec<Sourced>,
    is_explained: bool,
) -> anyhow::Result<()> {
    let is_explained = is_explained && sessions.is_empty();
    if let Some(filter) = filter {
        filter.retain(&mut sessions, args.deadline)?;
    }
    sort(&mut sessions, args.sort);
    let mut counts = Counts {
        all: sessions.len(),
        ..Counts::default()
    };
    if args.format == Format::Table && !args.all_marked {
        sessions.retain(|session| session.entry.session.marked != Some(true));
        counts.hidden = counts.all - sessions.len();
    }
    sessions.truncate(args.limit.unwrap_or(usize::MAX));
    counts.shown = sessions.len();
    print(args, selection.has_several(), &sessions)?;
    let is_default_marker = args.marker.marker == MarkerText::default();
    if args.format == Format::Table
        && !is_explained
        && let Some(footer) = counts.footer(filter.is_some(), is_default_marker)
    {
        report_error(PROGRAM, &footer);
    }
    Ok(())
}

/// The numbers of sessions for the footer of a table.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// The sessions that the options select.
    all: usize,
    /// The sessions in the table.
    shown: usize,
    /// The sessions that are left out because they are marked.
    hidden: usize,
}

impl Counts {
    /// Returns the line below a table that does not show all sessions.
    fn footer(self, is_of_project: bool, is_default_marker: bool) -> Option<String> {
        let Self { all, shown, hidden } = self;
        if all > 0 && shown == all {
            return None;
        }
        let of = match is_of_project {
            true => " of this project",
            false => "",
        };
        let kind = match is_default_marker {
            true => "Freshell subagent",
            false => "marked session",
        };
        let hidden = match hidden {
            0 => String::new(),
            1 => format!("; 1 {kind} hidden (--all-marked shows it)"),
            more => format!("; {more} {kind}s hidden (--all-marked shows them)"),
        };
        Some(match all {
            0 => format!("no sessions{of}"),
            1 => format!("{shown} of 1 session{of}{hidden}"),
            _ => format!("{shown} of {all} sessions{of}{hidden}"),
        })
    }
}

fn print(args: &ListArgs, has_several_sources: bool, sessions: &[Sourced]) -> io::Result<()> {
    let mut out = results();
    match args.format {
        Format::Table => {
            let columns = Columns {
                time: args.sort.time_column(),
                sources: has_several_sources,
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
    /// Returns the time that this order is by; for an order by title, the update.
    fn time_column(self) -> TimeColumn {
        match self {
            Self::Updated | Self::Title => TimeColumn::Updated,
            Self::Activity => TimeColumn::Activity,
            Self::Created => TimeColumn::Created,
        }
    }
}

/// Sorts sessions. Those that are equal in this order are sorted by id, as the helper does.
fn sort(sessions: &mut [Sourced], by: Sort) {
    match by {
        Sort::Updated => sort_newest_first(sessions, |session| session.time_updated),
        Sort::Activity => sort_newest_first(sessions, Session::active_at),
        Sort::Created => sort_newest_first(sessions, |session| session.time_created),
        Sort::Title => sessions.sort_by_cached_key(|Sourced { entry, .. }| {
            let title = entry.session.headline().unwrap_or_default();
            (title.trim().to_lowercase(), entry.session.id.clone())
        }),
    }
}

fn sort_newest_first(sessions: &mut [Sourced], time: impl Fn(&Session) -> Option<Millis>) {
    sessions.sort_by(|a, b| {
        let (a, b) = (&a.entry.session, &b.entry.session);
        time(b).cmp(&time(a)).then_with(|| a.id.cmp(&b.id))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footer_counts_sessions_that_are_not_shown() {
        for (all, shown, hidden, is_of_project, expected) in [
            (18, 18, 0, false, None),
            (18, 5, 0, false, Some("5 of 18 sessions")),
            (
                18,
                5,
                1,
                false,
                Some("5 of 18 sessions; 1 Freshell subagent hidden (--all-marked shows it)"),
            ),
            (
                18,
                16,
                2,
                true,
                Some(
                    "16 of 18 sessions of this project; 2 Freshell subagents hidden \
                     (--all-marked shows them)",
                ),
            ),
            (
                1,
                0,
                1,
                false,
                Some("0 of 1 session; 1 Freshell subagent hidden (--all-marked shows it)"),
            ),
            (3, 0, 0, false, Some("0 of 3 sessions")),
            (0, 0, 0, false, Some("no sessions")),
            (0, 0, 0, true, Some("no sessions of this project")),
        ] {
            let counts = Counts { all, shown, hidden };
            assert_eq!(
                counts.footer(is_of_project, true).as_deref(),
                expected,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn footer_with_another_marker_does_not_name_freshell() {
        for (hidden, expected) in [
            (
                1,
                "0 of 1 session; 1 marked session hidden (--all-marked shows it)",
            ),
            (
                2,
                "0 of 2 sessions; 2 marked sessions hidden (--all-marked shows them)",
            ),
        ] {
            let counts = Counts {
                all: hidden,
                shown: 0,
                hidden,
            };
            assert_eq!(counts.footer(false, false).as_deref(), Some(expected));
        }
    }
}
