//! The disk space that files take, by kind.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bytes on disk by file extension; files without one have the empty extension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskUsage(pub(super) BTreeMap<String, u64>);

impl DiskUsage {
    /// Counts all files below a directory. A file that vanishes meanwhile is not counted.
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
                // Allocated blocks, in units of 512 bytes (stat(2)). A file may have holes, or be
                // preallocated.
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
    fn disk_usage_is_counted_by_extension() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("journal")).unwrap();
        for name in ["a.redb", "journal/1.seg", "journal/2.seg", "LOCK"] {
            std::fs::write(directory.path().join(name), vec![1; 4096]).unwrap();
        }
        let files = DiskUsage::read(directory.path()).unwrap();
        let extensions: Vec<_> = files.0.keys().map(String::as_str).collect();
        assert_eq!(extensions, ["", "redb", "seg"]);
        assert_eq!(files.0["seg"], 2 * files.0["redb"]);
        assert_eq!(files.total_bytes(), 4 * files.0["redb"]);
    }
}
