//! The program `opencode-lister`: runs one listing or one look-up and exits.
//!
//! [`listing`] and [`look_up`] do the work and write to any writer; [`InProcessLister`]
//! calls them too. [`process`] ties the process to its parent and limits its resources.
//! [`explain`], [`verify`] and [`pretty`] print for people.

pub(crate) mod difference;
#[cfg(feature = "cli")]
pub(crate) mod explain;
mod in_process;
mod kept_lines;
pub(crate) mod listing;
pub(crate) mod look_up;
#[cfg(feature = "cli")]
pub(crate) mod pretty;
pub(crate) mod process;
#[cfg(feature = "cli")]
pub(crate) mod verify;

use std::io::{self, Write};
use std::path::Path;

use crate::store::StoreError;
use crate::text::one_line;
pub use in_process::InProcessLister;
use listing::RunStatus;

/// Reports an error of the database at `path` to a person.
fn report_error(error: StoreError, path: &Path, mut err: impl Write) -> io::Result<RunStatus> {
    let failure = error.with_io_cause(path).to_helper_error(path);
    let (message, kind) = (one_line(&failure.message), failure.kind);
    writeln!(err, "opencode-lister: {message} ({})", kind.as_str())?;
    Ok(RunStatus::Failed(kind))
}
