//! A disk whose calls pass by a hook of a test, which may look at them, hold them up, refuse them,
//! or kill the thread that makes them. It changes nothing itself.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::{Disk, DiskFile, SimDisk};

/// A call that is about to be made. Others pass unseen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// [`Disk::create`] of this name.
    Create(&'a str),
    /// [`Disk::open`] of this name.
    Open(&'a str),
    /// [`DiskFile::read_exact_at`] of a file, and the bytes that it touches.
    Read(&'a str, Range<u64>),
    /// [`DiskFile::read_if_in_memory`] of a file. It is not in memory when the hook says
    /// [`io::ErrorKind::WouldBlock`].
    ReadIfInMemory(&'a str),
    /// [`DiskFile::write_all_at`] of a file.
    Write(&'a str),
    /// [`DiskFile::write_back`] of a file.
    WriteBack(&'a str),
    /// [`DiskFile::sync`] of a file.
    Sync(&'a str),
}

type Hook = Arc<dyn Fn(Call<'_>) -> io::Result<()> + Send + Sync>;

/// A [`SimDisk`] with a hook. Clones are the same disk with the same hook.
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
    /// Has `hook` told of each [`Call`] before it is made; what it fails with, the call fails with.
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

    /// One that is in memory passes by the hook of other reads as well.
    fn read_if_in_memory(&self, out: &mut [u8], offset: u64) -> io::Result<bool> {
        match (self.hook)(Call::ReadIfInMemory(&self.name)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            told => told.and_then(|()| self.read_exact_at(out, offset)).map(|()| true),
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
