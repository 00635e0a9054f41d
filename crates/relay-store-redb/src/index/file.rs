//! The file of the index as redb sees it. It writes to the disk in small pieces and pauses between
//! them, so that requests can use the disk. It can be revoked when another handle replaces it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use relay_disk::{Disk, DiskFile};

use crate::io::throttle::IoThrottle;

/// The most adjacent bytes that are written back at once. A sync of the journal waits for all
/// writes that the disk received before it.
const PIECE_BYTES: usize = 64 * 1024;

/// The bytes of one read-ahead request.
const READ_AHEAD_PIECE_BYTES: usize = 4 * 1024 * 1024;

/// The file, shared by the index and its database.
pub(crate) struct IndexFile {
    file: Arc<dyn DiskFile>,
    /// Keeps the directory locked: the last owner of the database writes when it closes it, and
    /// nobody else may open the index before that.
    disk: Arc<dyn Disk>,
    written_bytes: AtomicU64,
    /// Offset and length of the writes since the last sync. redb writes single pages in any order;
    /// for the disk, adjacent pages cost no more than one.
    dirty: Mutex<BTreeMap<u64, usize>>,
    /// The file was reopened: this handle may only read.
    is_revoked: AtomicBool,
    /// A new file replaced this one, but the directory sync failed. A crash may bring this file
    /// back, and no later sync can exclude that. Contents are safe: redb writes them again, or does
    /// not use them.
    is_name_uncertain: AtomicBool,
    /// A read failed twice: redb rejects everything until the file is reopened.
    is_unreadable: AtomicBool,
    /// A write or sync failed. Other handles do not report that.
    has_failed: AtomicBool,
    /// The disk does not support writing back.
    has_no_write_back: AtomicBool,
    throttle: Arc<IoThrottle>,
}

/// The [`IndexFile`] that redb owns.
#[derive(Debug)]
pub(super) struct Backend(pub(super) Arc<IndexFile>);

impl IndexFile {
    pub(super) fn new(disk: Arc<dyn Disk>, file: Arc<dyn DiskFile>, throttle: Arc<IoThrottle>) -> Self {
        Self {
            file,
            disk,
            written_bytes: AtomicU64::new(0),
            dirty: Mutex::default(),
            is_revoked: AtomicBool::new(false),
            is_name_uncertain: AtomicBool::new(false),
            is_unreadable: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            has_no_write_back: AtomicBool::new(false),
            throttle,
        }
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    /// Asks the system to read the first `bytes_max` bytes.
    pub(super) fn read_ahead(&self, bytes_max: u64) {
        let bytes = self.len().unwrap_or_default().min(bytes_max);
        for offset in (0..bytes).step_by(READ_AHEAD_PIECE_BYTES) {
            // Only a hint: a disk without read-ahead reads on demand.
            if self.file.read_ahead(offset, READ_AHEAD_PIECE_BYTES as u64).is_err() {
                return;
            }
        }
    }

    /// The bytes that were written through this handle.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Makes all further writes fail.
    pub(super) fn revoke(&self) {
        self.is_revoked.store(true, Ordering::SeqCst);
    }

    /// Whether a crash may bring back another file under the name of the index.
    pub(super) fn is_name_uncertain(&self) -> bool {
        self.is_name_uncertain.load(Ordering::SeqCst)
    }

    /// See [`Self::is_name_uncertain`].
    pub(super) fn set_name_uncertain(&self) {
        self.is_name_uncertain.store(true, Ordering::SeqCst);
    }

    /// Whether a write or sync through this handle has failed. redb reports failures, except in its
    /// last writes.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }

    /// Whether this handle can no longer be used for checkpoints.
    pub(super) fn needs_reopening(&self) -> bool {
        [&self.is_name_uncertain, &self.is_unreadable, &self.is_revoked]
            .iter()
            .any(|flag| flag.load(Ordering::SeqCst))
    }

    /// Frees the space of a file that another one has replaced, if nobody else uses it.
    pub(crate) fn give_back(self: Arc<Self>) {
        if let Some(this) = Arc::into_inner(self) {
            // After a failure, the system frees the space when the file is closed.
            let pause = || this.throttle.yield_disk_while_freeing();
            drop(relay_disk::give_back(&*this.disk, &*this.file, &pause));
        }
    }

    /// Repeats a failed read once, because redb treats one failure as final.
    fn read_twice<T>(&self, mut read: impl FnMut(&dyn DiskFile) -> io::Result<T>) -> io::Result<T> {
        if let Ok(found) = read(&*self.file) {
            return Ok(found);
        }
        self.read_again(read)
    }

    /// Makes the second attempt. If it fails too, the maintenance thread reopens the index.
    fn read_again<T>(&self, read: impl FnOnce(&dyn DiskFile) -> io::Result<T>) -> io::Result<T> {
        read(&*self.file).inspect_err(|_| {
            self.is_unreadable.store(true, Ordering::SeqCst);
            self.throttle.alarm.raise();
        })
    }

    /// Makes a change, and remembers whether one has failed.
    fn change<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.is_revoked.load(Ordering::SeqCst) {
            return Err(io::Error::other("the index was reopened, and this handle may not write"));
        }
        change().inspect_err(|_| self.has_failed.store(true, Ordering::SeqCst))
    }

    /// Writes back the writes since the last sync, and syncs.
    fn sync(&self) -> io::Result<()> {
        let dirty = std::mem::take(&mut *self.dirty());
        for (offset, bytes) in pieces(dirty) {
            if !self.write_back(offset, bytes)? {
                break;
            }
            self.throttle.yield_disk();
        }
        self.file.sync()
    }

    /// Forgets writes behind `len`, the new end of the file: they must not be written back.
    fn forget_writes_behind(&self, len: u64) {
        let mut dirty = self.dirty();
        drop(dirty.split_off(&len));
        if let Some(mut last) = dirty.last_entry() {
            let bytes = usize::try_from(len - last.key()).unwrap_or(usize::MAX);
            *last.get_mut() = bytes.min(*last.get());
        }
    }

    /// False if the disk does not support it: the sync then writes everything.
    fn write_back(&self, offset: u64, bytes: usize) -> io::Result<bool> {
        if self.has_no_write_back.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match self.file.write_back(offset, bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.has_no_write_back.store(true, Ordering::Relaxed);
                Ok(false)
            }
            // The next sync may not report this failure.
            Err(error) => Err(error),
        }
    }

    // A panic of another holder does no harm: at worst the sync has more to write.
    fn dirty(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for IndexFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.read_twice(|file| file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = out.len();
        let found = match self.0.file.read_if_in_memory(out, offset) {
            Ok(true) => return Ok(()),
            Ok(false) => {
                self.0.throttle.slow_reads.note();
                self.0.read_twice(|file| file.read_exact_at(out, offset))
            }
            Err(_) => self.0.read_again(|file| file.read_exact_at(out, offset)),
        };
        found.inspect_err(|error| {
            tracing::error!(%error, offset, bytes, "cannot read the index at this offset; reopening it");
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.change(|| self.0.file.set_len(len))?;
        self.0.forget_writes_behind(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.change(|| self.0.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.throttle.yield_core();
        self.0.change(|| self.0.file.write_all_at(&[data], offset))?;
        self.0.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let mut dirty = self.0.dirty();
        let known_bytes = dirty.entry(offset).or_default();
        *known_bytes = data.len().max(*known_bytes);
        Ok(())
    }
}

/// Joins adjacent ranges, up to [`PIECE_BYTES`].
fn pieces(ranges: BTreeMap<u64, usize>) -> Vec<(u64, usize)> {
    let mut pieces: Vec<(u64, usize)> = Vec::new();
    for (offset, bytes) in ranges {
        match pieces.last_mut() {
            Some((start, joined)) if *start + *joined as u64 == offset && *joined + bytes <= PIECE_BYTES => {
                *joined += bytes;
            }
            _ => pieces.push((offset, bytes)),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use relay_disk::SimDisk;

    use super::*;

    #[test]
    fn truncated_ranges_are_not_written_back() {
        let disk = SimDisk::new();
        let file = disk.create("index").unwrap();
        let backend = Backend(Arc::new(IndexFile::new(Arc::new(disk.clone()), file, Arc::default())));
        for offset in [0, 4096, 8192] {
            backend.write(offset, &[1; 4096]).unwrap();
        }
        backend.set_len(6000).unwrap();
        backend.sync_data().unwrap();
        assert_eq!(backend.len().unwrap(), 6000);
    }

    #[test]
    fn adjacent_ranges_are_joined_up_to_a_limit() {
        let page = 4096;
        let sparse = BTreeMap::from([(0, page), (12_288, page), (16_384, 2 * page), (28_672, page)]);
        assert_eq!(pieces(sparse), [(0, page), (12_288, 3 * page), (28_672, page)]);

        let many = (0..17).map(|number| (number * 4096, page)).collect();
        assert_eq!(pieces(many), [(0, PIECE_BYTES), (65_536, page)]);

        let large = BTreeMap::from([(0, 100 * page), (409_600, page)]);
        assert_eq!(pieces(large), [(0, 100 * page), (409_600, page)]);
    }
}
