//! The folders of a crate are layers, and each uses only those below it. A crate declares their
//! order in its manifest, from the top down: `[package.metadata] layers = [...]`.
//!
//! A file at the root of the crate is a layer of its own. A crate that declares no order has none.

use std::collections::BTreeSet;

use super::modules::Graph;
use super::workspace::line_of_key;
use super::{Finding, files::File};

/// Finds uses of a higher layer, and layers that are only declared or not declared.
///
/// # Errors
/// When the manifest is not TOML.
pub(super) fn check(manifest: &File, graph: &Graph<'_>) -> anyhow::Result<Vec<Finding>> {
    let table: toml::Table = manifest.text.parse()?;
    let declared =
        table.get("package").and_then(|package| package.get("metadata")?.get("layers")?.as_array());
    let Some(declared) = declared else { return Ok(Vec::new()) };
    let layers: Vec<&str> = declared.iter().filter_map(|layer| layer.as_str()).collect();
    let rank =
        |module: &[String]| layers.iter().position(|layer| module.first().is_some_and(|top| top == layer));
    let mut findings = Vec::new();
    for (module, (path, used)) in graph {
        for other in used {
            if let (Some(own), Some(others)) = (rank(module), rank(other))
                && others < own
            {
                let message = format!(
                    "{} uses {}, which is in a higher layer; move what it needs down, or this file up",
                    module.join("::"),
                    other.join("::")
                );
                findings.push(Finding::new(*path, 1, message));
            }
        }
    }
    let found: BTreeSet<&str> =
        graph.keys().filter_map(|module| module.first()).map(String::as_str).collect();
    let declared: BTreeSet<&str> = layers.into_iter().collect();
    findings.extend(found.symmetric_difference(&declared).map(|layer| {
        let message = format!("the layer {layer} is not both a module and declared in `layers`");
        Finding::new(&manifest.path, line_of_key(&manifest.text, "layers"), message)
    }));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::super::modules;
    use super::*;

    fn messages(layers: &str, files: &[(&str, &str)]) -> Vec<String> {
        let fixture = Fixture::new(files);
        let manifest = File {
            path: "crates/a/Cargo.toml".to_owned(),
            text: format!("[package.metadata]\nlayers = [{layers}]\n"),
        };
        let files = fixture.files();
        let (graph, _) = modules::graph(&files, "crates/a/src/");
        check(&manifest, &graph).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_arrow_upwards_is_found_and_one_downwards_is_not() {
        let files = [
            ("crates/a/src/lib.rs", "mod io; mod engine; pub use crate::engine::Engine;"),
            ("crates/a/src/engine.rs", "mod writer;"),
            ("crates/a/src/engine/writer.rs", "use crate::io::clock::Clock;"),
            ("crates/a/src/io.rs", "mod clock;"),
            ("crates/a/src/io/clock.rs", ""),
        ];
        assert_eq!(messages("'engine', 'io'", &files), Vec::<String>::new());
        let found = messages("'io', 'engine'", &files);
        let expected = "crates/a/src/engine/writer.rs:1: engine::writer uses io::clock, which is in a higher layer; move what it \
                        needs down, or this file up";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn the_root_of_the_crate_hides_no_arrow() {
        for used in ["crate::Engine", "crate::{x, Engine as E}", "super::Engine"] {
            let found = messages(
                "'engine', 'io'",
                &[
                    ("crates/a/src/lib.rs", "pub use engine::writer::Engine;"),
                    ("crates/a/src/engine/writer.rs", ""),
                    ("crates/a/src/io.rs", &format!("use {used};")),
                ],
            );
            assert!(
                matches!(&*found, [only] if only.contains("io uses engine::writer,")),
                "{used}: {found:?}"
            );
        }
    }

    #[test]
    fn modules_and_declared_layers_are_the_same() {
        let found = messages("'a', 'b'", &[("crates/a/src/b.rs", ""), ("crates/a/src/c.rs", "")]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("crates/a/Cargo.toml:2: the layer a "), "{found:?}");
        assert!(found[1].starts_with("crates/a/Cargo.toml:2: the layer c "), "{found:?}");
    }
}
