//! Which crate of the workspace may know which: exactly the edges of the plan, none more and none
//! less.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Package};

use super::{Finding, workspace::Workspace};

/// One crate and its edges to other crates of the workspace.
#[derive(Debug)]
pub(super) struct Room {
    name: &'static str,
    /// What it depends on, always.
    knows: &'static [&'static str],
    /// What it may depend on besides.
    may_know: &'static [&'static str],
    /// What its tests, examples and benches may use besides; `None` for whatever they like.
    tests_may_know: Option<&'static [&'static str]>,
}

/// ARCHITECTURE.md tells the reasons.
pub(super) const ROOMS: &[Room] = &[
    room("relay-core", &[]),
    room("relay-ratelimit", &[]),
    room("relay-disk", &[]),
    Room {
        name: "relay-journal",
        knows: &["relay-disk"],
        may_know: &[],
        tests_may_know: Some(&["relay-disk"]),
    },
    Room {
        name: "relay-store-redb",
        knows: &["relay-core", "relay-disk", "relay-journal"],
        may_know: &[],
        tests_may_know: Some(&["relay-core", "relay-disk"]),
    },
    room("relay-http", &["relay-core", "relay-ratelimit"]),
    room("relay-bin", &["relay-core", "relay-http", "relay-store-redb"]),
    Room {
        name: "relay-tests",
        knows: &[],
        may_know: &["relay-bin", "relay-core", "relay-http"],
        tests_may_know: None,
    },
    Room { name: "xtask", knows: &[], may_know: &[], tests_may_know: Some(&[]) },
];

const fn room(name: &'static str, knows: &'static [&'static str]) -> Room {
    Room { name, knows, may_know: &[], tests_may_know: Some(&["relay-core"]) }
}

pub(super) fn check(workspace: &Workspace, rooms: &[Room]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in workspace.members() {
        match rooms.iter().find(|room| room.name == member.name.as_str()) {
            Some(room) => findings.extend(check_member(workspace, member, room)),
            None => {
                let message =
                    "the crate has no row in xtask/src/tidy/edges.rs; add one that says whom it may know";
                findings.push(workspace.finding(member, "name", message));
            }
        }
    }
    findings
}

fn check_member(workspace: &Workspace, member: &Package, room: &Room) -> Vec<Finding> {
    let members = workspace.member_names();
    let mut known = BTreeSet::new();
    let mut findings = Vec::new();
    for dependency in
        member.dependencies.iter().filter(|dependency| members.contains(&dependency.name.as_str()))
    {
        let other = dependency.name.as_str();
        let is_test = dependency.kind == DependencyKind::Development;
        if !is_test {
            known.insert(other);
        }
        if !may_know(room, other, is_test) {
            let message = format!(
                "{} may not know {other}; move the code to where it belongs, or change the plan in ARCHITECTURE.md \
                 and xtask/src/tidy/edges.rs",
                room.name
            );
            findings.push(workspace.finding(member, other, message));
        }
    }
    findings.extend(room.knows.iter().filter(|other| !known.contains(*other)).map(|other| {
        let message = format!(
            "{} no longer depends on {other}; take the edge out of xtask/src/tidy/edges.rs",
            room.name
        );
        workspace.finding(member, "name", message)
    }));
    findings
}

fn may_know(room: &Room, other: &str, is_test: bool) -> bool {
    room.knows.contains(&other)
        || room.may_know.contains(&other)
        || is_test && room.tests_may_know.is_none_or(|others| others.contains(&other))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const TABLE: &[Room] = &[
        room("relay-core", &[]),
        room("store", &["relay-core"]),
        Room { name: "suite", knows: &[], may_know: &["relay-core"], tests_may_know: None },
    ];

    fn messages(members: &[(&str, &str)]) -> Vec<String> {
        let workspace = Fixture::workspace(members).resolve();
        check(&workspace, TABLE).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_planned_edges_pass() {
        let found = messages(&[
            ("relay-core", ""),
            ("store", "[dependencies]\nrelay-core = { path = \"../relay-core\" }\n"),
            ("suite", "[dev-dependencies]\nstore = { path = \"../store\" }\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
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
            found[0].starts_with("crates/relay-core/Cargo.toml:7: relay-core may not know suite;"),
            "{found:?}"
        );
        assert!(found[1].starts_with("crates/store/Cargo.toml:9: store may not know suite;"), "{found:?}");
    }

    #[test]
    fn a_row_without_its_edge_and_a_crate_without_a_row_are_found() {
        let found = messages(&[("relay-core", ""), ("store", ""), ("attic", "")]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("no row in xtask"), "{found:?}");
        assert!(found[1].contains("store no longer depends on relay-core"), "{found:?}");
    }
}
