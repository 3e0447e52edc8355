//! What users read: every message of the programs in one file, `messages.txt`, and the words
//! that they must not have.
//!
//! A message is a text of the code with at least two words. SQL is none. The file is written
//! anew with `GOLDEN_WRITE=1`, so that a change of any message shows in review.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use proc_macro2::{Literal, TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::files::{rust_files, text_of};
use crate::source::{is_test, sources};
use crate::support::{self, WRITE};

#[derive(Default)]
struct Texts(BTreeSet<String>);

impl Texts {
    fn literal(&mut self, literal: &Literal) {
        if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
            self.text(&text.value());
        }
    }

    fn text(&mut self, text: &str) {
        let is_word = |word: &&str| word.chars().filter(|c| c.is_alphabetic()).count() > 1;
        let words = text.split_whitespace().filter(is_word).count();
        let is_sql = [
            "SELECT", "WITH ", "PRAGMA", " FROM ", "WHERE", "ORDER BY", "LIKE", "INSERT",
        ]
        .iter()
        .any(|word| text.contains(word));
        if words >= 2 && !is_sql {
            self.0.insert(text.to_owned());
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(literal) => self.literal(&literal),
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Texts {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs[..],
            syn::Item::Fn(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        // Of a `thiserror` type.
        if attribute.path().is_ident("error")
            && let syn::Meta::List(list) = &attribute.meta
        {
            self.tokens(list.tokens.clone());
        }
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.text(&text.value());
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call.path.segments.last().unwrap().ident.to_string();
        // What is wrong with the code itself, and no text.
        if !["assert", "debug_assert", "matches", "include_str"].contains(&name.as_str()) {
            self.tokens(call.tokens.clone());
        }
    }
}

fn messages() -> BTreeMap<String, BTreeSet<String>> {
    let files = sources().into_iter().filter_map(|source| {
        let mut texts = Texts::default();
        texts.visit_file(&source.syntax);
        let file = source.file.to_str().unwrap().to_owned();
        (!texts.0.is_empty()).then_some((file, texts.0))
    });
    files.collect()
}

#[test]
fn every_message_is_in_one_file() {
    let _limit = support::limit(60);
    let mut all = String::from(
        "Every message of the programs, by file. Written by `GOLDEN_WRITE=1 cargo test --test house`.\n",
    );
    for (file, texts) in messages() {
        writeln!(all, "\n{file}").unwrap();
        for text in texts {
            writeln!(all, "  {}", text.escape_debug()).unwrap();
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/house/messages.txt");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &all).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    for (line, (kept, now)) in kept.lines().zip(all.lines()).enumerate() {
        assert_eq!(kept, now, "messages.txt:{}", line + 1);
    }
    assert_eq!(kept, all);
}

/// Idioms that a reader would have to decode, and what to write instead.
const IDIOMS: &[(&str, &str)] = &[
    (" is no ", "is not a, invalid, unknown"),
    (" are no ", "are not, invalid"),
    ("nobody", "name the actor"),
    ("somebody", "name the actor"),
    ("whoever", "name the actor"),
    ("of no use", "invalid, unusable"),
    ("is well", "check"),
    ("see whether", "check whether"),
    (" so long ", "this long"),
];

/// What only looks like one.
const PLAIN: [&str; 4] = [
    "there is no ",
    "there are no ",
    "is no longer",
    "are no longer",
];

/// Of a message, which names the thing itself.
const IMPERSONAL: [(&str, &str); 2] = [
    (" there is ", "name the actor: no database at, not found"),
    (" there are ", "name the actor"),
];

fn idiom_in(text: &str) -> Option<(&'static str, &'static str)> {
    let mut text = format!(" {} ", text.to_lowercase());
    for plain in PLAIN {
        text = text.replace(plain, "");
    }
    IDIOMS
        .iter()
        .copied()
        .find(|(idiom, _)| text.contains(idiom))
}

#[test]
fn messages_have_no_private_idioms() {
    let _limit = support::limit(60);
    let mut found = Vec::new();
    for (file, texts) in messages() {
        for text in texts {
            let spaced = format!(" {text}");
            let impersonal = IMPERSONAL
                .iter()
                .copied()
                .find(|(idiom, _)| spaced.contains(idiom));
            if let Some((idiom, instead)) = idiom_in(&text).or(impersonal) {
                found.push(format!("{file}: \"{text}\": {idiom}: {instead}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn comments_have_no_private_idioms() {
    let _limit = support::limit(60);
    let mut found = Vec::new();
    for file in rust_files("src") {
        let mut is_in_errors = false;
        for (line, text) in text_of(&file).lines().enumerate() {
            let Some((_, comment)) = text.split_once("//") else {
                continue;
            };
            let doc = comment.trim_start_matches(['/', '!', ' ']);
            // The first sentence after the heading says when.
            let starts = is_in_errors && doc.starts_with("Where ");
            is_in_errors = doc == "# Errors" || (is_in_errors && doc.is_empty());
            if let Some((idiom, instead)) = idiom_in(comment) {
                found.push(format!(
                    "{}:{}: {idiom}: {instead}",
                    file.display(),
                    line + 1
                ));
            } else if starts {
                found.push(format!(
                    "{}:{}: Where …: Returns an error if …",
                    file.display(),
                    line + 1
                ));
            }
        }
    }
    assert!(
        found.is_empty(),
        "{} lines:\n{}",
        found.len(),
        found.join("\n")
    );
}
