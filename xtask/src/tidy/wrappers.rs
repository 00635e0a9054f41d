//! Which crates may depend on a crate from outside: the `[bans]` of deny.toml, read from there so
//! that there is one list.
//!
//! It checks the graph with all features, tests included, as cargo-deny does. It does not look at
//! licenses or advisories.

use anyhow::Context as _;
use serde::Deserialize;

use super::{Finding, files::File, workspace::Workspace};

/// What a crate never declares, not even for its tests: (crate, dependency).
/// deny.toml cannot say this, for half of the graph depends on these.
const NEVER: &[(&str, &str)] = &[("relay-core", "serde"), ("relay-core", "serde_json")];

/// The part of deny.toml that this rule holds.
#[derive(Debug, Deserialize)]
struct Deny {
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    /// The only crates that may depend on it. Without any, it is banned altogether.
    #[serde(default)]
    wrappers: Vec<String>,
}

/// # Errors
/// If deny.toml is missing or is not what cargo-deny would read.
pub(super) fn check(workspace: &Workspace, files: &[File]) -> anyhow::Result<Vec<Finding>> {
    let deny = files.iter().find(|file| file.path == "deny.toml").context("there is no deny.toml")?;
    let bans = toml::from_str::<Deny>(&deny.text).context("deny.toml")?.bans.deny;
    let mut findings = never(workspace);
    findings.extend(bans.iter().flat_map(|ban| dependents(workspace, ban)));
    Ok(findings)
}

fn never(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in workspace.members() {
        for dependency in &member.dependencies {
            if NEVER.contains(&(member.name.as_str(), dependency.name.as_str())) {
                let message = format!("{} never depends on {}; take it out", member.name, dependency.name);
                findings.push(workspace.finding(member, &dependency.name, message));
            }
        }
    }
    findings
}

/// Those who depend on a banned crate and are none of its wrappers.
fn dependents(workspace: &Workspace, ban: &Ban) -> Vec<Finding> {
    let members = workspace.member_names();
    let mut findings = Vec::new();
    for (parent, dependencies) in workspace.resolved() {
        let depends = dependencies.iter().any(|dependency| *dependency.name == ban.name);
        if !depends || ban.wrappers.contains(&parent.name) {
            continue;
        }
        let message = format!(
            "{} depends on {}, which deny.toml allows only under {:?}",
            parent.name, ban.name, ban.wrappers
        );
        findings.push(if members.contains(&parent.name.as_str()) {
            workspace.finding(parent, &ban.name, format!("{message}; go through one of them"))
        } else {
            Finding::new("Cargo.lock", 1, format!("{message}; find who brings it in with `cargo tree -i`"))
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const REDB: &str = "[dependencies]\nredb = { path = \"../../vendor/redb\" }\n";

    fn messages(members: &[(&str, &str)], bans: &str) -> Vec<String> {
        let fixture = Fixture::workspace(members);
        fixture.vendor("redb");
        fixture.vendor("serde");
        fixture.write("deny.toml", &format!("[bans]\ndeny = [\n{bans}\n]\n"));
        let findings = check(&fixture.resolve(), &fixture.files()).unwrap();
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_wrapper_may_and_nobody_else() {
        let ban = "{ crate = \"redb\", wrappers = [\"store\"] },";
        assert_eq!(messages(&[("store", REDB), ("core", "")], ban), [""; 0]);
        let found = messages(&[("store", REDB), ("core", REDB)], ban);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("crates/core/Cargo.toml:7: core depends on redb, "), "{found:?}");
    }

    #[test]
    fn a_ban_without_wrappers_holds_for_all() {
        let ban = "{ crate = \"redb\" },";
        assert_eq!(messages(&[("store", "")], ban), [""; 0]);
        assert_eq!(messages(&[("store", REDB)], ban).len(), 1);
    }

    #[test]
    fn relay_core_never_has_serde_not_even_as_an_option() {
        let serde = "[dependencies]\nserde = { path = \"../../vendor/serde\", optional = true }\n";
        let found = messages(&[("relay-core", serde)], "");
        assert_eq!(found, ["crates/relay-core/Cargo.toml:7: relay-core never depends on serde; take it out"]);
    }
}
