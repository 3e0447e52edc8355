//! Indexes of one source.

use std::path::Path;

use opencode_sessions::internals::index::Index;
use opencode_sessions::source::sources_of;

/// The index of this database alone.
pub(crate) fn index_of(db: &Path) -> Index {
    Index::new(&sources_of(&[db.to_owned()]))
}
