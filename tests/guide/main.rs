//! The README and the guide are true: every example in them runs, and nothing that the programs
//! have is missing.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

mod guide;
mod support;
