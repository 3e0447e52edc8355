//! The project itself: which room of `src` may import which, how tests are named, where they sleep,
//! and the formats that outlive the program that wrote them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs and makes databases"
)]

mod architecture;
mod files;
mod golden;
mod golden_cache;
mod golden_events;
mod golden_index;
mod golden_wire;
mod messages;
mod names;
mod sizes;
mod sleeps;
mod source;
mod support;
