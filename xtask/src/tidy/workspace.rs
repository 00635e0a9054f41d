//! The crates of the workspace and their manifests, as cargo reads them.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use cargo_metadata::{CargoOpt, Metadata, MetadataCommand, Package, PackageId};

use super::Finding;

#[derive(Debug)]
pub(super) struct Workspace {
    metadata: Metadata,
    /// The text of the manifest of each member.
    manifests: BTreeMap<PackageId, String>,
}

impl Workspace {
    /// # Errors
    /// If cargo cannot resolve the workspace at `root`, or a manifest cannot be read.
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut command = MetadataCommand::new();
        command.current_dir(root).features(CargoOpt::AllFeatures);
        let metadata = command.exec().context("cargo metadata")?;
        let mut manifests = BTreeMap::new();
        for member in metadata.workspace_packages() {
            let text = fs::read_to_string(&member.manifest_path).context(member.manifest_path.clone())?;
            manifests.insert(member.id.clone(), text);
        }
        Ok(Self { metadata, manifests })
    }

    pub(super) fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// The crates of the workspace.
    pub(super) fn members(&self) -> Vec<&Package> {
        self.metadata.workspace_packages()
    }

    pub(super) fn member_names(&self) -> Vec<&str> {
        self.members().iter().map(|member| member.name.as_str()).collect()
    }

    /// The manifest of a member, relative to the root.
    pub(super) fn manifest_path(&self, member: &Package) -> String {
        let path = &member.manifest_path;
        path.strip_prefix(&self.metadata.workspace_root).unwrap_or(path).as_str().replace('\\', "/")
    }

    /// The text of a member's manifest; empty for a package from outside.
    pub(super) fn manifest(&self, member: &Package) -> &str {
        self.manifests.get(&member.id).map_or("", String::as_str)
    }

    /// A finding at the line where a member's manifest names this dependency first.
    pub(super) fn finding(&self, member: &Package, dependency: &str, message: impl Into<String>) -> Finding {
        Finding::new(self.manifest_path(member), line_of_key(self.manifest(member), dependency), message)
    }
}

/// The first line, counted from 1, that sets this key; the first of all if none does.
pub(super) fn line_of_key(manifest: &str, key: &str) -> usize {
    let sets_key = |line: &str| {
        let rest = line.trim_start().strip_prefix(key);
        rest.is_some_and(|rest| rest.starts_with([' ', '=', '.']))
    };
    manifest.lines().position(sets_key).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_as_a_whole_word() {
        let manifest =
            "[dependencies]\nredb-extra = \"1\"\nredb.workspace = true\nclap = { workspace = true }\n";
        assert_eq!(line_of_key(manifest, "redb"), 3);
        assert_eq!(line_of_key(manifest, "clap"), 4);
        assert_eq!(line_of_key(manifest, "serde"), 1);
    }
}
