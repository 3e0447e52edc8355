//! Finds where a service can keep its index: a state directory that no other service uses.
//! If another service keeps the same index already, finds that service.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::ServeArgs;
use super::signals::SignalDispatcher;
use crate::cli::service_sockets;
use crate::cli::sources::SourceSelection;
use crate::dirs;
use crate::service::client::{Client, ConnectError};
use crate::service::{Hello, SourcePlace, StateDir, StateError, capabilities, slots, socket};

/// How long a process that holds a state directory may take until it answers or releases
/// it: it may be starting or ending.
const START_TIMEOUT: Duration = Duration::from_secs(2);

/// The interval at which such a process is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The consequence of a service without a state directory.
const NOT_SAVED: &str = "the index is not saved, and no sessions are known after a restart";

/// A place for an index.
pub(super) struct IndexPlace {
    /// `None` if no state directory can be used.
    pub(super) state_dir: Option<StateDir>,
    /// The paths at which the socket can be, the preferred one first.
    pub(super) sockets: Vec<PathBuf>,
}

/// The result of a [`PlaceSearch`].
pub(super) enum SearchResult {
    /// The index can be kept here.
    Free(IndexPlace),
    /// This service keeps the same index, and answers.
    SameIndex(Box<Client>),
    /// SIGTERM or SIGINT has arrived.
    Terminated,
    /// Another service has the place. Holds the message.
    InUse(String),
}

/// The search for a place for an index.
///
/// A host takes the first state directory that is free, or the service that keeps the same
/// index; it skips the indexes of other configurations and services that do not answer.
/// Without a host only the first state directory counts.
pub(super) struct PlaceSearch<'a> {
    pub(super) args: &'a ServeArgs,
    pub(super) selection: &'a SourceSelection,
    pub(super) is_host: bool,
    pub(super) signals: &'a SignalDispatcher,
    /// How long another service may take to send its `hello`.
    pub(super) hello_timeout: Duration,
}

impl PlaceSearch<'_> {
    pub(super) fn run(&self) -> SearchResult {
        let Some(first) = self.args.state_dir.clone().or_else(dirs::state_dir) else {
            warn!("no home directory and no --state-dir: {NOT_SAVED}");
            return SearchResult::Free(IndexPlace {
                state_dir: None,
                sockets: socket::paths(None),
            });
        };
        for (number, directory) in slots(&first).enumerate() {
            let sockets = match &self.args.state_dir {
                None if number == 0 => socket::paths(Some(&directory)),
                // Clients find a named state directory, or one of several, by its path only.
                _ => service_sockets(Some(&directory)),
            };
            let in_use = match self.try_directory(&directory, sockets) {
                Ok(result) => return result,
                Err(in_use) => in_use,
            };
            if !self.is_host {
                return SearchResult::InUse(in_use);
            }
            info!("{in_use}: trying the next state directory");
        }
        warn!("no state directory is free: {NOT_SAVED}");
        SearchResult::Free(IndexPlace {
            state_dir: None,
            sockets: Vec::new(),
        })
    }

    /// Locks a state directory, or finds the service that has it.
    ///
    /// # Errors
    ///
    /// Returns a message if the directory belongs to a service that cannot be used.
    fn try_directory(
        &self,
        directory: &Path,
        sockets: Vec<PathBuf>,
    ) -> Result<SearchResult, String> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            if self.signals.termination().is_some() {
                return Ok(SearchResult::Terminated);
            }
            let held = match StateDir::open(directory) {
                Ok(state_dir) => {
                    let state_dir = Some(state_dir);
                    return Ok(SearchResult::Free(IndexPlace { state_dir, sockets }));
                }
                Err(error @ StateError::Unusable { .. }) => {
                    warn!("{error}: {NOT_SAVED}");
                    let state_dir = None;
                    return Ok(SearchResult::Free(IndexPlace { state_dir, sockets }));
                }
                Err(held) => held,
            };
            match self.other_service(&sockets) {
                OtherService::SameIndex(client) if self.is_host => {
                    return Ok(SearchResult::SameIndex(client));
                }
                OtherService::Unreachable(ConnectError::NotRunning)
                    if self.is_host && Instant::now() < until =>
                {
                    thread::sleep(RETRY_INTERVAL);
                }
                other => return Err(other.in_use_message(&held)),
            }
        }
    }

    /// Connects to the service that has one of these sockets, preferably one that keeps the
    /// same index.
    fn other_service(&self, sockets: &[PathBuf]) -> OtherService {
        let mut found = OtherService::Unreachable(ConnectError::NotRunning);
        for socket in sockets {
            match Client::connect(socket, Instant::now() + self.hello_timeout) {
                Ok(client) if self.is_same_index(client.hello()) => {
                    return OtherService::SameIndex(Box::new(client));
                }
                Ok(_) => found = OtherService::Different,
                Err(ConnectError::NotRunning) => {}
                Err(error) if matches!(found, OtherService::Unreachable(_)) => {
                    found = OtherService::Unreachable(error);
                }
                Err(_) => {}
            }
        }
        found
    }

    fn is_same_index(&self, hello: &Hello) -> bool {
        let sources = &self.selection.sources;
        // A service that discovers databases can have found more, or still have old ones.
        let has_same_sources = match self.selection.config.discover {
            true => SourcePlace::include(&hello.sources, sources),
            false => SourcePlace::are_same(&hello.sources, sources),
        };
        let has = |capability: String| hello.capabilities.contains(&capability);
        has_same_sources
            && capabilities(self.args.view()).into_iter().all(has)
            && hello.marker == self.args.marker.marker()
    }
}

/// The service that has a state directory.
enum OtherService {
    /// It keeps the same index.
    SameIndex(Box<Client>),
    /// It keeps another index.
    Different,
    /// It cannot be reached.
    Unreachable(ConnectError),
}

impl OtherService {
    /// Returns the message about a state directory that this service holds, with the way out.
    fn in_use_message(&self, held: &StateError) -> String {
        let use_another = "name another directory with --state-dir";
        match self {
            Self::SameIndex(_) => format!("{held} (stop it, or {use_another})"),
            Self::Different => format!(
                "{held}, with other sources, another marker or fewer sessions ({use_another}, or \
                 send it SIGHUP if its configuration has changed)"
            ),
            Self::Unreachable(ConnectError::NotRunning) => {
                format!("{held}, and does not answer (stop it, or {use_another})")
            }
            Self::Unreachable(error) => format!("{held}; {error}; or {use_another}"),
        }
    }
}
