//! The launcher: whatever a helper does, the caller has a typed answer in time, and nothing of the
//! helper is left.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs and makes databases"
)]

mod common;
mod ends;
mod grandchildren;
mod hangs;
mod in_process;
#[cfg(target_os = "linux")]
mod limits;
mod look_up;
mod not_run;
mod output;
#[cfg(target_os = "linux")]
mod parent;
#[cfg(target_os = "linux")]
mod processes;
mod real;
#[cfg(target_os = "linux")]
mod sigchld;
mod support;
