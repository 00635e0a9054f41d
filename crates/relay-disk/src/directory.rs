//! A directory of the file system as a [`Disk`]. It never leaves the directory, never follows
//! symbolic links, and changes nothing while another process uses the directory.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::{Disk, DiskFile};

/// An empty file that carries the lock and is never removed.
const LOCK_FILE: &str = "lock";

/// How often the lock is tried before the directory counts as in use.
const LOCK_ATTEMPTS: usize = 25;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(4);

/// The mode bits that let the group and others write.
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// A directory that this value locks, against other processes and other values, until it is
/// dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The directory itself, for syncs.
    handle: File,
    /// Holds the lock while it is open.
    _lock: File,
}

/// Why a directory cannot be opened. The messages omit the path; the caller adds it.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process, or another `Directory` of this one, holds the lock.
    #[error("the directory is in use by another process")]
    InUse,
    /// The owner is not the user that runs this process.
    #[error("the directory belongs to another user")]
    NotOurs,
    /// The group or others have write permission.
    #[error("the directory is writable by users other than its owner")]
    Open,
    /// The directory cannot be created, opened, synced or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Debug)]
struct DirectoryFile(File);

impl Directory {
    /// Opens and locks the directory. Creates it and missing parents with mode 0700; an existing
    /// directory keeps its mode.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        Self::open_checked(path, |_| Ok(()))
    }

    /// Like [`open`](Self::open), but fails if another user could modify the files: see
    /// [`DirectoryError::NotOurs`] and [`DirectoryError::Open`].
    pub fn open_private(path: &Path) -> Result<Self, DirectoryError> {
        Self::open_checked(path, |metadata| {
            if metadata.uid() != rustix::process::geteuid().as_raw() {
                return Err(DirectoryError::NotOurs);
            }
            if may_others_write(metadata) { Err(DirectoryError::Open) } else { Ok(()) }
        })
    }

    /// Runs `check` before it creates the lock file.
    fn open_checked(
        path: &Path,
        check: impl FnOnce(&Metadata) -> Result<(), DirectoryError>,
    ) -> Result<Self, DirectoryError> {
        create_durably(path)?;
        let handle = File::open(path)?;
        check(&handle.metadata()?)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = open_regular_file(&mut options, &path.join(LOCK_FILE))?;
        acquire(&lock)?;
        handle.sync_all()?;
        Ok(Self { path: path.to_owned(), handle, _lock: lock })
    }

    /// Whether the group or others have write permission.
    pub fn may_others_write(&self) -> io::Result<bool> {
        Ok(may_others_write(&self.handle.metadata()?))
    }

    /// Whether the directory has entries that [`list`](Disk::list) omits: directories, links, or
    /// names that are not UTF-8.
    pub fn has_unlisted(&self) -> io::Result<bool> {
        for entry in self.path.read_dir()? {
            let entry = entry?;
            if !entry.file_type()?.is_file() || entry.file_name().to_str().is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The path of a file. [`io::ErrorKind::InvalidInput`] if `name` is not a plain file name.
    fn path_of(&self, name: &str) -> io::Result<PathBuf> {
        let is_plain = !matches!(name, "" | "." | ".." | LOCK_FILE) && !name.contains(['/', '\0']);
        if is_plain { Ok(self.path.join(name)) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.path.read_dir()? {
            let entry = entry?;
            // The store creates only names that are UTF-8.
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
        let path = self.path_of(name)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(DirectoryFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = open_regular_file(OpenOptions::new().read(true).write(true), &self.path_of(name)?)?;
        Ok(Arc::new(DirectoryFile(file)))
    }

    fn file_len(&self, name: &str) -> io::Result<u64> {
        let metadata = self.path_of(name)?.symlink_metadata()?;
        if metadata.is_file() { Ok(metadata.len()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path_of(name)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path_of(from)?, self.path_of(to)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// Excludes the blocks that are reserved for privileged processes.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let stats = rustix::fs::fstatvfs(&self.handle)?;
        Ok(Some(stats.f_bavail.saturating_mul(stats.f_frsize)))
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
            Err(error) if is_unsupported(error) => self.read_exact_at(out, offset).map(|()| true),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(target_os = "linux")]
    fn read_ahead(&self, offset: u64, len: u64) -> io::Result<()> {
        let len = std::num::NonZeroU64::new(len);
        Ok(rustix::fs::fadvise(&self.0, offset, len, rustix::fs::Advice::WillNeed)?)
    }

    fn write_all_at(&self, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        // With only empty parts left, `pwritev` would return 0, which looks like a full disk.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            // The kernel accepts a limited number of parts per call; rustix respects the limit.
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

    /// Writes the range again with `RWF_DSYNC`. The call for this purpose, `sync_file_range`, would
    /// need `unsafe`.
    #[cfg(target_os = "linux")]
    fn write_back(&self, offset: u64, len: usize) -> io::Result<()> {
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, offset)?;
        // After a short write, `sync` handles the rest.
        let flags = rustix::io::ReadWriteFlags::DSYNC;
        match rustix::io::pwritev2(&self.0, &[IoSlice::new(&bytes)], offset, flags) {
            Ok(_) => Ok(()),
            Err(error) if is_unsupported(error) => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Whether the error means that the kernel, or an emulation of it, lacks a system call or a flag.
#[cfg(target_os = "linux")]
fn is_unsupported(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(error, Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP)
}

/// Opens a regular file only. It follows no link, and does not block on a pipe.
fn open_regular_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Acquires the lock. It retries briefly: a child process that the previous holder started shares
/// the lock until it calls `exec`.
fn acquire(lock: &File) -> Result<(), DirectoryError> {
    for _ in 0..LOCK_ATTEMPTS {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY_INTERVAL),
            Err(TryLockError::Error(error)) => return Err(DirectoryError::Io(error)),
        }
    }
    Err(DirectoryError::InUse)
}

fn may_others_write(directory: &Metadata) -> bool {
    directory.mode() & GROUP_OR_OTHERS_WRITE != 0
}

/// Creates the directory and its missing parents, and syncs the parent of each.
fn create_durably(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent == Path::new("") => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    if !path.is_dir() {
        create_durably(parent)?;
        match DirBuilder::new().mode(0o700).create(path) {
            // Created concurrently. If it is not a directory, opening it fails later.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => created?,
        }
    }
    match File::open(parent) {
        // Some system directories can be traversed but not read. This process created nothing in
        // them, so they need no sync.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        opened => opened?.sync_all(),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn disk_errors_do_not_count_as_unsupported_calls() {
        assert!([Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP].into_iter().all(is_unsupported));
        assert!(![Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS].into_iter().any(is_unsupported));
    }
}
