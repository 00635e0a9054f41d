//! Which crate of the workspace may depend on which: exactly the edges of ARCHITECTURE.md, none
//! more and none less. Bans on external crates are in deny.toml.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Package};

use super::{Finding, workspace::Workspace};

/// What one crate may depend on inside the workspace.
#[derive(Debug)]
pub(super) struct Edges {
    name: &'static str,
    /// It depends on all of these.
    uses: &'static [&'static str],
    /// It may depend on these as well.
    may_use: &'static [&'static str],
    /// Its tests, examples and benches may use these as well. `None` means anything.
    tests_may_use: Option<&'static [&'static str]>,
}

/// ARCHITECTURE.md gives the reasons.
pub(super) const EDGES: &[Edges] = &[
    edges("relay-core", &[]),
    edges("relay-auth", &["relay-core"]),
    edges("relay-ratelimit", &[]),
    edges("relay-disk", &[]),
    Edges { tests_may_use: Some(&["relay-disk"]), ..edges("relay-journal", &["relay-disk"]) },
    Edges {
        tests_may_use: Some(&["relay-core", "relay-disk"]),
        ..edges("relay-store-redb", &["relay-core", "relay-disk", "relay-journal"])
    },
    edges("relay-roots", &[]),
    edges("relay-store-postgres", &["relay-core", "relay-roots"]),
    Edges {
        tests_may_use: Some(&["relay-core", "relay-http"]),
        ..edges("relay-http", &["relay-auth", "relay-core", "relay-ratelimit"])
    },
    edges("relay-wake", &["relay-core", "relay-roots"]),
    // The client knows the wire alone. Its tests check it against the relay's own code.
    Edges {
        tests_may_use: Some(&["relay-auth", "relay-core", "relay-http"]),
        ..edges("relay-client", &["relay-roots"])
    },
    // Its tests start a relay.
    Edges {
        tests_may_use: Some(&["relay-auth", "relay-core", "relay-http"]),
        ..edges("relay-cli", &["relay-client"])
    },
    edges(
        "relay-bin",
        &["relay-auth", "relay-core", "relay-http", "relay-store-postgres", "relay-store-redb", "relay-wake"],
    ),
    Edges {
        may_use: &[
            "relay-auth",
            "relay-bin",
            "relay-client",
            "relay-core",
            "relay-http",
            "relay-store-postgres",
        ],
        tests_may_use: None,
        ..edges("relay-tests", &[])
    },
    Edges { tests_may_use: Some(&[]), ..edges("xtask", &[]) },
];

/// relay-core never declares these, not even for its tests. deny.toml cannot say this, because half
/// of the graph depends on them.
const NEVER_IN_CORE: &[&str] = &["serde", "serde_json"];

const fn edges(name: &'static str, uses: &'static [&'static str]) -> Edges {
    Edges { name, uses, may_use: &[], tests_may_use: Some(&["relay-core"]) }
}

pub(super) fn check(workspace: &Workspace, table: &[Edges]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in workspace.members() {
        findings.extend(inherits_lints(workspace, member));
        match table.iter().find(|edges| edges.name == member.name.as_str()) {
            Some(edges) => findings.extend(check_member(workspace, member, edges)),
            None => {
                let message =
                    "the crate has no row in xtask/src/tidy/edges.rs; add one that says what it may use";
                findings.push(workspace.finding(member, "name", message));
            }
        }
    }
    findings
}

fn check_member(workspace: &Workspace, member: &Package, edges: &Edges) -> Vec<Finding> {
    let members = workspace.member_names();
    let (mut used, mut findings) = (BTreeSet::new(), Vec::new());
    for dependency in &member.dependencies {
        let other = dependency.name.as_str();
        let is_test = dependency.kind == DependencyKind::Development;
        let is_member = members.contains(&other);
        if is_member && !is_test {
            used.insert(other);
        }
        if is_member && !may_use(edges, other, is_test) {
            let message = format!(
                "{} may not use {other}; move the code to where it belongs, or change the plan in ARCHITECTURE.md and \
                 xtask/src/tidy/edges.rs",
                edges.name
            );
            findings.push(workspace.finding(member, other, message));
        }
        if edges.name == "relay-core" && NEVER_IN_CORE.contains(&other) {
            let message = format!("relay-core never depends on {other}; remove it");
            findings.push(workspace.finding(member, other, message));
        }
    }
    findings.extend(edges.uses.iter().filter(|other| !used.contains(*other)).map(|other| {
        let message = format!(
            "{} no longer depends on {other}; remove the edge from xtask/src/tidy/edges.rs",
            edges.name
        );
        workspace.finding(member, "name", message)
    }));
    findings
}

fn may_use(edges: &Edges, other: &str, is_test: bool) -> bool {
    edges.uses.contains(&other)
        || edges.may_use.contains(&other)
        || is_test && edges.tests_may_use.is_none_or(|others| others.contains(&other))
}

fn inherits_lints(workspace: &Workspace, member: &Package) -> Option<Finding> {
    let manifest: toml::Table = workspace.manifest(member).parse().unwrap_or_default();
    let inherited = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
    let message = "the crate does not have the lints of the workspace; add `[lints] workspace = true`";
    (inherited != Some(true)).then(|| workspace.finding(member, "name", message))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const TABLE: &[Edges] = &[
        edges("relay-core", &[]),
        edges("store", &["relay-core"]),
        Edges { may_use: &["relay-core"], tests_may_use: None, ..edges("suite", &[]) },
    ];

    const LINTS: &str = "[lints]\nworkspace = true\n";

    fn messages(members: &[(&str, &str)]) -> Vec<String> {
        let members: Vec<_> = members.iter().map(|(name, rest)| (*name, format!("{LINTS}{rest}"))).collect();
        let members: Vec<_> = members.iter().map(|(name, rest)| (*name, rest.as_str())).collect();
        let fixture = Fixture::workspace(&members);
        fixture.vendor("serde");
        check(&fixture.resolve(), TABLE).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_planned_edges_pass() {
        let found = messages(&[
            ("relay-core", ""),
            ("store", "[dependencies]\nrelay-core = { path = \"../relay-core\" }\n"),
            ("suite", "[dev-dependencies]\nstore = { path = \"../store\" }\n"),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn an_edge_against_the_plan_is_found_where_it_stands() {
        let found = messages(&[
            ("relay-core", "[build-dependencies]\nsuite = { path = \"../suite\", optional = true }\n"),
            (
                "store",
                "[dependencies]\nrelay-core.path = \"../relay-core\"\n[dev-dependencies]\nsuite.path = \"../suite\"\n",
            ),
            ("suite", ""),
        ]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("crates/relay-core/Cargo.toml:9: relay-core may not use suite;"),
            "{found:?}"
        );
        assert!(found[1].starts_with("crates/store/Cargo.toml:11: store may not use suite;"), "{found:?}");
    }

    #[test]
    fn a_row_without_its_edge_and_a_crate_without_a_row_are_found() {
        let found = messages(&[("relay-core", ""), ("store", ""), ("attic", "")]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("no row in xtask"), "{found:?}");
        assert!(found[1].contains("store no longer depends on relay-core"), "{found:?}");
    }

    #[test]
    fn relay_core_never_has_serde_not_even_as_an_option() {
        let serde = "[dependencies]\nserde = { path = \"../../vendor/serde\", optional = true }\n";
        let found = messages(&[("relay-core", serde)]);
        assert_eq!(found, ["crates/relay-core/Cargo.toml:9: relay-core never depends on serde; remove it"]);
    }

    #[test]
    fn every_crate_has_the_lints_of_the_workspace() {
        let workspace = Fixture::workspace(&[("relay-core", "[lints]\n")]).resolve();
        let found = check(&workspace, TABLE);
        assert!(
            matches!(&*found, [only] if only.to_string().contains("lints of the workspace")),
            "{found:?}"
        );
    }
}
