//! A disk that runs a hook of the test before its calls. The hook can observe a call, delay it,
//! fail it, or panic in the calling thread.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::{Disk, DiskFile, SimDisk};

/// A call that a hook sees. All other calls bypass the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// [`Disk::create`] with this file name.
    Create(&'a str),
    /// [`Disk::open`] with this file name.
    Open(&'a str),
    /// [`DiskFile::read_exact_at`] of a file, and the byte range.
    Read(&'a str, Range<u64>),
    /// [`DiskFile::read_if_in_memory`] of a file. If the hook fails with
    /// [`io::ErrorKind::WouldBlock`], the bytes count as not in memory.
    ReadIfInMemory(&'a str),
    /// [`DiskFile::write_all_at`] of a file.
    Write(&'a str),
    /// [`DiskFile::write_back`] of a file.
    WriteBack(&'a str),
    /// [`DiskFile::sync`] of a file.
    Sync(&'a str),
}

type Hook = Arc<dyn Fn(Call<'_>) -> io::Result<()> + Send + Sync>;

/// A [`SimDisk`] with a hook. Clones share both.
#[derive(Clone)]
pub struct HookedDisk {
    disk: SimDisk,
    hook: Hook,
}

struct HookedFile {
    file: Arc<dyn DiskFile>,
    name: String,
    hook: Hook,
}

impl HookedDisk {
    /// Runs `hook` before each [`Call`]. An error of the hook becomes the error of the call.
    pub fn new(disk: SimDisk, hook: impl Fn(Call<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { disk, hook: Arc::new(hook) }
    }

    fn file(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(HookedFile { file, name: name.to_owned(), hook: Arc::clone(&self.hook) })
    }
}

impl Disk for HookedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        (self.hook)(Call::Create(name))?;
        Ok(self.file(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        (self.hook)(Call::Open(name))?;
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn file_len(&self, name: &str) -> io::Result<u64> {
        self.disk.file_len(name)
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

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        self.disk.free_bytes()
    }
}

impl DiskFile for HookedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        (self.hook)(Call::Read(&self.name, offset..offset + out.len() as u64))?;
        self.file.read_exact_at(out, offset)
    }

    /// Runs the hook of [`Call::Read`] as well if the bytes are in memory.
    fn read_if_in_memory(&self, out: &mut [u8], offset: u64) -> io::Result<bool> {
        match (self.hook)(Call::ReadIfInMemory(&self.name)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            hooked => hooked.and_then(|()| self.read_exact_at(out, offset)).map(|()| true),
        }
    }

    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        (self.hook)(Call::Write(&self.name))?;
        self.file.write_all_at(parts, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.file.reserve(bytes)
    }

    fn write_back(&self, offset: u64, len: usize) -> io::Result<()> {
        (self.hook)(Call::WriteBack(&self.name))?;
        self.file.write_back(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        (self.hook)(Call::Sync(&self.name))?;
        self.file.sync()
    }
}

impl fmt::Debug for HookedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}
