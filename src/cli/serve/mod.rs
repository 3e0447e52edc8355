//! `opencode-sessions serve`: keeps the index of sessions, or relays the events of another
//! service that keeps the same index.

mod index_place;
mod log;
mod notify;
mod relay;
mod signals;
mod source_reloader;
mod stdio;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use signal_hook::consts::SIGHUP;
use tracing::{info, warn};

use super::sources::{SourceArgs, SourceSelection};
use super::{FAILED, MarkerArgs, PROGRAM, parse_deadline, process_lister, report_error};
use crate::cli::allocator;
use crate::index::View;
use crate::service::{Config, Service, StateDir, socket};

use index_place::{IndexPlace, PlaceSearch, SearchResult};
use log::LogFormat;
use relay::{RelayEnd, relay};
use signals::{SignalDispatcher, signal_name};
use source_reloader::{SourceReloader, select_again};
use stdio::HostConnection;

pub(super) use signals::unblock_signals;

/// EX_SOFTWARE of sysexits: an internal error.
const INTERNAL_ERROR: u8 = 70;

/// EX_OSERR of sysexits: the system refused a thread.
const NO_THREADS: u8 = 71;

/// EX_TEMPFAIL of sysexits: another service keeps the index.
const IN_USE: u8 = 75;

/// EX_CONFIG of sysexits: the configuration is invalid, so a retry does not help.
const CONFIG: u8 = 78;

/// How long another service may take to send its `hello`.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// The same, if that service has just hung.
const HELLO_TIMEOUT_AFTER_HANG: Duration = Duration::from_millis(100);

/// How long the last event may take to reach the host.
const LAST_EVENT_TIMEOUT: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Events on standard output and commands on standard input, one JSON object per line; ends with standard input
    #[arg(long)]
    stdio: bool,

    #[command(flatten)]
    sources: SourceArgs,

    /// Directory that keeps the index between starts [default: opencode-sessions in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// The helper program [default: the opencode-lister beside this program]
    #[arg(long, value_name = "PATH")]
    lister: Option<PathBuf>,

    /// Time limit for each listing, such as 500ms, 15s or 2m
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_deadline)]
    deadline: Duration,

    #[command(flatten)]
    marker: MarkerArgs,

    /// Keep child sessions too; the host of --stdio receives them, other programs subscribe to them
    #[arg(long)]
    children: bool,

    /// Keep archived sessions too; the host of --stdio receives them, other programs subscribe to them
    #[arg(long)]
    archived: bool,

    /// Format of the log lines on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Log more, including paths and reasons
    #[arg(long)]
    debug: bool,
}

impl ServeArgs {
    fn view(&self) -> View {
        View {
            children: self.children,
            archived: self.archived,
        }
    }
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<u8> {
    allocator::use_one_arena();
    let _flush = log::start(args.log_format, args.debug);
    let started = SignalDispatcher::start().and_then(|signals| {
        let host = args.stdio.then(|| HostConnection::open(args.view()));
        Ok((signals, host.transpose()?))
    });
    match started {
        Ok((signals, host)) => serve(args, &signals, host),
        Err(error) => Ok(report_start_error(&error)),
    }
}

fn report_start_error(error: &io::Error) -> u8 {
    report_error(PROGRAM, &format!("cannot start the service: {error}"));
    NO_THREADS
}

/// Keeps the index in this process; a host relays another service instead while one keeps the
/// same index.
fn serve(
    args: &ServeArgs,
    signals: &SignalDispatcher,
    mut host: Option<HostConnection>,
) -> anyhow::Result<u8> {
    let mut selection = match args.sources.select() {
        Ok(selection) => selection,
        Err(error) => {
            report_error(PROGRAM, &error.to_string());
            return Ok(CONFIG);
        }
    };
    let mut hello_timeout = HELLO_TIMEOUT;
    loop {
        let search = PlaceSearch {
            args,
            selection: &selection,
            is_host: host.is_some(),
            signals,
            hello_timeout,
        };
        let client = match search.run() {
            SearchResult::Free(place) => return keep_index(args, selection, place, signals, host),
            SearchResult::SameIndex(client) => client,
            SearchResult::Terminated => return Ok(0),
            SearchResult::InUse(message) => {
                report_error(PROGRAM, &message);
                return Ok(IN_USE);
            }
        };
        // The search returns another service to a host only.
        let Some(host) = &mut host else {
            return Ok(IN_USE);
        };
        let pid = client.hello().pid;
        info!(pid, "relaying the events of another service");
        let end = relay(*client, host, signals)?;
        hello_timeout = match end {
            RelayEnd::ServiceHangs => HELLO_TIMEOUT_AFTER_HANG,
            _ => HELLO_TIMEOUT,
        };
        match end {
            RelayEnd::HostDone => return Ok(0),
            RelayEnd::ServiceEnded => info!(pid, "the other service has ended"),
            RelayEnd::ServiceHangs => warn!(pid, "the other service does not answer"),
            RelayEnd::Reload => {
                host.needs_refresh = true;
                selection = select_again(&args.sources).unwrap_or(selection);
            }
        }
    }
}

/// Keeps the index in `place` until the service ends.
fn keep_index(
    args: &ServeArgs,
    selection: SourceSelection,
    place: IndexPlace,
    signals: &SignalDispatcher,
    host: Option<HostConnection>,
) -> anyhow::Result<u8> {
    let lister = match process_lister(args.lister.as_deref()) {
        Ok(lister) => lister,
        Err(failure) => {
            report_error(PROGRAM, &failure.to_string());
            return Ok(FAILED);
        }
    };
    let socket = socket::BoundSocket::bind_first(&place.sockets)
        .inspect_err(|error| {
            warn!(
                %error,
                "cannot bind the socket: `list` and `status` will not reach this service"
            );
        })
        .ok();
    let config = Config {
        sources: selection.sources.clone(),
        marker: args.marker.marker(),
        view: args.view(),
        deadline: args.deadline,
        // One lister for each source: a helper that cannot be killed blocks its own source
        // only.
        lister: Box::new(move |source| Arc::new(lister.of(source))),
        state: place.state_dir,
        supervisor: None,
    };
    let reloader = SourceReloader::new(args.sources.clone(), selection.config);
    match run_service(config, reloader, socket, signals, host) {
        Ok(true) => Ok(0),
        Ok(false) => {
            report_error(
                PROGRAM,
                "the service ended after an internal error (please report it with the message \
                 printed above)",
            );
            Ok(INTERNAL_ERROR)
        }
        Err(error) => Ok(report_start_error(&error)),
    }
}

/// Starts the service with everything around it, and waits until it ends. Returns false after
/// an internal error.
///
/// # Errors
///
/// Returns an error if the system refuses a thread.
fn run_service(
    config: Config,
    reloader: SourceReloader,
    socket: Option<socket::BoundSocket>,
    signals: &SignalDispatcher,
    host: Option<HostConnection>,
) -> io::Result<bool> {
    // The lock outlives the socket: a process that takes the lock finds no old socket.
    let lock = config.state.as_ref().map(StateDir::lock);
    let service = Service::start(Config {
        supervisor: notify::supervisor()?,
        ..config
    })?;
    let handle = service.handle();
    let reload = reloader.start(handle.clone())?;
    let signalled = handle.clone();
    signals.set_handler(move |signal| match signal {
        SIGHUP => reload.reload(),
        signal => signalled.end(signal_name(signal)),
    });
    let serving = socket
        .map(|socket| socket.serve(handle.clone()))
        .transpose()?;
    let written = host.map(|host| host.connect(&handle)).transpose()?;
    let is_ok = service.wait();
    if let Some(written) = written {
        // The pipe to the host may be full.
        let _ = written.recv_timeout(LAST_EVENT_TIMEOUT);
    }
    drop(serving);
    drop(lock);
    Ok(is_ok)
}
