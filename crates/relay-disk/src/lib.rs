//! The files of one store, all in one directory, behind two small traits. It moves bytes and says
//! when they are durable; it knows no format, keeps no cache and retries nothing.
//!
//! [`Directory`] is the real one. With the feature `testing` there is `SimDisk`, a disk in memory
//! that fails any call, runs full or loses power when a test says so, and `HookedDisk`, which has a
//! test watch its calls.
//!
//! # What is durable when
//! - Bytes and lengths of a file: once [`DiskFile::sync`] has returned.
//! - Which names exist, and what they name: once [`Disk::sync`] has returned.
//! - After a [`DiskFile::sync`] that failed, nothing is known of what was written since the one
//!   before, and a later one that succeeds says nothing about it: Linux forgets which pages it
//!   could not write. What matters must be written again.

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

    /// Makes an empty file. [`io::ErrorKind::AlreadyExists`] if the name is taken.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file to read and write. [`io::ErrorKind::NotFound`] if there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// The length of a file in bytes, as [`DiskFile::len`] tells it, without opening it where the
    /// disk can. [`io::ErrorKind::NotFound`] if there is none.
    fn file_len(&self, name: &str) -> io::Result<u64> {
        self.open(name)?.len()
    }

    /// Takes the name away. Who has the file open may go on with it; its space is free once the
    /// last one lets go.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in place of the file that has it, if any. Open handles stay
    /// valid.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes creations, removals and renames durable. The contents of files are none of its
    /// business.
    fn sync(&self) -> io::Result<()>;

    /// How many bytes can still be written, as far as the disk knows; others may use it too. `None`
    /// when it has no bound that it could tell.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// One open file. All access is by offset, so that threads can share a handle.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` from `offset` on. [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;

    /// As [`DiskFile::read_exact_at`], if that waits for no device: false, and nothing of use in
    /// `out`, if it would. A disk that cannot tell reads.
    fn read_if_in_memory(&self, out: &mut [u8], offset: u64) -> io::Result<bool> {
        self.read_exact_at(out, offset).map(|()| true)
    }

    /// Has the system begin to read a range that will be wanted. A hint, which may be refused; a
    /// disk that knows no such thing does nothing.
    fn read_ahead(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Writes `parts` one behind the other from `offset` on, and makes the file longer if need be.
    /// On an error any part of it may have been written.
    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;

    /// Cuts the file off, or extends it with zeros. Unless it becomes longer, what was
    /// [reserved](Self::reserve) behind its end is free again.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Sets space aside for the first `bytes` of the file, without making it longer, so that writes
    /// to come find it there and their syncs are cheaper. A hint, which may be refused; a disk that
    /// knows no such thing does nothing.
    ///
    /// # Errors
    /// Mostly that there is not so much space. What there was may be set aside all the same, as
    /// ext4 does, so that nobody else gets it. [`set_len`](Self::set_len) to the length that the
    /// file has gives it back.
    fn reserve(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    /// Brings a range that was written onto the disk ahead of the `sync` that makes it durable, so
    /// that this one has less to do. A hint: a disk that knows no such thing does nothing, or says
    /// so.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where there is no such thing: nothing was done, and it need
    /// not be asked again. Any other is one of the disk, and says what that of a `sync` does: a
    /// later `sync` may not tell of it once more.
    fn write_back(&self, _offset: u64, _len: usize) -> io::Result<()> {
        Ok(())
    }

    /// Makes all that was written so far durable, and the length.
    fn sync(&self) -> io::Result<()>;
}

/// How much of a file is given back at once.
const GIVEN_BACK_BYTES: u64 = 1024 * 1024;

/// Empties a file that has lost its name and that nobody else has open, piece by piece. When the
/// last handle is closed, the file system frees all its blocks at once, and a sync of any other
/// file waits for that: 20 to 60 ms for 32 MiB on ext4 that tells the device of it (`discard`),
/// where each of these pieces takes 1 to 2. `pause` is called between two of them, to let others
/// have the disk. The names of the disk are synced first: one that a crash brings back must lead to
/// all of the file.
pub fn give_back(disk: &dyn Disk, file: &dyn DiskFile, pause: &dyn Fn()) -> io::Result<()> {
    let mut len = file.len()?;
    if len > GIVEN_BACK_BYTES {
        disk.sync()?;
    }
    while len > GIVEN_BACK_BYTES {
        len -= GIVEN_BACK_BYTES;
        file.set_len(len)?;
        pause();
    }
    Ok(())
}
