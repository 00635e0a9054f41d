//! A file of the relay's own that a process locks while it alone may do something, such as replace
//! a socket. The file stays, because whoever removed it could remove the lock of another process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Locks a file, which is created for its owner alone, until the result is dropped. Returns `None`
/// if another process holds the lock.
///
/// # Errors
/// The file cannot be opened, or is a link.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    // Only its owner may open it, so nobody else can hold the lock.
    options.create(true).truncate(false).read(true).write(true).mode(0o600).custom_flags(nofollow);
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
