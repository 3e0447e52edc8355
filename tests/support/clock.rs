//! Setting the wall clock of a program while it runs. Linux: a library that is
//! loaded before the C library.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The clock of a program, and of those that it starts.
pub(crate) struct Clock(tempfile::TempDir);

impl Clock {
    /// It is right until it is set.
    pub(crate) fn of(command: &mut Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("set_clock.so");
        // SQLite is compiled with it too.
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let status = crate::support::command(Path::new(&compiler))
            .args(["-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/helpers/set_clock.c"
            ))
            .status()
            .unwrap();
        assert!(status.success());
        let clock = Self(directory);
        clock.set(0);
        command
            .env("LD_PRELOAD", library)
            .env("SET_CLOCK", clock.0.path().join("seconds"));
        clock
    }

    /// Sets it forward by so many seconds from what is right, or back.
    pub(crate) fn set(&self, seconds: i64) {
        let (new, now) = (self.0.path().join("new"), self.0.path().join("seconds"));
        fs::write(&new, format!("{seconds}\n")).unwrap();
        fs::rename(new, now).unwrap();
    }
}
