//! The project's own rules, which no other tool checks: dependencies between crates, layers inside
//! them, and the form of sources and documents.
//!
//! It only reads. It prints all findings at once, each with its location and a remedy. The test
//! below applies the rules to this repository, so `cargo test` checks them too.

mod circles;
mod documents;
mod edges;
mod files;
mod layers;
mod modules;
mod sources;
mod texts;
mod trees;
mod workspace;

#[cfg(test)]
mod fixture;

use std::{fmt, path::Path};

use anyhow::bail;

use crate::project_root;
use workspace::Workspace;

/// One violation of a rule. Sorts by location.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Relative to the root of the project.
    path: String,
    /// Counted from 1.
    line: usize,
    /// What is wrong, and what to do.
    message: String,
}

impl Finding {
    fn new(path: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// # Errors
/// If a rule is broken, or the project cannot be read.
pub(crate) fn run() -> anyhow::Result<()> {
    let findings = findings(project_root())?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    Ok(())
}

fn findings(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let files = files::read(root)?;
    let workspace = Workspace::read(root)?;
    let mut findings = edges::check(&workspace, edges::EDGES);
    findings.extend(trees::check(&workspace, trees::TREES)?);
    for manifest in files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        let (graph, unread) = modules::graph(&files, &format!("{}src/", manifest.directory()));
        findings.extend(unread);
        findings.extend(circles::check(&graph));
        findings.extend(layers::check(manifest, &graph)?);
    }
    findings.extend(sources::check(&files));
    findings.extend(documents::check(root, &files, &workspace.member_names()));
    findings.extend(texts::check(&files));
    findings.sort();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_tidy() {
        let findings = findings(project_root()).unwrap();
        let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
    }
}
