//! Setting the wall clock of a program while it runs. Linux.

use std::fs;
use std::process::Command;

use crate::support::preload::Library;

/// The clock of a program, and of those that it starts.
pub(crate) struct Clock(Library);

impl Clock {
    /// It is right until it is set.
    pub(crate) fn of(command: &mut Command) -> Self {
        let clock = Self(Library::of("set_clock.c"));
        clock.set(0);
        command
            .env("LD_PRELOAD", clock.0.path())
            .env("SET_CLOCK", clock.0.beside("seconds"));
        clock
    }

    /// Sets it forward by so many seconds from what is right, or back.
    pub(crate) fn set(&self, seconds: i64) {
        let (new, now) = (self.0.beside("new"), self.0.beside("seconds"));
        fs::write(&new, format!("{seconds}\n")).unwrap();
        fs::rename(new, now).unwrap();
    }
}
