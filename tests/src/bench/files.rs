//! The room that files take on disk, by kind.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bytes on disk by the files' extension; files without one are under the empty text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files(pub(super) BTreeMap<String, u64>);

impl Files {
    /// All files in a directory and below. One that vanishes meanwhile is not counted.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        let mut files = Self::default();
        files.add(directory)?;
        Ok(files)
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.0.values().sum()
    }

    fn add(&mut self, directory: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if metadata.is_dir() {
                self.add(&entry.path())?;
            } else {
                let extension = entry.path().extension().unwrap_or_default().to_string_lossy().into_owned();
                // What is allocated, in the unit of stat(2); a file may have holes, or be longer
                // than what it holds.
                *self.0.entry(extension).or_default() += metadata.blocks() * 512;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_by_kind() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("journal")).unwrap();
        for name in ["a.redb", "journal/1.seg", "journal/2.seg", "LOCK"] {
            std::fs::write(directory.path().join(name), vec![1; 4096]).unwrap();
        }
        let files = Files::read(directory.path()).unwrap();
        let kinds: Vec<_> = files.0.keys().map(String::as_str).collect();
        assert_eq!(kinds, ["", "redb", "seg"]);
        assert_eq!(files.0["seg"], 2 * files.0["redb"]);
        assert_eq!(files.total_bytes(), 4 * files.0["redb"]);
    }
}
