//! Listing within this process, for tests and for embedders that cannot launch
//! programs. The only place of the main process that reaches the database.
//!
//! What it gives up: a crash of SQLite is a crash of the host, memory is the
//! host's, and a read that the disk does not answer blocks the calling thread
//! past its deadline, which is looked at only between SQLite's instructions.
//!
//! Hosts that have connections of their own to the same file must not use it:
//! POSIX locks belong to a process, and closing the descriptor that this lister
//! opens drops the locks of every other connection
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2). For the same reason
//! it makes one listing at a time, however many threads ask.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::{Broke, ListRequest, Lister, Outcome, Timeout, outcome_of};
use crate::helper::listing::{Task, list};
use crate::store::{Filter, OpenOptions};
use crate::wire::{Checked, Writer};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Lists within this process; see the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcessLister;

impl Lister for InProcessLister {
    fn list(&self, request: &ListRequest) -> Outcome {
        let deadline = request.until();
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let task = Task {
            db: Some(request.db.clone()),
            marker: request.marker.clone(),
            filter: Filter {
                children: request.children,
                archived: request.archived,
            },
            open: OpenOptions {
                busy_timeout: request.busy_timeout(),
                heap_limit: None,
                deadline: Some(deadline),
            },
        };
        let mut checked = Checked::default();
        let mut writer = Writer::new(&mut checked);
        // A failed write is a violation, which `finish` returns.
        if writer.hello().is_ok() {
            let _ = list(&task, writer);
        }
        let progress = checked.progress();
        let outcome = match checked.finish() {
            Ok(verdict) => outcome_of(verdict),
            Err(violation) => Outcome::Broken(Broke::Wire(violation).into()),
        };
        match outcome {
            Outcome::Refused(_) if Instant::now() >= deadline => Outcome::TimedOut(Timeout {
                deadline: request.deadline,
                progress,
                stderr: String::new(),
            }),
            outcome => outcome,
        }
    }
}
