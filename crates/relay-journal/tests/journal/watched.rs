//! A disk for tests whose reads pass by a guard, which may refuse them.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use relay_disk::{Disk, DiskFile, SimDisk};

/// Is told the bytes that a read is about to touch.
type Guard = Arc<dyn Fn(Range<u64>) -> io::Result<()> + Send + Sync>;

pub(crate) struct WatchedDisk {
    disk: SimDisk,
    guard: Guard,
}

struct WatchedFile {
    file: Arc<dyn DiskFile>,
    guard: Guard,
}

impl WatchedDisk {
    pub(crate) fn new(
        disk: SimDisk,
        guard: impl Fn(Range<u64>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { disk, guard: Arc::new(guard) }
    }

    fn watch(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile { file, guard: Arc::clone(&self.guard) })
    }
}

impl Disk for WatchedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.watch(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.watch(self.disk.open(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

impl DiskFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        (self.guard)(offset..offset + out.len() as u64)?;
        self.file.read_exact_at(out, offset)
    }

    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.file.write_all_at(parts, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

impl fmt::Debug for WatchedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}
