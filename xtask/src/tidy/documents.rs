//! The usual documents exist, ARCHITECTURE.md names every crate, and no link is broken.
//!
//! Links to other sites and to headings within a page are not checked.

use std::path::Path;

use super::{Finding, files::File};

const REQUIRED: &[&str] =
    &["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"];

pub(super) fn check(root: &Path, files: &[File], crates: &[&str]) -> Vec<Finding> {
    let mut findings = missing(files);
    let is_document = |file: &&File| file.has_extension("md") && matches!(file.directory(), "" | "docs/");
    for file in files.iter().filter(is_document) {
        findings.extend(broken_links(root, file));
        if file.path == "ARCHITECTURE.md" {
            findings.extend(unnamed(file, crates));
        }
    }
    findings
}

fn missing(files: &[File]) -> Vec<Finding> {
    let is_missing = |name: &&&str| !files.iter().any(|file| file.path == **name);
    REQUIRED
        .iter()
        .filter(is_missing)
        .map(|name| Finding::new(*name, 1, "the file is missing; write it"))
        .collect()
}

fn unnamed(file: &File, crates: &[&str]) -> Vec<Finding> {
    let unnamed = crates.iter().filter(|name| !file.text.contains(**name));
    unnamed
        .map(|name| Finding::new(&file.path, 1, format!("{name} is not named; say what it is for")))
        .collect()
}

fn broken_links(root: &Path, file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_code = false;
    for (index, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let targets = if in_code { Vec::new() } else { targets(line) };
        for target in targets.into_iter().filter(|target| !is_elsewhere(target)) {
            let path = target.split(['#', '?']).next().unwrap_or_default();
            if !path.is_empty() && !root.join(file.directory()).join(path).exists() {
                let message = format!("{path} does not exist; correct the link");
                findings.push(Finding::new(&file.path, index + 1, message));
            }
        }
    }
    findings
}

/// The targets of the links in a line of Markdown: `[text](target "title")`, `[name]: target`.
fn targets(line: &str) -> Vec<String> {
    // Every second part is inline code, which has no links.
    let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let definition = text.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
    let first_word = |target: &str| target.split_whitespace().next().unwrap_or_default().to_owned();
    inline.chain(definition).map(first_word).map(|word| word.trim_matches(['<', '>']).to_owned()).collect()
}

fn is_elsewhere(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn messages(extra: &[(&str, &str)]) -> Vec<String> {
        let fixture = Fixture::new(&[]);
        for name in REQUIRED {
            fixture.write(name, "About relay-core and relay-http.\n");
        }
        for (path, text) in extra {
            fixture.write(path, text);
        }
        let findings = check(fixture.root(), &fixture.files(), &["relay-core", "relay-http"]);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn links_to_existing_files_pass() {
        let found = messages(&[
            (
                "README.md",
                "[a](docs/a.md#top) [b](https://example.org/x) [c](#here) [d](<docs/a.md> \"A\")\n",
            ),
            (
                "docs/a.md",
                "[`up`](../README.md) and [dir](../docs)\n`[no](link)`\n```\n[no](link)\n```\n[r]: ../LICENSE\n",
            ),
            ("crates/x/README.md", "[not a document of the root](nowhere.md)\n"),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn broken_links_are_found() {
        let found = messages(&[("docs/a.md", "\n[a](a.md) and [b](b.md#x)\n[c]: ../c.md\n")]);
        let expected = ["2: b.md", "3: ../c.md"]
            .map(|part| format!("docs/a.md:{part} does not exist; correct the link"));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_missing_document_is_found() {
        let fixture = Fixture::new(&[("README.md", "")]);
        let found = check(fixture.root(), &fixture.files(), &[]);
        assert_eq!(found.len(), REQUIRED.len() - 1, "{found:?}");
    }

    #[test]
    fn a_crate_that_the_architecture_does_not_name_is_found() {
        let found = messages(&[("ARCHITECTURE.md", "relay-core decides.\n")]);
        assert_eq!(found, ["ARCHITECTURE.md:1: relay-http is not named; say what it is for"]);
    }
}
