//! Which sessions are marked: what the scan finds, and what it remembers, is what the query that
//! defines a mark says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs and makes databases"
)]

mod broken_chain;
mod definition;
mod history;
mod links;
mod pages;
mod random_content;
mod remembered;
mod scan;
mod support;
mod upgrades;
mod wal;
mod work;
