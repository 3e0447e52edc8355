//! The look-ups in flight. Each asks every source, on its own threads.

use std::thread;

use super::command::{CommandError, ErrorCode};
use crate::lister::{Cancel, LookUpRequest};
use crate::query::{LookUpJob, LookUpSource, LookedUp};
use crate::session::SessionId;
use crate::wire::LookUp;

/// The most look-ups at a time. Each launches a helper for every source.
const MAX_LOOK_UPS: usize = 8;

/// The look-ups in flight.
#[derive(Debug, Default)]
pub(super) struct LookUps {
    running: usize,
    end: Cancel,
}

impl LookUps {
    /// Begins a look-up. `done` receives the answers.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorCode::Busy`] if 8 look-ups are running, and [`ErrorCode::NoThread`] if a
    /// thread cannot be spawned.
    pub(super) fn begin(
        &mut self,
        what: LookUp,
        ids: Vec<SessionId>,
        sources: Vec<LookUpSource>,
        done: impl FnOnce(Vec<LookedUp>) + Send + 'static,
    ) -> Result<(), CommandError> {
        if self.running >= MAX_LOOK_UPS {
            let message = format!("{MAX_LOOK_UPS} look-ups are running; retry when one has ended");
            return Err(CommandError::new(ErrorCode::Busy, message));
        }
        let job = LookUpJob {
            what,
            ids,
            deadline: LookUpRequest::DEADLINE,
            cancel: self.end.clone(),
        };
        thread::Builder::new()
            .name("look-ups".into())
            .spawn(move || done(job.run(&sources)))
            .map_err(|error| {
                let message = format!("cannot spawn a thread: {error}");
                CommandError::new(ErrorCode::NoThread, message)
            })?;
        self.running += 1;
        Ok(())
    }

    /// Records that a look-up has ended.
    pub(super) fn ended(&mut self) {
        self.running -= 1;
    }

    pub(super) fn are_running(&self) -> bool {
        self.running > 0
    }

    /// Cancels all look-ups. They still send their answers.
    pub(super) fn cancel(&self) {
        self.end.cancel();
    }
}
