//! The sources of a running service: read again when somebody asks, and looked for
//! anew now and then. On a thread of its own, since a disk may not answer.
//!
//! What is asked for replaces the old sources. What is found by itself is only added:
//! a directory that is away for a moment takes no source with it.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use tracing::error;

use super::sources::{Chosen, SourceArgs, sources_there};
use crate::config::Config;
use crate::service::Handle;
use crate::source::Source;
use crate::text::one_line;

/// How often new databases are looked for, and other names of known ones.
const LOOK: Duration = Duration::from_secs(5);

/// Keeps the sources of a service what they should be.
pub(super) struct SourceReloader {
    args: SourceArgs,
    config: Config,
}

/// Asks for the sources to be read again; they are, in their own time.
#[derive(Debug, Clone)]
pub(super) struct Reload(Sender<()>);

impl Reload {
    pub(super) fn ask(&self) {
        let _ = self.0.send(());
    }
}

impl SourceReloader {
    pub(super) fn new(args: SourceArgs, now: Chosen) -> Self {
        Self {
            args,
            config: now.config,
        }
    }

    /// Keeps the service's sources as they should be.
    pub(super) fn keep(mut self, service: Handle) -> io::Result<Reload> {
        let (ask, asked) = mpsc::channel();
        thread::Builder::new()
            .name("sources".into())
            .spawn(move || {
                loop {
                    match asked.recv_timeout(LOOK) {
                        Ok(()) => service.reload(self.sources_anew()),
                        Err(RecvTimeoutError::Timeout) => {
                            service.add_found(sources_there(self.config.clone()));
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        Ok(Reload(ask))
    }

    /// The sources as they are to be from now on; nothing where that is not clear.
    fn sources_anew(&mut self) -> Option<Vec<Source>> {
        let chosen = read_again(&self.args)?;
        self.config = chosen.config;
        Some(chosen.sources)
    }
}

/// What is chosen now, by a configuration that may have changed; nothing, which is said,
/// where that is not clear.
pub(super) fn read_again(args: &SourceArgs) -> Option<Chosen> {
    args.choose()
        .inspect_err(|none| {
            let why = one_line(none.why());
            error!(%why, "the configuration is not taken; the old one stays");
        })
        .ok()
}
