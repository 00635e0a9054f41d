//! A bill of materials in CycloneDX: every crate that is linked into the programs, with its
//! version, licence and checksum.
//!
//! `cargo tree` says which crates these are, since it resolves the features of these programs
//! alone.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use cargo_metadata::{Metadata, MetadataCommand, Package};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use xshell::{Shell, cmd};

/// The lock file, as far as it is needed.
#[derive(Debug, Deserialize)]
struct LockFile {
    package: Vec<LockedPackage>,
}

#[derive(Debug, Deserialize)]
struct LockedPackage {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// A crate: its name and version.
type Name = (String, String);

/// # Errors
/// If cargo cannot resolve the programs.
pub(super) fn of_programs(shell: &Shell, programs: &[&str], target: &str) -> anyhow::Result<String> {
    let linked = linked(shell, programs, target)?;
    let metadata =
        MetadataCommand::new().current_dir(shell.current_dir()).exec().context("cargo metadata")?;
    let lock: LockFile = toml::from_str(&shell.read_file("Cargo.lock")?)?;
    let checksums = lock.package.into_iter().map(|it| ((it.name, it.version), it.checksum)).collect();
    Ok(serde_json::to_string_pretty(&document(&metadata, &linked, &checksums))? + "\n")
}

/// The crates below the programs, without those that only build scripts, macros and tests use.
fn linked(shell: &Shell, programs: &[&str], target: &str) -> anyhow::Result<BTreeSet<Name>> {
    let packages = programs.iter().flat_map(|program| ["--package", program]);
    let tree = cmd!(
        shell,
        "cargo tree --locked {packages...} --target {target} --edges normal,no-proc-macro --prefix none"
    )
    .quiet()
    .read()?;
    Ok(tree.lines().filter_map(name).collect())
}

/// `serde v1.0.229 (proc-macro)` names a crate.
fn name(line: &str) -> Option<Name> {
    let mut words = line.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some((name.to_owned(), version.to_owned()))
}

fn document(
    metadata: &Metadata,
    linked: &BTreeSet<Name>,
    checksums: &BTreeMap<Name, Option<String>>,
) -> Value {
    let mut components: Vec<_> =
        metadata.packages.iter().map(|package| (name_of(package), package)).collect();
    components.retain(|(name, _)| linked.contains(name));
    components.sort_by(|(left, _), (right, _)| left.cmp(right));
    let components: Vec<_> =
        components.iter().map(|(name, package)| component(package, checksums.get(name))).collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "relay", "version": super::VERSION}},
        "components": components,
    })
}

fn name_of(package: &Package) -> Name {
    (package.name.to_string(), package.version.to_string())
}

fn component(package: &Package, checksum: Option<&Option<String>>) -> Value {
    let (name, version) = name_of(package);
    let mut component = Map::new();
    component.insert("type".to_owned(), json!("library"));
    component.insert("name".to_owned(), json!(name));
    component.insert("version".to_owned(), json!(version));
    if let Some(license) = &package.license {
        // Older crates write "/" for OR.
        let expression = license.replace('/', " OR ");
        component.insert("licenses".to_owned(), json!([{"expression": expression}]));
    }
    // Crates of the workspace come from no registry.
    if package.source.is_some() {
        component.insert("purl".to_owned(), json!(format!("pkg:cargo/{name}@{version}")));
    }
    if let Some(Some(checksum)) = checksum {
        component.insert("hashes".to_owned(), json!([{"alg": "SHA-256", "content": checksum}]));
    }
    component.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_cargo_tree_name_crates() {
        let of = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(name("bytes v1.12.2"), of("bytes", "1.12.2"));
        assert_eq!(name("relay-core v0.1.0 (/src/crates/relay-core)"), of("relay-core", "0.1.0"));
        assert_eq!(name("bytes v1.12.2 (*)"), of("bytes", "1.12.2"));
        assert_eq!(name(""), None);
    }

    /// redb is linked into the server, reqwest into the client; proptest only into tests, and cc
    /// only into build scripts.
    #[test]
    fn it_lists_what_is_linked_with_licences_and_checksums() {
        let shell = Shell::new().unwrap();
        shell.change_dir(crate::project_root());
        let document =
            of_programs(&shell, &super::super::PROGRAMS, &super::super::host(&shell).unwrap()).unwrap();
        let document: Value = serde_json::from_str(&document).unwrap();
        let components = document["components"].as_array().unwrap();
        let find = |name: &str| components.iter().find(|it| it["name"] == name);
        for name in ["redb", "reqwest"] {
            let component = find(name).unwrap();
            assert!(component["licenses"][0]["expression"].is_string(), "{component}");
            assert_eq!(component["hashes"][0]["content"].as_str().unwrap().len(), 64);
            assert!(component["purl"].as_str().unwrap().starts_with(&format!("pkg:cargo/{name}@")));
        }
        assert!(find("relay-core").unwrap().get("purl").is_none());
        for name in ["proptest", "cc", "syn", "relay-tests"] {
            assert_eq!(find(name), None);
        }
    }
}
