//! `opencode-sessions serve`.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use signal_hook::consts::SIGHUP;
use tracing::{info, warn};

use super::allocator;
use super::host::{Signalled, lines_of_stdin, name_of};
use super::log::{self, LogFormat};
use super::relay::{Ended, Host, relay};
use super::reload::{SourceReloader, read_again};
use super::sessions::NAME;
use super::sources::{Chosen, SourceArgs};
use super::streams::Stdout;
use super::{DeadlineArgs, FAILED, MarkerArgs, process_lister, report_error};
use crate::dirs;
use crate::index::View;
use crate::marker_text::MarkerText;
use crate::service::client::{Client, ConnectError};
use crate::service::{
    Config, Handle, Notice, Service, SourcePlace, StateDir, StateError, Supervisor, capabilities,
    lines, slots, socket,
};

/// EX_OSERR of sysexits: the system gives no thread.
const NO_THREADS: u8 = 71;

/// EX_TEMPFAIL of sysexits: another service has the index.
const HELD: u8 = 75;

/// EX_CONFIG of sysexits: the configuration is wrong, and trying again does not help.
const CONFIG: u8 = 78;

/// EX_SOFTWARE of sysexits: this program has a fault.
const FAULT: u8 = 70;

/// How long a process that has the index may take until it answers: it is just starting,
/// or just ending.
const STARTING: Duration = Duration::from_secs(2);

/// How long a service may take for its first word.
const ANSWER: Duration = Duration::from_secs(1);

/// The same, where one just did not answer.
const ANSWER_AGAIN: Duration = Duration::from_millis(100);

/// What a supervisor is still to be told, at most.
const UNTOLD: usize = 64;

/// How long it may take to tell a supervisor that this ends.
const LAST_NOTICE: Duration = Duration::from_millis(100);

/// How long the last event may take to reach a reader.
const LAST_WORDS: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Events on standard output and commands on standard input, one JSON object a line; ends with standard input
    #[arg(long)]
    stdio: bool,

    #[command(flatten)]
    sources: SourceArgs,

    /// Where the index is kept [default: opencode-sessions in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// The helper [default: the opencode-lister beside this program]
    #[arg(long, value_name = "PATH")]
    lister: Option<PathBuf>,

    #[command(flatten)]
    deadline: DeadlineArgs,

    #[command(flatten)]
    marker: MarkerArgs,

    /// Keep child sessions too, for those who subscribe to them, as a host with this option does
    #[arg(long)]
    children: bool,

    /// Keep archived sessions too, for those who subscribe to them, as a host with this option does
    #[arg(long)]
    archived: bool,

    /// How log lines look, on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Log more, also paths and reasons
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

pub(super) fn run(args: &ServeArgs) -> io::Result<u8> {
    allocator::use_one_arena();
    let _flush = log::start(args.log_format, args.debug);
    // None is missed from here on.
    let started = Signalled::start().and_then(|signals| {
        let lines = args.stdio.then(lines_of_stdin).transpose()?;
        Ok((signals, lines))
    });
    let (signals, lines) = match started {
        Ok(started) => started,
        Err(error) => return Ok(not_started(&error)),
    };
    let Some(lines) = lines else {
        return serve(args, &signals, None);
    };
    let host = Host {
        lines,
        unanswered: VecDeque::new(),
        is_greeted: false,
        view: args.view(),
        reloads: false,
    };
    serve(args, &signals, Some(host))
}

fn not_started(error: &io::Error) -> u8 {
    report_error(NAME, &format!("the service cannot be started: {error}"));
    NO_THREADS
}

/// Keeps the index, or passes on another's events, until neither is wanted any more.
fn serve(args: &ServeArgs, signals: &Signalled, mut host: Option<Host>) -> io::Result<u8> {
    let mut patience = ANSWER;
    let mut chosen = match args.sources.choose() {
        Ok(chosen) => chosen,
        Err(none) => {
            report_error(NAME, none.why());
            return Ok(CONFIG);
        }
    };
    loop {
        let place = match Place::find(args, &chosen, host.is_some(), signals, patience) {
            Found::Own(place) => place,
            Found::Other(other) => {
                let Some(host) = &mut host else {
                    return Ok(HELD);
                };
                let pid = other.hello().pid;
                info!(
                    pid,
                    "another service has the same sources: passing on its events"
                );
                let ended = relay(*other, host, signals)?;
                patience = match ended {
                    Ended::Hangs => ANSWER_AGAIN,
                    _ => ANSWER,
                };
                match ended {
                    Ended::Done => return Ok(0),
                    Ended::Gone => info!(pid, "the other service has ended"),
                    Ended::Hangs => warn!(pid, "the other service does not answer"),
                    Ended::Reload => {
                        host.reloads = true;
                        chosen = read_again(&args.sources).unwrap_or(chosen);
                    }
                }
                continue;
            }
            Found::Ended => return Ok(0),
            Found::Refused(why) => {
                report_error(NAME, &why);
                return Ok(HELD);
            }
        };
        return own(args, chosen, place, signals, host);
    }
}

/// Keeps the index in this place until its end.
fn own(
    args: &ServeArgs,
    chosen: Chosen,
    place: Place,
    signals: &Signalled,
    host: Option<Host>,
) -> io::Result<u8> {
    let lister = match process_lister(args.lister.as_deref()) {
        Ok(lister) => lister,
        Err(failure) => {
            report_error(NAME, &failure.to_string());
            return Ok(FAILED);
        }
    };
    let socket = socket::Bound::first_of(&place.sockets)
        .inspect_err(
            |error| warn!(%error, "there is no socket: list and status will not find this service"),
        )
        .ok();
    let config = Config {
        sources: chosen.sources.clone(),
        marker: args.marker.marker(),
        view: args.view(),
        deadline: args.deadline.deadline,
        // Each source has its own: a helper that does not die holds up no other's.
        lister: Box::new(move |source| Arc::new(lister.of(source))),
        state: place.state,
        supervisor: None,
    };
    let keeper = SourceReloader::new(args.sources.clone(), chosen);
    match until_its_end(config, keeper, socket, signals, host) {
        Ok(true) => Ok(0),
        Ok(false) => {
            report_error(
                NAME,
                "the service has a fault and ended; what it printed above says where: please report it",
            );
            Ok(FAULT)
        }
        Err(error) => Ok(not_started(&error)),
    }
}

/// Starts the service and everything around it, and waits until it has ended. False where
/// it has a fault.
fn until_its_end(
    config: Config,
    keeper: SourceReloader,
    socket: Option<socket::Bound>,
    signals: &Signalled,
    host: Option<Host>,
) -> io::Result<bool> {
    // Whoever finds the lock free must find the socket gone, too.
    let hold = config.state.as_ref().map(StateDir::hold);
    let service = Service::start(Config {
        supervisor: supervisor()?,
        ..config
    })?;
    let handle = service.handle();
    let reload = keeper.keep(handle.clone())?;
    let to_end = handle.clone();
    signals.go_to(move |signal| match signal {
        SIGHUP => reload.ask(),
        signal => to_end.end(name_of(signal)),
    });
    let serving = socket
        .map(|socket| socket.serve(handle.clone()))
        .transpose()?;
    let written = host.map(|host| talk(&handle, host)).transpose()?;
    let is_well = service.wait();
    if let Some(written) = written {
        // The last event is on its way to a pipe that may be full.
        let _ = written.recv_timeout(LAST_WORDS);
    }
    drop(serving);
    drop(hold);
    Ok(is_well)
}

/// Where an index is to be kept.
struct Place {
    /// `None` where there is none that can be used.
    state: Option<StateDir>,
    sockets: Vec<PathBuf>,
}

/// What a look for a place came to.
enum Found {
    /// This one.
    Own(Place),
    /// Another service keeps the same index, and answers.
    Other(Box<Client>),
    /// A signal says that it is over.
    Ended,
    /// None, for this reason.
    Refused(String),
}

impl Place {
    /// A place for an index of these sources, or who has one. A host takes the first that
    /// nobody has, or where the same is kept: an index of another configuration, and one
    /// that does not answer, keep theirs. Others have one place.
    fn find(
        args: &ServeArgs,
        chosen: &Chosen,
        is_host: bool,
        signals: &Signalled,
        answer: Duration,
    ) -> Found {
        let Some(first) = args.state_dir.clone().or_else(dirs::state_dir) else {
            warn!(
                "there is no home directory and no --state-dir: nothing will be known after a restart"
            );
            let sockets = socket::places(None);
            return Found::Own(Self {
                state: None,
                sockets,
            });
        };
        let mut refused = String::new();
        for (number, directory) in slots(&first).enumerate() {
            let sockets = match &args.state_dir {
                None if number == 0 => socket::places(Some(&directory)),
                // Who names a place of its own is found there.
                _ => vec![directory.join("socket")],
            };
            let patience = Instant::now() + STARTING;
            let (held, why) = loop {
                if signals.ending().is_some() {
                    return Found::Ended;
                }
                let held = match StateDir::open(&directory) {
                    Ok(state) => {
                        let state = Some(state);
                        return Found::Own(Self { state, sockets });
                    }
                    Err(error @ StateError::Unusable { .. }) => {
                        warn!("{error}: nothing will be known after a restart");
                        let state = None;
                        return Found::Own(Self { state, sockets });
                    }
                    Err(held) => held,
                };
                let marker = args.marker.marker();
                let wanted = (chosen, marker.as_ref(), args.view());
                match other_service(wanted, &sockets, answer) {
                    Other::Same(other) if is_host => return Found::Other(other),
                    // It may be just starting, or just ending.
                    Other::Not(ConnectError::None) if is_host && Instant::now() < patience => {
                        thread::sleep(Duration::from_millis(20));
                    }
                    other => break (held, other),
                }
            };
            refused = format!("{held}; {}", why.way_out());
            if !is_host {
                break;
            }
            info!("{refused}: looking for another place");
        }
        if is_host {
            warn!("there is no place for another index: nothing will be known after a restart");
            return Found::Own(Self {
                state: None,
                sockets: Vec::new(),
            });
        }
        Found::Refused(refused)
    }
}

/// Events to standard output, commands from standard input. The receiver hears
/// when the last event was written.
fn talk(service: &Handle, host: Host) -> io::Result<mpsc::Receiver<()>> {
    let mut events = service.subscribe();
    let reply_to = events.reply_to();
    let (done, written) = mpsc::channel();
    let writing = service.clone();
    let Host {
        lines,
        unanswered,
        is_greeted,
        ..
    } = host;
    thread::Builder::new()
        .name("events".into())
        .spawn(move || {
            if is_greeted {
                // Of this process: its host knows it as the one before.
                let _hello = events.next();
            }
            if lines::write_events(events, Stdout).is_err() {
                writing.end("nobody reads its output");
            }
            let _ = done.send(());
        })?;
    let reading = service.clone();
    thread::Builder::new()
        .name("commands".into())
        .spawn(move || {
            for line in unanswered.into_iter().chain(lines) {
                if !lines::command(&line, &reading, &reply_to) {
                    break;
                }
            }
            reading.end("its standard input ended");
        })?;
    Ok(written)
}

/// What systemd wants to hear, where it is systemd that started this. The loop
/// says it, and a thread passes it on: sending waits where nobody reads.
fn supervisor() -> io::Result<Option<Supervisor>> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(None);
    }
    let (tell, told) = mpsc::sync_channel::<String>(UNTOLD);
    let (done, is_told) = mpsc::channel::<()>();
    thread::Builder::new()
        .name("notify".into())
        .spawn(move || {
            let _done = done;
            let stopping = NotifyState::Stopping.to_string();
            for states in told {
                if let Err(error) = sd_notify::notify(&[NotifyState::Custom(&states)]) {
                    tracing::debug!(%error, "the supervisor was not told");
                }
                if states == stopping {
                    break;
                }
            }
        })?;
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(Duration::from_secs(3600), |every| every / 2);
    let notify = move |notify: Notice<'_>| {
        let states = match notify {
            Notice::Alive if watchdog.is_none() => return,
            Notice::Alive => NotifyState::Watchdog.to_string(),
            Notice::Ready => NotifyState::Ready.to_string(),
            Notice::Status(line) => NotifyState::Status(line).to_string(),
            Notice::Ending => NotifyState::Stopping.to_string(),
            Notice::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => format!("{}\n{now}", NotifyState::Reloading),
                Err(_) => return,
            },
        };
        // What a supervisor that does not read misses it has no use for.
        let _ = tell.try_send(states);
        if notify == Notice::Ending {
            let _ = is_told.recv_timeout(LAST_NOTICE);
        }
    };
    Ok(Some(Supervisor {
        every,
        notify: Box::new(notify),
    }))
}

/// Who answers where another service has the index.
enum Other {
    /// One with the same sources and marker.
    Same(Box<Client>),
    /// Only others.
    Different,
    /// Nobody, for this reason.
    Not(ConnectError),
}

impl Other {
    fn way_out(&self) -> String {
        let else_where = "name another place with --state-dir";
        match self {
            Self::Same(_) => format!("end it first, or {else_where}"),
            Self::Different => format!(
                "it has other sources, another marker or fewer sessions: {else_where}, or, \
                 where its configuration has changed, send it SIGHUP"
            ),
            Self::Not(ConnectError::None) => {
                format!("it does not answer, so end it first, or {else_where}")
            }
            Self::Not(why) => format!("{why}; or {else_where}"),
        }
    }
}

fn other_service(
    (chosen, marker, view): (&Chosen, Option<&MarkerText>, View),
    places: &[PathBuf],
    answer: Duration,
) -> Other {
    let is_same = |other: &Client| {
        let hello = other.hello();
        // One that looks for new databases can have found more, or have others still.
        let are_same = match chosen.config.discover {
            true => SourcePlace::include(&hello.sources, &chosen.sources),
            false => SourcePlace::are(&hello.sources, &chosen.sources),
        };
        let can = |what: String| hello.capabilities.contains(&what);
        let sees_all = capabilities(view).into_iter().all(can);
        are_same && sees_all && hello.marker.as_ref() == marker
    };
    let mut found = Other::Not(ConnectError::None);
    for place in places {
        match Client::at(place, Instant::now() + answer) {
            Ok(client) if is_same(&client) => return Other::Same(Box::new(client)),
            Ok(_) => found = Other::Different,
            Err(ConnectError::None) => {}
            Err(why) if matches!(found, Other::Not(_)) => found = Other::Not(why),
            Err(_) => {}
        }
    }
    found
}
