//! The sources of a running service: reads the configuration again on request, and discovers
//! new databases from time to time. Both happen on a thread, because a disk may not answer.
//!
//! A reload replaces the sources. Discovery only adds sources: a directory that is absent for
//! a moment removes none.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use tracing::error;

use crate::cli::sources::{SourceArgs, SourceSelection, existing_sources};
use crate::config::Config;
use crate::service::Handle;
use crate::source::Source;
use crate::text::one_line;

/// The interval at which new databases, and other names of known ones, are discovered.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(5);

/// Keeps the sources of a service up to date.
pub(super) struct SourceReloader {
    args: SourceArgs,
    config: Config,
}

/// Requests reloads. Each one happens later, on the reloader's thread.
#[derive(Debug, Clone)]
pub(super) struct ReloadTrigger(Sender<()>);

impl ReloadTrigger {
    pub(super) fn reload(&self) {
        let _ = self.0.send(());
    }
}

impl SourceReloader {
    pub(super) fn new(args: SourceArgs, config: Config) -> Self {
        Self { args, config }
    }

    /// Starts the thread. It ends when the last trigger is dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread cannot be spawned.
    pub(super) fn start(mut self, service: Handle) -> io::Result<ReloadTrigger> {
        let (sender, requests) = mpsc::channel();
        thread::Builder::new()
            .name("sources".into())
            .spawn(move || {
                loop {
                    match requests.recv_timeout(DISCOVERY_INTERVAL) {
                        Ok(()) => {
                            if let Err(error) = service.reload(self.reloaded_sources()) {
                                error!(%error, "cannot reload the sources");
                            }
                        }
                        Err(RecvTimeoutError::Timeout) => {
                            service.add_found(existing_sources(self.config.clone()));
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        Ok(ReloadTrigger(sender))
    }

    /// Returns the sources of the present configuration, or `None` if it is not valid.
    fn reloaded_sources(&mut self) -> Option<Vec<Source>> {
        let selection = select_again(&self.args)?;
        self.config = selection.config;
        Some(selection.sources)
    }
}

/// Selects the sources again, by a configuration that may have changed. Logs an error and
/// returns `None` if there are none.
pub(super) fn select_again(args: &SourceArgs) -> Option<SourceSelection> {
    args.select()
        .inspect_err(|error| {
            let reason = one_line(&error.to_string()).into_owned();
            error!(%reason, "cannot reload the configuration; the old one stays");
        })
        .ok()
}
