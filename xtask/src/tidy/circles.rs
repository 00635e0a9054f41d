//! No circle of files inside a crate. Whoever reads a file can then first read what it uses, and
//! nothing twice.
//!
//! A file uses another one by a path that begins with `crate`, `super` or `self`. A file may use
//! those above it in its own folder's tree, whose parts it is. Tests are not looked at, nor what
//! stands inside the calls of macros, and nor is the root of a crate, which names everything.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Attribute, ItemFn, ItemImpl, ItemMod, ItemUse, UseTree};

use super::{Finding, files::File};

/// A module by its path below the crate: `["server", "connection"]`.
type Module = Vec<String>;

/// The modules of a crate that have a file, with the place of the file and what it uses.
type Graph<'a> = BTreeMap<Module, (&'a str, BTreeSet<Module>)>;

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let roots = files.iter().filter_map(|file| file.path.strip_suffix("Cargo.toml"));
    let check = |root| {
        let (graph, mut findings) = graph(files, &format!("{root}src/"));
        findings.extend(circles(&graph));
        findings
    };
    roots.flat_map(check).collect()
}

/// And the files that cannot be read, whose circles nobody would see.
fn graph<'a>(files: &'a [File], sources: &str) -> (Graph<'a>, Vec<Finding>) {
    let modules: Vec<_> = files.iter().filter_map(|file| Some((module(file, sources)?, file))).collect();
    let known: BTreeSet<&Module> = modules.iter().map(|(module, _)| module).collect();
    let (mut graph, mut unread) = (Graph::new(), Vec::new());
    for (module, file) in &modules {
        let Ok(parsed) = syn::parse_file(&file.text) else {
            unread.push(Finding::new(
                &file.path,
                1,
                "this cannot be read as Rust to look for circles; see what syn makes of it",
            ));
            continue;
        };
        let mut paths = Paths { module, found: BTreeSet::new() };
        paths.visit_file(&parsed);
        let used = paths.found.into_iter().filter_map(|path| file_of(path, &known));
        let used = used.filter(|used| !module.starts_with(used)).collect();
        graph.insert(module.clone(), (&*file.path, used));
    }
    (graph, unread)
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

fn circles(graph: &Graph<'_>) -> Vec<Finding> {
    let (mut done, mut findings) = (BTreeSet::new(), Vec::new());
    for module in graph.keys() {
        walk(graph, module, &mut Vec::new(), &mut done, &mut findings);
    }
    findings
}

fn walk<'g>(
    graph: &'g Graph<'_>,
    module: &'g Module,
    way: &mut Vec<&'g Module>,
    done: &mut BTreeSet<&'g Module>,
    findings: &mut Vec<Finding>,
) {
    if let Some(begin) = way.iter().position(|passed| *passed == module) {
        let names = way.iter().skip(begin).chain([&module]).map(|module| module.join("::"));
        let names = names.collect::<Vec<_>>().join(" -> ");
        let path = graph.get(module).map_or("", |(path, _)| path);
        let message =
            format!("files use each other in a circle: {names}; move what they share to a file of its own");
        findings.push(Finding::new(path, 1, message));
    }
    if !done.insert(module) {
        return;
    }
    way.push(module);
    for used in graph.get(module).into_iter().flat_map(|(_, used)| used) {
        walk(graph, used, way, done, findings);
    }
    way.pop();
}

/// Collects the paths that a file uses.
struct Paths<'a> {
    module: &'a Module,
    found: BTreeSet<Module>,
}

impl Paths<'_> {
    fn add(&mut self, segments: &[String]) {
        let mut rest = segments;
        let mut path = match rest {
            [first, ..] if first == "crate" => Module::new(),
            [first, ..] if first == "super" || first == "self" => self.module.clone(),
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

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn messages(files: &[(&str, &str)]) -> Vec<String> {
        let manifest = ("crates/a/Cargo.toml", "");
        let fixture = Fixture::new(&[&[manifest], files].concat());
        check(&fixture.files()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        for (one, two) in [
            ("use crate::two::Two;", "use super::one::One;"),
            ("use crate::{x, two::{self, Two}};", "fn f() -> crate::one::One { g() }"),
            ("fn f(x: crate::two::Two) {}", "impl crate::one::One for Two {}"),
        ] {
            let found = messages(&[("crates/a/src/one.rs", one), ("crates/a/src/two.rs", two)]);
            let expected = "crates/a/src/one.rs:1: files use each other in a circle: one -> two -> one; move what they share to a file of \
                            its own";
            assert_eq!(found, [expected], "{one} {two}");
        }
    }

    #[test]
    fn a_circle_over_folders_is_found_once() {
        let found = messages(&[
            ("crates/a/src/server/io.rs", "use crate::wire::Head;"),
            ("crates/a/src/wire.rs", "use crate::limits::MAX;"),
            ("crates/a/src/limits.rs", "use crate::server::io::Io;"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("limits -> server::io -> wire -> limits"), "{found:?}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told() {
        let found = messages(&[("crates/a/src/one.rs", "fn {")]);
        assert!(matches!(&*found, [only] if only.contains("cannot be read as Rust")), "{found:?}");
    }

    #[test]
    fn what_is_no_circle_is_no_finding() {
        let found = messages(&[
            ("crates/a/src/lib.rs", "mod one; use crate::one::One;"),
            (
                "crates/a/src/one.rs",
                "mod part; use crate::lib; #[cfg(test)] mod tests { use crate::two::Two; }",
            ),
            ("crates/a/src/one/part.rs", "use super::One; use crate::two::Two;"),
            ("crates/a/src/two.rs", "use crate::one::One;"),
            ("crates/a/src/tests/two.rs", "use crate::one::One; use crate::two::Two;"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }
}
