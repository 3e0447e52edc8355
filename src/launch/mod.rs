//! Launches the helper: spawns it, limits it, reads its output, and kills and reaps it by
//! the deadline, whatever it does.
//!
//! No other module spawns processes.

mod arguments;
mod guard;
mod leader;
mod pipes;
mod process;
mod reaper;

pub use crate::signals::restore_sigchld;
pub use process::ProcessLister;
