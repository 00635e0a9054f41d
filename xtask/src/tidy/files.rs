//! The text files of the project: all that are UTF-8 and not ignored by git at the root.

use std::{fs, io, path::Path};

use anyhow::Context as _;

/// One text file.
#[derive(Debug)]
pub(super) struct File {
    /// Relative to the root of the project, with `/` between the names.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    pub(super) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|own| own == extension)
    }

    /// The directory with a `/` at its end, or nothing for a file at the root.
    pub(super) fn directory(&self) -> &str {
        self.path.rfind('/').map_or("", |at| self.path.split_at(at + 1).0)
    }
}

/// All text files below `root`, in no particular order.
///
/// # Errors
/// If a file or directory cannot be read.
pub(super) fn read(root: &Path) -> anyhow::Result<Vec<File>> {
    let ignored = ignored_at_root(root)?;
    let mut files = Vec::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        let here = root.join(&directory);
        for entry in fs::read_dir(&here).with_context(|| here.display().to_string())? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{directory}{name}");
            let kind = entry.file_type()?;
            if matches!(name.as_str(), ".git" | "target") || ignored.contains(&path) {
                continue;
            }
            if kind.is_dir() {
                directories.push(format!("{path}/"));
            } else if kind.is_file() {
                files.extend(read_text(&entry.path())?.map(|text| File { path, text }));
            }
        }
    }
    Ok(files)
}

fn read_text(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The entries of `.gitignore` that name one thing at the root: `/target`.
fn ignored_at_root(root: &Path) -> anyhow::Result<Vec<String>> {
    let path = root.join(".gitignore");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = read_text(&path)?.unwrap_or_default();
    Ok(text
        .lines()
        .filter_map(|line| line.trim_end_matches('/').strip_prefix('/'))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn build_output_ignored_files_and_binaries_are_left_out() {
        let fixture = Fixture::new(&[
            (".gitignore", "/relay_db/\n"),
            ("crates/a/src/lib.rs", "//! A.\n"),
            ("relay_db/note", "ignored"),
            ("target/debug/note", "built"),
            (".git/config", "git"),
        ]);
        fs::write(fixture.root().join("blob"), [0xff, 0xfe]).unwrap();
        let mut paths: Vec<_> = read(fixture.root()).unwrap().into_iter().map(|file| file.path).collect();
        paths.sort();
        assert_eq!(paths, [".gitignore", "crates/a/src/lib.rs"]);
    }
}
