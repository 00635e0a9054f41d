//! An earlier backup, whose files a new one shares instead of copying them again. Only files with
//! equal bytes are shared, as hard links, so each of the two is complete without the other.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use relay_disk::{Directory, Disk as _};

use crate::backup::{each_piece, open_private, read_manifest};
use crate::error::CopyError;

/// A complete backup that nobody else changes while this exists.
#[derive(Debug)]
pub struct EarlierBackup {
    path: PathBuf,
    disk: Directory,
    /// The length of each file.
    files: BTreeMap<String, u64>,
}

impl EarlierBackup {
    /// Opens a complete backup. As its files become those of another one, it must belong to the
    /// caller, and nobody else may be allowed to change the directory.
    ///
    /// # Errors
    /// [`CopyError`], with a text for the operator.
    pub fn open(path: &Path) -> Result<Self, CopyError> {
        let files = read_manifest(path)?.into_iter().map(|entry| (entry.name, entry.bytes)).collect();
        let disk = open_private(path)?;
        Ok(Self { path: path.to_owned(), disk, files })
    }

    /// Links a file into `target` if its bytes are those that `read` reads at each offset. Returns
    /// its checksum, or `None` if this backup has no such file, or its file cannot be linked.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) fn link(
        &self,
        target: &Path,
        name: &str,
        bytes: u64,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<Option<u32>> {
        if self.files.get(name) != Some(&bytes) {
            return Ok(None);
        }
        // Whatever is wrong with the earlier file, the new backup gets a copy.
        let Ok(file) = self.disk.open(name) else { return Ok(None) };
        if file.len().ok() != Some(bytes) {
            return Ok(None);
        }
        let mut theirs = Vec::new();
        let compared = each_piece(bytes, |piece, offset| {
            read(piece, offset).map_err(Difference::Failed)?;
            theirs.resize(piece.len(), 0);
            match file.read_exact_at(&mut theirs, offset) {
                Ok(()) if theirs == *piece => Ok(()),
                _ => Err(Difference::Found),
            }
        });
        match compared {
            Ok(checksum) => {
                let linked = std::fs::hard_link(self.path.join(name), target.join(name));
                Ok(linked.is_ok().then_some(checksum))
            }
            Err(Difference::Found) => Ok(None),
            Err(Difference::Failed(error)) => Err(error),
        }
    }
}

/// Why two files are not known to be equal.
enum Difference {
    Found,
    /// The file of the store cannot be read.
    Failed(io::Error),
}
