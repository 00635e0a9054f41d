//! The files of one store, in one directory, behind two small traits. This crate moves bytes and
//! makes them durable. It knows no file format, caches nothing and retries nothing.
//!
//! [`Directory`] is the real disk. The feature `testing` adds `SimDisk`, a disk in memory that
//! fails calls, runs full or loses power on demand, and `HookedDisk`, which lets a test observe its
//! calls.
//!
//! # Durability
//! - [`DiskFile::sync`] makes the bytes and the length of a file durable.
//! - [`Disk::sync`] makes file names durable: creations, removals and renames.
//! - After a failed [`DiskFile::sync`], everything written since the previous sync is in an unknown
//!   state. A later successful sync does not change that, because Linux forgets which pages it
//!   could not write. The caller must write the data again.

mod directory;
#[cfg(feature = "testing")]
mod hooked;
#[cfg(feature = "testing")]
mod sim;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use directory::{Directory, DirectoryError};
#[cfg(feature = "testing")]
pub use hooked::{Call, HookedDisk};
#[cfg(feature = "testing")]
pub use sim::{Class, Fault, SimDisk, Survival};

/// The files of one store. A name is a plain file name, never a path.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// The names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates an empty file. [`io::ErrorKind::AlreadyExists`] if the name is in use.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing. [`io::ErrorKind::NotFound`] if it does not exist.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// The length of a file in bytes, without opening the file if the disk supports that.
    /// [`io::ErrorKind::NotFound`] if it does not exist.
    fn file_len(&self, name: &str) -> io::Result<u64> {
        self.open(name)?.len()
    }

    /// Removes a file name. Open handles stay valid; the last one to close frees the space.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Renames a file, and replaces any file with the new name. Open handles stay valid.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes creations, removals and renames durable, but not the contents of files.
    fn sync(&self) -> io::Result<()>;

    /// An estimate of the bytes that can still be written; other processes may use them too.
    /// `None` if the disk has no known limit.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// An open file. Every access names its offset, so threads can share a handle.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` with the bytes from `offset` on. [`io::ErrorKind::UnexpectedEof`] if the file is
    /// too short.
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;

    /// Like [`DiskFile::read_exact_at`], but returns false instead of waiting for the device. `out`
    /// is then unspecified. A disk without this feature always reads.
    fn read_if_in_memory(&self, out: &mut [u8], offset: u64) -> io::Result<bool> {
        self.read_exact_at(out, offset).map(|()| true)
    }

    /// Hints that a range will be read soon. A disk may fail or ignore the hint.
    fn read_ahead(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Writes `parts` in sequence from `offset` on, and extends the file if necessary. After an
    /// error, any of the bytes may have been written.
    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;

    /// Truncates the file, or extends it with zeros. Unless the file grows, this also frees the
    /// space that was [reserved](Self::reserve) past its end.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves disk space for the first `bytes` of the file without changing its length, so that
    /// later writes have space and their syncs are cheaper. A disk may fail or ignore the hint.
    ///
    /// # Errors
    /// Usually that the disk lacks the space. Even then the available space may be reserved, as on
    /// ext4, and nothing else can use it. [`set_len`](Self::set_len) to the current length frees
    /// it.
    fn reserve(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    /// Writes a range to the device early, so that a later `sync` has less to do. A disk may ignore
    /// the hint.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if the system lacks this feature: nothing was written, and
    /// the caller can stop asking. Any other error means the same as a failed `sync`, and a later
    /// `sync` may not report it again.
    fn write_back(&self, _offset: u64, _len: usize) -> io::Result<()> {
        Ok(())
    }

    /// Makes all earlier writes and the length durable.
    fn sync(&self) -> io::Result<()>;
}

/// How much of a removed file is truncated at once.
const TRUNCATE_STEP_BYTES: u64 = 1024 * 1024;

/// Frees the space of a removed file, which nothing else has open, in steps of 1 MiB. `pause` runs
/// after each step and gives other work access to the disk.
///
/// Closing the last handle would free all blocks at once, and every sync of another file waits for
/// that. On ext4 with `discard` this takes 20 to 60 ms for 32 MiB, but 1 to 2 ms for each step. The
/// removal is synced first: a file whose name returns after a crash must be complete.
pub fn give_back(disk: &dyn Disk, file: &dyn DiskFile, pause: &dyn Fn()) -> io::Result<()> {
    let mut len = file.len()?;
    if len > TRUNCATE_STEP_BYTES {
        disk.sync()?;
    }
    while len > TRUNCATE_STEP_BYTES {
        len -= TRUNCATE_STEP_BYTES;
        file.set_len(len)?;
        pause();
    }
    Ok(())
}
