//! The parsed source: what each file of `src` imports, leaving out its unit tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

use crate::files::{rust_files, text_of};

/// One file of `src`.
pub(crate) struct Source {
    /// Relative to `src`.
    pub(crate) file: PathBuf,
    /// The module that the file is, from the root of the crate.
    pub(crate) module: Vec<String>,
    pub(crate) syntax: syn::File,
}

impl Source {
    /// The room: the folder or the file below `src`.
    pub(crate) fn room(&self) -> String {
        let first = self.file.iter().next().unwrap().to_str().unwrap();
        first.trim_end_matches(".rs").to_owned()
    }

    /// Every path that the code names, from the root of the crate or of another one:
    /// `crate::wire::limits`, `std::fs::rename`.
    pub(crate) fn paths(&self) -> BTreeSet<String> {
        let mut paths = Paths {
            module: self.module.clone(),
            found: BTreeSet::new(),
        };
        paths.visit_file(&self.syntax);
        paths.found
    }
}

/// All files of `src` but those of unit tests.
pub(crate) fn sources() -> Vec<Source> {
    let files = rust_files("src").into_iter().filter(|file| {
        let name = file.file_name().unwrap();
        name != "tests.rs" && !file.iter().any(|part| part == "tests")
    });
    let sources = files.map(|path| {
        let file = path.strip_prefix("src").unwrap().to_owned();
        let mut module: Vec<String> = file
            .with_extension("")
            .iter()
            .map(|part| part.to_str().unwrap().to_owned())
            .collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        Source {
            syntax: syn::parse_file(&text_of(Path::new(&path))).unwrap(),
            file,
            module,
        }
    });
    sources.collect()
}

/// True for `#[cfg(test)]` and `#[test]`.
pub(crate) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg_test = || {
            attribute.path().is_ident("cfg")
                && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
        };
        attribute.path().is_ident("test") || is_cfg_test()
    })
}

struct Paths {
    module: Vec<String>,
    found: BTreeSet<String>,
}

impl Paths {
    fn add(&mut self, segments: &[String]) {
        let Some(first) = segments.first() else {
            return;
        };
        let mut absolute = vec!["crate".to_owned()];
        let rest = match first.as_str() {
            "crate" => &segments[1..],
            "self" => {
                absolute.extend(self.module.iter().cloned());
                &segments[1..]
            }
            "super" => {
                let ups = segments.iter().take_while(|part| *part == "super").count();
                let kept = self.module.len().saturating_sub(ups);
                absolute.extend(self.module[..kept].iter().cloned());
                &segments[ups..]
            }
            _ => {
                absolute.clear();
                segments
            }
        };
        absolute.extend(rest.iter().cloned());
        self.found.insert(absolute.join("::"));
    }

    fn add_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) if name.ident == "self" => self.add(prefix),
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.add(prefix),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(prefix, tree);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let segments: Vec<_> = path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect();
            self.add(&segments);
        }
        visit::visit_path(self, path);
    }
}
