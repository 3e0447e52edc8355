//! What `opencode-lister` does: one listing, then exit.
//!
//! [`listing`] is the work itself, to any writer; the in-process lister calls it
//! too. The rest makes a process of it: [`launched`] ties it to the program
//! that launched it and limits it; `explain` and `--pretty` are for people.

pub mod explain;
pub mod launched;
pub mod listing;
pub mod pretty;
pub mod verify;
