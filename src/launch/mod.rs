//! Launching the helper: spawn it, bound it, read what it prints, and be rid of it by the
//! deadline, whatever it does.
//!
//! Only this room starts processes.

mod arguments;
mod guard;
mod leader;
mod pipes;
mod process;
mod reaper;

pub use crate::signals::restore_sigchld;
pub use process::ProcessLister;
