//! The rules of the house that no compiler holds: who may know whom, how a file opens, what the
//! documents name.
//!
//! It only reads. All findings are printed at once, each with the place and what to do about it.
//! The test below runs the same rules over this repository, so `cargo test` holds them too.

mod circles;
mod documents;
mod edges;
mod files;
mod layers;
mod manifests;
mod modules;
mod sources;
mod texts;
mod trees;
mod workspace;
mod wrappers;

#[cfg(test)]
mod fixture;

use std::{fmt, path::Path};

use anyhow::bail;

use crate::project_root;
use workspace::Workspace;

/// One breach of a rule. Sorts by place.
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
    let mut findings = edges::check(&workspace, edges::ROOMS);
    findings.extend(wrappers::check(&workspace, &files)?);
    findings.extend(trees::check(&workspace, trees::TREES)?);
    for manifest in files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        let (graph, unread) = modules::graph(&files, &format!("{}src/", manifest.directory()));
        findings.extend(unread);
        findings.extend(circles::check(&graph));
        findings.extend(layers::check(manifest, &graph)?);
    }
    findings.extend(sources::check(&files));
    findings.extend(manifests::check(&workspace)?);
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
