//! A directory of the file system as a [`Disk`]. It never follows a name out of its directory, nor
//! a link that lies in it, and it touches nothing while another process has it.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::{Disk, DiskFile};

/// The lock is on this file, which holds nothing and stays.
const LOCK_FILE: &str = "lock";

/// How often, and how far apart, the lock is tried before the directory is in use.
const LOCK_TRIES: usize = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(4);

/// The rights of its group and of others to change what is in a directory.
const OTHERS_WRITE: u32 = 0o022;

/// A directory that this process alone uses, until the value is dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The directory itself, to sync it.
    handle: File,
    /// Locked as long as it is open.
    _lock: File,
}

/// Why a directory cannot be had. The caller knows the path and tells it.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process, or another `Directory` of this one, holds the lock.
    #[error("the directory is in use by another process")]
    InUse,
    /// It belongs to another user than this process runs as.
    #[error("the directory belongs to another user")]
    NotOurs,
    /// Its group, or others, may change what is in it.
    #[error("the directory may be changed by others than its owner")]
    Open,
    /// It cannot be made, opened, synced or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Debug)]
struct DirectoryFile(File);

impl Directory {
    /// Takes the directory, and makes it first if it is not there: with mode 0700, and so its
    /// missing parents. One that is there keeps its mode.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        Self::open_if(path, |_| Ok(()))
    }

    /// As [`open`](Self::open), and refuses one that anybody else may change: what is in it then
    /// need not be what was put there.
    pub fn open_private(path: &Path) -> Result<Self, DirectoryError> {
        Self::open_if(path, |directory| {
            if directory.uid() != rustix::process::geteuid().as_raw() {
                return Err(DirectoryError::NotOurs);
            }
            if may_others_write(directory) { Err(DirectoryError::Open) } else { Ok(()) }
        })
    }

    fn open_if(
        path: &Path,
        check: impl FnOnce(&Metadata) -> Result<(), DirectoryError>,
    ) -> Result<Self, DirectoryError> {
        make_durably(path)?;
        let handle = File::open(path)?;
        check(&handle.metadata()?)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = open_file(&mut options, &path.join(LOCK_FILE))?;
        take(&lock)?;
        handle.sync_all()?;
        Ok(Self { path: path.to_owned(), handle, _lock: lock })
    }

    /// Whether its group, or others, may change what is in it.
    pub fn may_others_write(&self) -> io::Result<bool> {
        Ok(may_others_write(&self.handle.metadata()?))
    }

    /// Whether there is anything in it that [`list`](Disk::list) does not show: directories, links,
    /// names that are no text.
    pub fn has_unlisted(&self) -> io::Result<bool> {
        for entry in self.path.read_dir()? {
            let entry = entry?;
            if !entry.file_type()?.is_file() || entry.file_name().to_str().is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn file(&self, name: &str) -> io::Result<PathBuf> {
        let is_plain = !matches!(name, "" | "." | ".." | LOCK_FILE) && !name.contains(['/', '\0']);
        if is_plain { Ok(self.path.join(name)) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.path.read_dir()? {
            let entry = entry?;
            // A name that is no text is none of ours.
            if let Ok(name) = entry.file_name().into_string()
                && name != LOCK_FILE
                && entry.file_type()?.is_file()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.file(name)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(DirectoryFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = open_file(OpenOptions::new().read(true).write(true), &self.file(name)?)?;
        Ok(Arc::new(DirectoryFile(file)))
    }

    fn file_len(&self, name: &str) -> io::Result<u64> {
        let found = self.file(name)?.symlink_metadata()?;
        if found.is_file() { Ok(found.len()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.file(name)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.file(from)?, self.file(to)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// What a process without privileges may have.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let found = rustix::fs::fstatvfs(&self.handle)?;
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }
}

impl DiskFile for DirectoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    #[cfg(target_os = "linux")]
    fn read_if_in_memory(&self, out: &mut [u8], offset: u64) -> io::Result<bool> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let wanted = out.len();
        match preadv2(&self.0, &mut [io::IoSliceMut::new(out)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read == wanted),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) if is_unknown(error) => self.read_exact_at(out, offset).map(|()| true),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(target_os = "linux")]
    fn read_ahead(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fadvise(
            &self.0,
            offset,
            std::num::NonZeroU64::new(len),
            rustix::fs::Advice::WillNeed,
        )?)
    }

    fn write_all_at(&self, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        // Leading empty parts would make a write of nothing look like a full disk.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            // The kernel takes a bounded number of parts at once; rustix hands it no more.
            match rustix::io::pwritev(&self.0, rest, offset).map_err(io::Error::from) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes)?)
    }

    /// Writes it once more, through to the disk: the call that is meant for this,
    /// `sync_file_range`, is not to be had without `unsafe`.
    #[cfg(target_os = "linux")]
    fn write_back(&self, offset: u64, len: usize) -> io::Result<()> {
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, offset)?;
        // What is written in part is left to `sync`.
        let flags = rustix::io::ReadWriteFlags::DSYNC;
        match rustix::io::pwritev2(&self.0, &[IoSlice::new(&bytes)], offset, flags) {
            Ok(_) => Ok(()),
            Err(error) if is_unknown(error) => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Whether this is how a kernel, or what stands in for one, says that it does not know a call or a
/// flag of it.
#[cfg(target_os = "linux")]
fn is_unknown(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(error, Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP)
}

/// Opens what is a file itself: not what a link leads to, nor a pipe, which might keep whoever
/// opens it.
fn open_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Takes the lock. A process that its last holder has just started has a copy of it until it
/// becomes another program, so it is tried for a moment.
fn take(lock: &File) -> Result<(), DirectoryError> {
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(DirectoryError::Io(error)),
        }
    }
    Err(DirectoryError::InUse)
}

fn may_others_write(directory: &Metadata) -> bool {
    directory.mode() & OTHERS_WRITE != 0
}

/// Makes the directory and its missing parents, each of them durably named in its own parent.
fn make_durably(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent == Path::new("") => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    if !path.is_dir() {
        make_durably(parent)?;
        match DirBuilder::new().mode(0o700).create(path) {
            // Somebody else was faster; if it is no directory, opening it will tell.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    match File::open(parent) {
        // Some system directories may be passed through but not read; what is in them was made by
        // their owner.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        opened => opened?.sync_all(),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    /// What the disk itself says is never taken for that.
    #[test]
    fn an_unknown_call_is_told_from_a_failure_of_the_disk() {
        assert!([Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP].into_iter().all(is_unknown));
        assert!(![Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS].into_iter().any(is_unknown));
    }
}
