//! `opencode-sessions` as a person or a program calls it, and the sources that it lists: found ones,
//! named ones, and commands that run the helper elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs and makes databases"
)]

mod commands;
mod common;
mod databases;
mod doctor;
mod found;
mod list;
mod messages;
mod names;
mod options;
mod place;
#[cfg(target_os = "linux")]
mod projects;
mod several;
mod support;
mod table;
