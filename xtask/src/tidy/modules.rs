//! Which file of a crate uses which, read from the syntax tree.
//!
//! A file uses another one by a path that begins with `crate`, `super` or `self`. Tests are left
//! out, and so are the arguments of macros and the root of a crate, which names everything.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Attribute, ItemFn, ItemImpl, ItemMod, ItemUse, UseTree};

use super::{Finding, files::File};

/// A module by its path below the crate: `["server", "connection"]`.
pub(super) type Module = Vec<String>;

/// The modules of a crate that have a file, with the place of the file and what it uses.
pub(super) type Graph<'a> = BTreeMap<Module, (&'a str, BTreeSet<Module>)>;

/// The graph of the crate whose sources lie in `sources`, and the files that cannot be parsed.
///
/// A file does not count as using those above it in its own folder, whose part it is.
pub(super) fn graph<'a>(files: &'a [File], sources: &str) -> (Graph<'a>, Vec<Finding>) {
    let modules: Vec<_> = files.iter().filter_map(|file| Some((module(file, sources)?, file))).collect();
    let known: BTreeSet<&Module> = modules.iter().map(|(module, _)| module).collect();
    let (mut graph, mut unread) = (Graph::new(), Vec::new());
    let mut paths_of = |file: &'a File, module: &Module| match syn::parse_file(&file.text) {
        Ok(parsed) => Paths::of(&parsed, module),
        Err(_) => {
            let message = "syn cannot parse this file, so its layers and circles are not checked";
            unread.push(Finding::new(&file.path, 1, message));
            BTreeSet::new()
        }
    };
    let root = files.iter().find(|file| file.path == format!("{sources}lib.rs"));
    let reexported = root.map(|root| paths_of(root, &Module::new())).unwrap_or_default();
    for (module, file) in &modules {
        let used = paths_of(file, module).into_iter().map(|path| behind_root(path, &reexported));
        let used = used.filter_map(|path| file_of(path, &known)).filter(|used| !module.starts_with(used));
        graph.insert(module.clone(), (&*file.path, used.collect()));
    }
    (graph, unread)
}

/// Where the root of the crate has an item from, if the path leads to one that it re-exports.
fn behind_root(path: Module, reexported: &BTreeSet<Module>) -> Module {
    let is_it = |from: &&Module| matches!(&*path, [name, ..] if from.last() == Some(name) && from.len() > 1);
    reexported.iter().find(is_it).cloned().unwrap_or(path)
}

/// The module that a file is, unless it belongs to the tests, or is the root of the crate.
fn module(file: &File, sources: &str) -> Option<Module> {
    let path = file.path.strip_prefix(sources)?.strip_suffix(".rs")?;
    let mut module: Module = path.split('/').map(str::to_owned).collect();
    module.pop_if(|name| name == "mod");
    let is_test = module.iter().any(|name| name == "tests");
    let is_root = matches!(&*module, [only] if only == "lib" || only == "main") || module.is_empty();
    (!is_test && !is_root).then_some(module)
}

/// The file that a path leads into.
fn file_of(mut path: Module, known: &BTreeSet<&Module>) -> Option<Module> {
    while !path.is_empty() && !known.contains(&path) {
        path.pop();
    }
    (!path.is_empty()).then_some(path)
}

/// Collects the paths that a file uses.
struct Paths<'a> {
    module: &'a Module,
    found: BTreeSet<Module>,
}

impl<'a> Paths<'a> {
    fn of(file: &syn::File, module: &'a Module) -> BTreeSet<Module> {
        let mut paths = Self { module, found: BTreeSet::new() };
        paths.visit_file(file);
        paths.found
    }

    fn add(&mut self, segments: &[String]) {
        let mut rest = segments;
        let mut path = match rest {
            [first, ..] if first == "crate" => Module::new(),
            [first, ..] if first == "super" || first == "self" => self.module.clone(),
            // The root names its modules without a prefix.
            _ if self.module.is_empty() => Module::new(),
            _ => return,
        };
        while let [first, behind @ ..] = rest
            && matches!(&**first, "crate" | "super" | "self")
        {
            if first == "super" {
                path.pop();
            }
            rest = behind;
        }
        path.extend_from_slice(rest);
        self.found.insert(path);
    }

    fn add_tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Name(name) => self.add(&with(name.ident.to_string())),
            UseTree::Rename(name) => self.add(&with(name.ident.to_string())),
            UseTree::Glob(_) => self.add(before),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(before, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_of_tests(&item.attrs) {
            self.add_tree(&[], &item.tree);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_of_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if !is_of_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_of_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&segments);
        visit::visit_path(self, path);
    }
}

fn is_of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|name| name == "test")
    })
}
