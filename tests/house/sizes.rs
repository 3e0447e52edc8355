//! How large files and functions are. Each list of exceptions is exact in both directions: what is
//! not needed any more fails, too.

use std::collections::BTreeSet;

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::files::{rust_files, text_of};
use crate::source::{is_test, sources};
use crate::support;

/// Lines of a function, with its signature, without its documentation.
const MAX_FUNCTION_LINES: usize = 70;

/// Lines of a file of `src`, with its tests.
const MAX_FILE_LINES: usize = 500;

/// Longer functions, and why.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[
    (
        "marker/pages.rs",
        "scan_pages",
        "one loop over pieces of the file and its threads",
    ),
    (
        "marker/sql_scan.rs",
        "run",
        "one pass of SQL and what can end it",
    ),
    ("store/session_row.rs", "line", "one column a line"),
    ("wire/session_line.rs", "append_to", "one field a line"),
];

struct Functions<'a> {
    file: &'a str,
    long: BTreeSet<(String, String, usize)>,
}

impl Functions<'_> {
    fn check(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (start, end) = (signature.span().start().line, block.span().end().line);
        let lines = end - start + 1;
        if lines > MAX_FUNCTION_LINES {
            let name = signature.ident.to_string();
            self.long.insert((self.file.to_owned(), name, lines));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.check(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.check(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }
}

#[test]
fn functions_are_short_but_for_exact_exceptions() {
    let _limit = support::limit(60);
    let mut long = BTreeSet::new();
    for source in sources() {
        let mut functions = Functions {
            file: source.file.to_str().unwrap(),
            long: BTreeSet::new(),
        };
        functions.visit_file(&source.syntax);
        long.extend(functions.long);
    }
    let names = long.iter().map(|(file, name, _)| (&**file, &**name));
    let excepted = LONG_FUNCTIONS.iter().map(|(file, name, _)| (*file, *name));
    let (names, excepted): (BTreeSet<_>, BTreeSet<_>) = (names.collect(), excepted.collect());
    assert_eq!(names, excepted, "{long:?}");
}

#[test]
fn no_file_is_too_long() {
    let _limit = support::limit(30);
    for file in rust_files("src") {
        let lines = text_of(&file).lines().count();
        assert!(lines <= MAX_FILE_LINES, "{}: {lines} lines", file.display());
    }
}
