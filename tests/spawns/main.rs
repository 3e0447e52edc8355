//! What a thousand listings leave in the process that asks for them: nothing.
//!
//! A crate of its own: descriptors, threads, children and memory are counted of the whole process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs and makes databases"
)]

#[cfg(target_os = "linux")]
mod spawns;
mod support;
