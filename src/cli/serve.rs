//! `opencode-sessions serve`.

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{info, warn};

use super::log::{self, LogFormat};
use super::memory;
use super::reload::{Keeper, Reload};
use super::sessions::NAME;
use super::sources::{Chosen, SourceArgs};
use super::{DeadlineArgs, FAILED, MarkerArgs, complain, process_lister};
use crate::file;
use crate::service::client::Client;
use crate::service::{
    Beat, Config, Handle, Pulse, Service, SourcePlace, StateDir, StateError, lines, socket,
};
use crate::wire::{MarkerText, line};

/// EX_OSERR of sysexits: the system gives no thread.
const NO_THREADS: u8 = 71;

/// EX_TEMPFAIL of sysexits: another service has the index.
const HELD: u8 = 75;

/// EX_CONFIG of sysexits: the configuration is wrong, and trying again does not help.
const CONFIG: u8 = 78;

/// How long a service that has the index may take until it answers.
const STARTING: Duration = Duration::from_secs(2);

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

    /// How log lines look, on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Log more, also paths and reasons
    #[arg(long)]
    debug: bool,
}

pub(super) fn run(args: &ServeArgs) -> io::Result<u8> {
    memory::use_one_arena();
    let _flush = log::start(args.log_format, args.debug);
    let chosen = match args.sources.choose() {
        Ok(chosen) => chosen,
        Err(none) => {
            complain(NAME, none.why());
            return Ok(CONFIG);
        }
    };
    let state_dir = args.state_dir.clone().or_else(file::state_dir);
    let places = match &args.state_dir {
        // Who names a place of its own is found there.
        Some(own) => vec![own.join("socket")],
        None => socket::places(state_dir.as_deref()),
    };
    let patience = Instant::now() + STARTING;
    let state = loop {
        let held = match open_state(state_dir.as_deref()) {
            Ok(state) => break state,
            Err(held) => held,
        };
        match other_service(&chosen, args.marker.marker().as_ref(), &places) {
            Other::Same(other) if args.stdio => {
                let pid = other.hello().pid;
                info!(
                    pid,
                    "another service has the same sources: passing on its events"
                );
                return relay(*other);
            }
            // It may be just starting, or just ending.
            Other::None if args.stdio && Instant::now() < patience => {
                thread::sleep(Duration::from_millis(50));
            }
            other => {
                let way_out = match other {
                    Other::Different => {
                        "; it has other sources or another marker: name another place with \
                         --state-dir, or, where its configuration has changed, send it SIGHUP"
                    }
                    Other::None if args.stdio => {
                        "; it does not answer, so end it first, or name another place with --state-dir"
                    }
                    _ => "; end it first, or name another place with --state-dir",
                };
                complain(NAME, &format!("{held}{way_out}"));
                return Ok(HELD);
            }
        }
    };
    let lister = match process_lister(args.lister.as_deref()) {
        Ok(lister) => lister,
        Err(breakage) => {
            complain(NAME, &breakage.to_string());
            return Ok(FAILED);
        }
    };
    let socket = socket::Bound::first_of(&places)
        .inspect_err(
            |error| warn!(%error, "there is no socket: list and status will not find this service"),
        )
        .ok();
    let config = Config {
        sources: chosen.sources.clone(),
        marker: args.marker.marker(),
        deadline: args.deadline.deadline,
        // Each source has its own: a helper that does not die holds up no other's.
        lister: Box::new(move |source| Arc::new(lister.of(source))),
        state,
        pulse: None,
    };
    let keeper = Keeper::new(args.sources.clone(), chosen);
    match until_its_end(args, config, keeper, socket) {
        Ok(()) => Ok(0),
        Err(error) => {
            complain(NAME, &format!("the service cannot be started: {error}"));
            Ok(NO_THREADS)
        }
    }
}

/// Starts the service and everything around it, and waits until it has ended.
fn until_its_end(
    args: &ServeArgs,
    config: Config,
    keeper: Keeper,
    socket: Option<socket::Bound>,
) -> io::Result<()> {
    // Signals are caught from here on, so that none is missed.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let service = Service::start(Config {
        pulse: pulse()?,
        ..config
    })?;
    let handle = service.handle();
    obey(signals, handle.clone(), keeper.keep(handle.clone())?)?;
    let _serving = socket
        .map(|socket| socket.serve(handle.clone()))
        .transpose()?;
    if args.stdio {
        let written = talk(&handle)?;
        service.wait();
        // The last event is on its way to a pipe that may be full.
        let _ = written.recv_timeout(LAST_WORDS);
    } else {
        service.wait();
    }
    Ok(())
}

/// The state directory, where it can be had. Without one the service works, and
/// knows nothing after a restart.
fn open_state(path: Option<&Path>) -> Result<Option<StateDir>, StateError> {
    let Some(path) = path else {
        warn!(
            "there is no home directory and no --state-dir: nothing will be known after a restart"
        );
        return Ok(None);
    };
    match StateDir::open(path) {
        Ok(state) => Ok(Some(state)),
        Err(error @ StateError::Held { .. }) => Err(error),
        Err(StateError::Unusable { why, .. }) => {
            warn!(%why, "the state directory cannot be used: nothing will be known after a restart");
            Ok(None)
        }
    }
}

/// Signals become messages.
fn obey(mut signals: Signals, service: Handle, sources: Reload) -> io::Result<()> {
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => sources.ask(),
                    SIGINT => service.end("SIGINT"),
                    _ => service.end("SIGTERM"),
                }
            }
        })?;
    Ok(())
}

/// Events to standard output, commands from standard input. The receiver hears
/// when the last event was written.
fn talk(service: &Handle) -> io::Result<mpsc::Receiver<()>> {
    let events = service.subscribe();
    let reply_to = events.reply_to();
    let (done, written) = mpsc::channel();
    let writing = service.clone();
    thread::Builder::new()
        .name("events".into())
        .spawn(move || {
            if lines::write_events(events, io::stdout()).is_err() {
                writing.end("nobody reads its output");
            }
            let _ = done.send(());
        })?;
    let reading = service.clone();
    thread::Builder::new()
        .name("commands".into())
        .spawn(move || {
            let _ = lines::read_commands(BufReader::new(io::stdin()), &reading, reply_to);
            reading.end("its standard input ended");
        })?;
    Ok(written)
}

/// What systemd wants to hear, where it is systemd that started this. The loop
/// says it, and a thread passes it on: sending waits where nobody reads.
fn pulse() -> io::Result<Option<Pulse>> {
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
    let beat = move |beat: Beat<'_>| {
        let states = match beat {
            Beat::Alive if watchdog.is_none() => return,
            Beat::Alive => NotifyState::Watchdog.to_string(),
            Beat::Ready => NotifyState::Ready.to_string(),
            Beat::Status(line) => NotifyState::Status(line).to_string(),
            Beat::Ending => NotifyState::Stopping.to_string(),
            Beat::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => format!("{}\n{now}", NotifyState::Reloading),
                Err(_) => return,
            },
        };
        // What a supervisor that does not read misses it has no use for.
        let _ = tell.try_send(states);
        if beat == Beat::Ending {
            let _ = is_told.recv_timeout(LAST_NOTICE);
        }
    };
    Ok(Some(Pulse {
        every,
        beat: Box::new(beat),
    }))
}

/// Who answers where another service has the index.
enum Other {
    /// One with the same sources and marker.
    Same(Box<Client>),
    /// Only others.
    Different,
    /// Nobody.
    None,
}

fn other_service(chosen: &Chosen, marker: Option<&MarkerText>, places: &[PathBuf]) -> Other {
    let is_same = |other: &Client| {
        let hello = other.hello();
        // One that looks for new databases can have found more, or have others still.
        let are_same = match chosen.config.discover {
            true => SourcePlace::include(&hello.sources, &chosen.sources),
            false => SourcePlace::are(&hello.sources, &chosen.sources),
        };
        are_same && hello.marker.as_ref() == marker
    };
    let mut found = Other::None;
    for place in places {
        match Client::connect(std::slice::from_ref(place)) {
            Some(client) if is_same(&client) => return Other::Same(Box::new(client)),
            Some(_) => found = Other::Different,
            None => {}
        }
    }
    found
}

/// Passes everything on, both ways, until either end is closed.
fn relay(other: Client) -> io::Result<u8> {
    #[derive(serde::Serialize)]
    #[serde(tag = "type", rename = "hello")]
    struct Tagged<'a> {
        #[serde(flatten)]
        hello: &'a crate::service::Hello,
    }
    let hello = line(&Tagged {
        hello: other.hello(),
    });
    let (read, stream) = other.into_stream()?;
    let mut out = io::stdout();
    out.write_all(&hello)?;
    out.write_all(&read)?;
    out.flush()?;
    let mut to = stream.try_clone()?;
    thread::Builder::new()
        .name("commands".into())
        .spawn(move || {
            let mut buffer = [0; 4096];
            let mut stdin = io::stdin().lock();
            while let Ok(count @ 1..) = stdin.read(&mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            // The host is gone.
            let _ = to.shutdown(Shutdown::Both);
        })?;
    let mut buffer = vec![0; 64 << 10];
    let mut from = stream;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        out.write_all(&buffer[..count])?;
        out.flush()?;
    }
    Ok(0)
}
