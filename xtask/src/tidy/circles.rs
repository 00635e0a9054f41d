//! No circle of files inside a crate. A reader can then read what a file uses first, and nothing
//! twice.

use std::collections::BTreeSet;

use super::Finding;
use super::modules::{Graph, Module};

/// One finding for each circle.
pub(super) fn check(graph: &Graph<'_>) -> Vec<Finding> {
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

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::super::modules;
    use super::*;

    fn messages(files: &[(&str, &str)]) -> Vec<String> {
        let fixture = Fixture::new(files);
        let files = fixture.files();
        let (graph, unread) = modules::graph(&files, "crates/a/src/");
        unread.into_iter().chain(check(&graph)).map(|finding| finding.to_string()).collect()
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
    fn a_file_that_cannot_be_parsed_is_reported() {
        let found = messages(&[("crates/a/src/one.rs", "fn {")]);
        assert!(matches!(&*found, [only] if only.contains("syn cannot parse this file")), "{found:?}");
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
