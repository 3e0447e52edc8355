//! Libraries that are loaded before the C library, and take the place of some of
//! its functions. Linux: `LD_PRELOAD`.

use std::path::{Path, PathBuf};

/// A library, compiled for as long as this lives.
pub(crate) struct Library(tempfile::TempDir);

impl Library {
    /// The one whose source is this file of the tests' helpers.
    pub(crate) fn of(source: &str) -> Self {
        let library = Self(tempfile::tempdir().unwrap());
        // SQLite is compiled with it too.
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let status = crate::support::command(Path::new(&compiler))
            .args(["-Wall", "-shared", "-fPIC", "-o"])
            .arg(library.path())
            .arg(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("tests/helpers")
                    .join(source),
            )
            .status()
            .unwrap();
        assert!(status.success());
        library
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.beside("library.so")
    }

    /// A path for a file that goes with it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
