//! The files of a store with hashed recipients, beside those of the plain store that it replaces.
//! Until then, their names end in [`SUFFIX`], and nothing else refers to them.
//!
//! The exchange is one rename, of the index. Before it, the store is the plain one, and staged
//! files are remains. After it, the store is the hashed one: the segments of the plain store go,
//! and then the staged segments get their names. A start does what is left of either. The plain
//! segments go first, so as long as one of them may exist, a staged one tells of it.

use std::io;
use std::sync::Arc;

use relay_disk::{Disk, DiskFile};

/// Follows the names of staged files.
const SUFFIX: &str = ".hashed";

/// The staged files of a disk, under the names that they will get.
#[derive(Debug)]
pub(crate) struct StagedDisk(pub(crate) Arc<dyn Disk>);

fn staged(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

/// The names that the staged files will get.
pub(crate) fn list(disk: &dyn Disk) -> io::Result<Vec<String>> {
    let names = disk.list()?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(SUFFIX)).map(str::to_owned).collect())
}

/// Gives a staged file its name. Any other file with that name is gone.
pub(crate) fn install(disk: &dyn Disk, name: &str) -> io::Result<()> {
    disk.rename(&staged(name), name)
}

/// Removes all staged files.
pub(crate) fn discard(disk: &dyn Disk) -> io::Result<()> {
    let names = list(disk)?;
    for name in &names {
        disk.remove(&staged(name))?;
    }
    if names.is_empty() { Ok(()) } else { disk.sync() }
}

impl Disk for StagedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        list(&*self.0)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.0.create(&staged(name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(&staged(name))
    }

    fn file_len(&self, name: &str) -> io::Result<u64> {
        self.0.file_len(&staged(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(&staged(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(&staged(from), &staged(to))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        self.0.free_bytes()
    }
}
