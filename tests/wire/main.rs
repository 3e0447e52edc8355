//! What crosses the pipe: the exact lines, and what the caller's side refuses.
//!
//! One rule stands behind all of it: what is not a whole listing is never taken for one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs and makes databases"
)]

mod checker;
mod common;
mod differences;
mod forms;
mod limits;
mod requests;
mod samples;
mod support;
mod writer;
