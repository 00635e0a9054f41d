//! Small projects in temporary directories, for the tests of the rules. They need no network.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::{
    files::{self, File},
    workspace::Workspace,
};

pub(super) struct Fixture {
    directory: TempDir,
}

impl Fixture {
    /// A project of these files: (path, text).
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let fixture = Self { directory: tempfile::tempdir().unwrap() };
        for (path, text) in files {
            fixture.write(path, text);
        }
        fixture
    }

    /// A workspace of these crates: (name, what follows the first five lines of its manifest).
    pub(super) fn workspace(members: &[(&str, &str)]) -> Self {
        let root = "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\nexclude = [\"vendor\"]\n\
                    [workspace.lints.rust]\nunsafe_code = \"forbid\"\n";
        let fixture = Self::new(&[("Cargo.toml", root)]);
        for (name, rest) in members {
            fixture.package("crates", name, rest);
        }
        fixture
    }

    /// A crate outside the workspace, for its members to depend on.
    pub(super) fn vendor(&self, name: &str) {
        self.package("vendor", name, "");
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn files(&self) -> Vec<File> {
        files::read(self.root()).unwrap()
    }

    pub(super) fn resolve(&self) -> Workspace {
        Workspace::read(self.root()).unwrap()
    }

    fn package(&self, directory: &str, name: &str, rest: &str) {
        let manifest =
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{rest}");
        self.write(&format!("{directory}/{name}/Cargo.toml"), &manifest);
        self.write(&format!("{directory}/{name}/src/lib.rs"), "");
    }
}
