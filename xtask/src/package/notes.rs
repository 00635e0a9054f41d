//! The section of one version in the changelog.

use anyhow::{Context as _, ensure};

/// The text below the heading `## VERSION`, up to the next version.
///
/// # Errors
/// If the changelog does not name the version, or says nothing about it.
pub(super) fn of_version<'a>(changelog: &'a str, version: &str) -> anyhow::Result<&'a str> {
    let mut sections = changelog.split("\n## ").skip(1);
    let is_of_version = |section: &&str| {
        section.split_once(['\n', ',', ' ']).is_some_and(|(name, _)| name.trim_start_matches('v') == version)
    };
    let section = sections.find(is_of_version);
    let section = section.with_context(|| format!("CHANGELOG.md has no section \"## {version}\""))?;
    let text = section.split_once('\n').map_or("", |(_, text)| text.trim());
    ensure!(!text.is_empty(), "CHANGELOG.md says nothing about {version}");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: &str = "# Changelog\n\nFor operators.\n\n## 1.1.0, unreleased\n\nNew.\n\n### More\n\nOf it.\n\n\
                             ## 1.1\n\n## 1.0.0\n\nOld.\n";

    #[test]
    fn a_section_ends_where_the_next_version_begins() {
        assert_eq!(of_version(CHANGELOG, "1.1.0").unwrap(), "New.\n\n### More\n\nOf it.");
        assert_eq!(of_version(CHANGELOG, "1.0.0").unwrap(), "Old.");
    }

    #[test]
    fn a_version_without_notes_is_an_error() {
        let error = |version| of_version(CHANGELOG, version).unwrap_err().to_string();
        assert_eq!(error("1.1"), "CHANGELOG.md says nothing about 1.1");
        assert_eq!(error("1"), "CHANGELOG.md has no section \"## 1\"");
    }

    #[test]
    fn the_changelog_has_notes_of_the_version_that_is_built() {
        let changelog = std::fs::read_to_string(crate::project_root().join("CHANGELOG.md")).unwrap();
        assert!(of_version(&changelog, super::super::VERSION).is_ok());
    }
}
