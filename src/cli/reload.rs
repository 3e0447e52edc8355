//! The sources of a running service: read again when somebody asks, and looked for
//! anew now and then. On a thread of its own, since a disk may not answer.
//!
//! What is asked for replaces the old sources. What is found by itself is only added:
//! a directory that is away for a moment takes no source with it.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use tracing::{error, info};

use super::sources::{SourceArgs, sources};
use crate::config::Config;
use crate::service::Handle;
use crate::source::Source;
use crate::text::one_line;

/// How often a new channel's database is looked for.
const LOOK: Duration = Duration::from_secs(20);

/// The sources there are.
pub(super) struct Sources {
    args: SourceArgs,
    /// What they come from.
    config: Config,
    now: Vec<Source>,
}

/// Asks for the sources to be read again; they are, in their own time.
#[derive(Debug, Clone)]
pub(super) struct Reload(Sender<()>);

impl Reload {
    pub(super) fn ask(&self) {
        let _ = self.0.send(());
    }
}

impl Sources {
    pub(super) fn new(args: SourceArgs, config: Config, now: Vec<Source>) -> Self {
        Self { args, config, now }
    }

    /// Keeps the service's sources as they should be.
    pub(super) fn keep(mut self, service: Handle) -> io::Result<Reload> {
        let (ask, asked) = mpsc::channel();
        thread::Builder::new()
            .name("sources".into())
            .spawn(move || {
                loop {
                    match asked.recv_timeout(LOOK) {
                        Ok(()) => service.reload(self.read_again()),
                        Err(RecvTimeoutError::Timeout) => {
                            if let Some(more) = self.look_again() {
                                service.set_sources(more);
                            }
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        Ok(Reload(ask))
    }

    /// The sources as they are to be from now on; nothing where that is not clear.
    fn read_again(&mut self) -> Option<Vec<Source>> {
        let read = self.args.config().and_then(|config| {
            let sources = sources(config.clone()).map_err(|none| none.why().to_owned())?;
            Ok((config, sources))
        });
        match read {
            Ok((config, sources)) => {
                self.config = config;
                self.now.clone_from(&sources);
                Some(sources)
            }
            Err(why) => {
                error!(why = %one_line(&why), "the configuration is not taken; the old one stays");
                None
            }
        }
    }

    /// The sources with those that have come, if any have.
    fn look_again(&mut self) -> Option<Vec<Source>> {
        if !self.config.discover {
            return None;
        }
        let found = sources(self.config.clone()).ok()?;
        let is_new = |source: &Source| {
            let mut known = self.now.iter();
            !known.any(|known| known.place == source.place || known.name == source.name)
        };
        let new: Vec<_> = found.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return None;
        }
        info!(new = new.len(), "databases were found");
        self.now.extend(new);
        Some(self.now.clone())
    }
}
