//! What `opencode-lister` does: one listing, or one look-up, then exit.
//!
//! [`listing`] and [`look_up`] are the work itself, to any writer; the in-process
//! lister calls them too. The rest makes a process of it: [`launched`] ties it to the program
//! that launched it and limits it; `explain` and `--pretty` are for people.

pub mod explain;
mod in_process;
pub mod launched;
pub mod listing;
pub mod look_up;
pub mod pretty;
pub mod verify;

use std::io::{self, Write};
use std::path::Path;

use crate::store::StoreError;
use crate::text::one_line;
pub use in_process::InProcessLister;
use listing::Ended;

/// Says to a person how the database at `path` failed.
fn report_error(error: StoreError, path: &Path, mut err: impl Write) -> io::Result<Ended> {
    let failure = error.with_io_cause(path).to_helper_error(path);
    let (message, kind) = (one_line(&failure.message), failure.kind);
    writeln!(err, "opencode-lister: {message} ({})", kind.as_str())?;
    Ok(Ended::Failed(kind))
}
