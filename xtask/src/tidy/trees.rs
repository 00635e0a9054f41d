//! The transitive dependencies of a crate with a given set of features.
//!
//! It asks `cargo tree` for one crate at a time: the graph of the whole workspace would mix in the
//! features that the other crates turn on.

use std::collections::BTreeSet;

use anyhow::Context as _;
use xshell::{Shell, cmd};

use super::{Finding, workspace::Workspace};

/// A crate with a set of features, and its allowed dependencies.
#[derive(Debug)]
pub(super) struct Tree {
    package: &'static str,
    /// With `--no-default-features`, separated by commas.
    features: &'static str,
    allowed: Allowed,
}

#[derive(Debug)]
enum Allowed {
    /// These and nothing else.
    Only(&'static [&'static str]),
    /// Anything whose name starts with none of these.
    AllBut(&'static [&'static str]),
}

const TLS: &[&str] = &["rustls", "tokio-rustls", "aws-lc", "openssl", "native-tls", "ring"];

pub(super) const TREES: &[Tree] = &[
    Tree {
        package: "relay-core",
        features: "",
        allowed: Allowed::Only(&[
            "bytes",
            "proc-macro2",
            "quote",
            "syn",
            "thiserror",
            "thiserror-impl",
            "unicode-ident",
            "uuid",
        ]),
    },
    Tree { package: "relay-http", features: "", allowed: Allowed::AllBut(TLS) },
    Tree { package: "relay-bin", features: "redb", allowed: Allowed::AllBut(TLS) },
    Tree { package: "relay-bin", features: "tls", allowed: Allowed::AllBut(&["redb", "relay-store-redb"]) },
];

/// # Errors
/// If `cargo tree` fails, as for a package that does not exist.
pub(super) fn check(workspace: &Workspace, trees: &[Tree]) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for tree in trees {
        let member = workspace.members().into_iter().find(|member| *member.name == tree.package);
        let member = member.with_context(|| format!("there is no crate {}", tree.package))?;
        for name in below(workspace, tree)?.iter().filter(|name| !tree.allowed.contains(name)) {
            let message = format!(
                "{} depends on {name} with {}; `cargo {} --invert {name}` shows the path to remove",
                tree.package,
                if tree.features.is_empty() { "no features" } else { tree.features },
                tree.arguments().join(" "),
            );
            findings.push(workspace.finding(member, name, message));
        }
    }
    Ok(findings)
}

/// The names of all direct and indirect dependencies, for building and running.
fn below(workspace: &Workspace, tree: &Tree) -> anyhow::Result<BTreeSet<String>> {
    let shell = Shell::new()?;
    shell.change_dir(workspace.root());
    let arguments = tree.arguments();
    let lines = cmd!(shell, "cargo {arguments...} --prefix none").quiet().ignore_stderr().read()?;
    let names = lines.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| *name != tree.package).map(str::to_owned).collect())
}

impl Tree {
    fn arguments(&self) -> Vec<&'static str> {
        let mut arguments =
            vec!["tree", "--package", self.package, "--edges", "normal,build", "--no-default-features"];
        if !self.features.is_empty() {
            arguments.extend(["--features", self.features]);
        }
        arguments
    }
}

impl Allowed {
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(&name),
            Self::AllBut(prefixes) => !prefixes.iter().any(|prefix| name.starts_with(prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const CORE: &str = "[features]\ntesting = [\"dep:serde\"]\n[dependencies]\nredb.path = \"../../vendor/redb\"\n\
                        serde = { path = \"../../vendor/serde\", optional = true }\n";

    fn messages(features: &'static str, allowed: Allowed) -> Vec<String> {
        let fixture = Fixture::workspace(&[("core", CORE)]);
        fixture.vendor("redb");
        fixture.vendor("serde");
        let tree = Tree { package: "core", features, allowed };
        let findings = check(&fixture.resolve(), &[tree]).unwrap();
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn allowed_dependencies_pass() {
        assert_eq!(messages("", Allowed::Only(&["redb"])), [""; 0]);
        assert_eq!(messages("", Allowed::AllBut(&["serde"])), [""; 0]);
        assert_eq!(messages("testing", Allowed::Only(&["redb", "serde"])), [""; 0]);
    }

    #[test]
    fn a_forbidden_dependency_is_found_with_its_feature() {
        let found = messages("testing", Allowed::Only(&["redb"]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("crates/core/Cargo.toml:10: core depends on serde with testing; "),
            "{found:?}"
        );
        assert_eq!(messages("", Allowed::AllBut(&["re"])).len(), 1);
    }
}
