//! The guide: one page a module, as `opencode-sessions help TOPIC` prints it.
//!
//! Start with [`listing`]. [`hosts`] and [`protocol`] are for programs that show sessions.
//! `tests/guide/guide.rs` runs the examples of every page.

/// A page of the guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// Its name, as the command line has it.
    pub name: &'static str,
    /// What it is about, in a few words.
    pub summary: &'static str,
    /// Its text, in Markdown.
    pub text: &'static str,
}

impl Topic {
    /// The page of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TOPICS.iter().find(|topic| topic.name == name)
    }
}

/// Includes each page as a module for rustdoc, and all of them as [`TOPICS`].
macro_rules! pages {
    ($($module:ident, $name:literal, $summary:literal;)*) => {
        $(
            #[doc = include_str!(concat!($name, ".md"))]
            pub mod $module {}
        )*

        /// All pages, in the order in which they are listed.
        pub const TOPICS: &[Topic] = &[$(
            Topic {
                name: $name,
                summary: $summary,
                text: include_str!(concat!($name, ".md")),
            },
        )*];
    };
}

pages! {
    listing, "listing", "Options, JSON fields, recipes";
    sources, "sources", "Several databases, other machines";
    service, "service", "Keep a service running";
    hosts, "hosts", "Write a program that shows sessions";
    protocol, "protocol", "Events, commands, lines of the helper";
    how_it_works, "how-it-works", "Why OpenCode does not notice";
    speed, "speed", "What it costs, and how that grows";
    troubleshooting, "troubleshooting", "Causes and messages";
    guarantees, "guarantees", "What you can rely on, exit statuses";
    changes, "changes", "What is new in each version";
}
