//! The index of known sessions, and its snapshot.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs and makes databases"
)]

mod differences;
mod index;
mod snapshot;
mod support;
