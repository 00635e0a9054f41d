//! Every crate takes its lints and the versions of its dependencies from the workspace.

use anyhow::Context as _;
use toml::{Table, Value};

use super::{
    Finding,
    workspace::{Workspace, line_of_key},
};

/// # Errors
/// If the manifest of a member is not TOML.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for member in workspace.members() {
        findings.extend(check_manifest(&workspace.manifest_path(member), workspace.manifest(member))?);
    }
    Ok(findings)
}

fn check_manifest(path: &str, text: &str) -> anyhow::Result<Vec<Finding>> {
    let manifest: Table = text.parse().with_context(|| path.to_owned())?;
    let mut findings = Vec::new();
    if !manifest.get("lints").is_some_and(is_inherited) {
        findings.push(Finding::new(
            path,
            1,
            "the lints are not the workspace's; add [lints] workspace = true",
        ));
    }
    for (name, value) in dependencies(&manifest) {
        if !is_inherited(value) {
            let message = format!(
                "{name} is not the workspace's; name it in the root Cargo.toml and say workspace = true"
            );
            findings.push(Finding::new(path, line_of_key(text, name), message));
        }
    }
    Ok(findings)
}

/// The dependencies of every kind, those of a single platform included.
fn dependencies(manifest: &Table) -> Vec<(&String, &Value)> {
    let platforms = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables = platforms.filter_map(Value::as_table).chain([manifest]);
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    tables
        .flat_map(|table| kinds.into_iter().filter_map(|kind| table.get(kind)?.as_table()).flatten())
        .collect()
}

fn is_inherited(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        check_manifest("Cargo.toml", text).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_inherited_passes() {
        let found = messages(
            "[lints]\nworkspace = true\n[dependencies]\na.workspace = true\n\
             b = { workspace = true, optional = true }\n[dev-dependencies]\nc.workspace = true\n",
        );
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn what_is_not_inherited_is_found_in_every_table() {
        let found = messages(
            "[dependencies]\na = \"1\"\n[dev-dependencies]\nb = { path = \"b\" }\n\
             [target.'cfg(unix)'.build-dependencies]\nc = \"1\"\n",
        );
        let places: Vec<_> = found.iter().filter_map(|line| line.split(" is not").next()).collect();
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].starts_with("Cargo.toml:1: the lints are not the workspace's"), "{found:?}");
        for place in ["Cargo.toml:2: a", "Cargo.toml:4: b", "Cargo.toml:6: c"] {
            assert!(places.contains(&place), "{found:?}");
        }
    }

    #[test]
    fn the_manifest_of_every_member_is_read() {
        let fixture = Fixture::workspace(&[("a", ""), ("b", "[lints]\nworkspace = true\n")]);
        let found = check(&fixture.resolve()).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, "crates/a/Cargo.toml");
    }
}
