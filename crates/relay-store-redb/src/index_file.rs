//! The file of the index as redb sees it: it is synced in small pieces, leaves the disk to requests, and can be taken away from a database
//! that was opened anew.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redb::StorageBackend;
use relay_disk::DiskFile;

use crate::pace::Pace;

/// After so many bytes the file is synced: a sync of the journal waits for what the disk was given before, and these are single pages,
/// which take it long.
const SYNC_EVERY_BYTES: u64 = 64 * 1024;

/// And then it is left alone for so long, that is, about half of the time.
const SYNC_PAUSE: Duration = Duration::from_micros(500);

/// The file, shared by the index and the database on it.
pub(crate) struct IndexFile {
    file: Arc<dyn DiskFile>,
    written_bytes: AtomicU64,
    unsynced_bytes: AtomicU64,
    /// Set when the file is opened anew: what still uses this handle may read, and nothing else.
    revoked: AtomicBool,
    /// Set when this file should have given way to a new one, and the sync of the names has failed: after a crash it may be back in
    /// its place, and no later sync tells. Contents need no such care: redb writes them again, or does not use them.
    unsure: AtomicBool,
    pace: Arc<Pace>,
}

/// What redb is given.
#[derive(Debug)]
pub(crate) struct Backend(pub(crate) Arc<IndexFile>);

impl IndexFile {
    pub(crate) fn new(file: Arc<dyn DiskFile>, pace: Arc<Pace>) -> Self {
        Self {
            file,
            written_bytes: AtomicU64::new(0),
            unsynced_bytes: AtomicU64::new(0),
            revoked: AtomicBool::new(false),
            unsure: AtomicBool::new(false),
            pace,
        }
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    /// How many bytes were written through this handle.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Lets nobody write any more.
    pub(crate) fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    /// Whether a crash may bring another file into its place.
    pub(crate) fn is_unsure(&self) -> bool {
        self.unsure.load(Ordering::SeqCst)
    }

    pub(crate) fn become_unsure(&self) {
        self.unsure.store(true, Ordering::SeqCst);
    }

    fn writable(&self) -> io::Result<()> {
        if self.revoked.load(Ordering::SeqCst) {
            return Err(io::Error::other("the index was opened anew"));
        }
        Ok(())
    }
}

impl fmt::Debug for IndexFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.writable()?;
        self.0.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.writable()?;
        self.0.unsynced_bytes.store(0, Ordering::Relaxed);
        self.0.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.writable()?;
        self.0.file.write_all_at(&[data], offset)?;
        self.0.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let unsynced = self.0.unsynced_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        if unsynced < SYNC_EVERY_BYTES {
            return Ok(());
        }
        self.sync_data()?;
        self.0.pace.pause(SYNC_PAUSE);
        Ok(())
    }
}
