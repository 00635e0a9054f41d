//! The file of the index as redb sees it: it reaches the disk in small pieces, leaves the disk to
//! requests in between, and can be taken away from a database that was opened anew.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use relay_disk::{Disk, DiskFile};

use crate::io::throttle::IoThrottle;

/// So many bytes that lie together are written back at once: a sync of the journal waits for what
/// the disk was given before.
const PIECE_BYTES: usize = 64 * 1024;

/// How much is read ahead at once.
const READ_AHEAD_PIECE_BYTES: usize = 4 * 1024 * 1024;

/// The file, shared by the index and the database on it.
pub(crate) struct IndexFile {
    file: Arc<dyn DiskFile>,
    /// Where it lies. Closing the database writes, whoever is the last to let go of it; until then
    /// the directory stays locked, and nobody else opens the index.
    disk: Arc<dyn Disk>,
    written_bytes: AtomicU64,
    /// Offset and length of what was written since the last sync. redb writes its pages in any
    /// order, one by one; on the disk neighbours cost no more than one of them.
    dirty: Mutex<BTreeMap<u64, usize>>,
    /// Set when the file is opened anew: what still uses this handle may read, and nothing else.
    revoked: AtomicBool,
    /// Set when this file should have given way to a new one, and the sync of the names has failed:
    /// after a crash it may be back in its place, and no later sync tells. Contents need no such
    /// care: redb writes them again, or does not use them.
    unsure: AtomicBool,
    /// Set when a read has failed, twice: redb refuses everything from then on, until it is opened
    /// anew.
    unreadable: AtomicBool,
    /// Set when something could not be written or synced. Another handle hears nothing of it.
    has_failed: AtomicBool,
    /// Set when the disk knows no such thing.
    has_no_write_back: AtomicBool,
    throttle: Arc<IoThrottle>,
}

/// What redb is given.
#[derive(Debug)]
pub(crate) struct Backend(pub(crate) Arc<IndexFile>);

impl IndexFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, file: Arc<dyn DiskFile>, throttle: Arc<IoThrottle>) -> Self {
        Self {
            file,
            disk,
            written_bytes: AtomicU64::new(0),
            dirty: Mutex::default(),
            revoked: AtomicBool::new(false),
            unsure: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            has_no_write_back: AtomicBool::new(false),
            throttle,
        }
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    /// Has the system read the first so many bytes.
    pub(crate) fn read_ahead(&self, bytes_max: u64) {
        let bytes = self.len().unwrap_or_default().min(bytes_max);
        for offset in (0..bytes).step_by(READ_AHEAD_PIECE_BYTES) {
            // A hint. Where the disk knows no such thing, it is read when it is wanted.
            if self.file.read_ahead(offset, READ_AHEAD_PIECE_BYTES as u64).is_err() {
                return;
            }
        }
    }

    /// How many bytes were written through this handle.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Lets nobody write any more.
    pub(crate) fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    /// Whether nobody writes any more.
    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::SeqCst)
    }

    /// Whether a crash may bring another file into its place.
    pub(crate) fn is_unsure(&self) -> bool {
        self.unsure.load(Ordering::SeqCst)
    }

    /// Whether all that was written through this handle is there, and durable as far as it was
    /// synced. redb hands on what fails, but for its last words.
    pub(crate) fn is_whole(&self) -> bool {
        !self.has_failed.load(Ordering::SeqCst)
    }

    /// Whether redb has met a read that failed.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.unreadable.load(Ordering::SeqCst)
    }

    pub(crate) fn become_unsure(&self) {
        self.unsure.store(true, Ordering::SeqCst);
    }

    /// Empties it, if nobody else has it any more: another one has its name.
    pub(crate) fn give_back(self: Arc<Self>) {
        if let Some(this) = Arc::into_inner(self) {
            // Its space is free at the latest when it is closed.
            let pause = || this.throttle.leave_freeing_disk();
            drop(relay_disk::give_back(&*this.disk, &*this.file, &pause));
        }
    }

    /// Reads something, and once more if that fails: redb takes one failure for the end. After a
    /// second one it is opened anew.
    fn twice<T>(&self, mut read: impl FnMut(&dyn DiskFile) -> io::Result<T>) -> io::Result<T> {
        if let Ok(found) = read(&*self.file) {
            return Ok(found);
        }
        self.once_more(read)
    }

    fn once_more<T>(&self, read: impl FnOnce(&dyn DiskFile) -> io::Result<T>) -> io::Result<T> {
        read(&*self.file).inspect_err(|_| {
            self.unreadable.store(true, Ordering::SeqCst);
            self.throttle.alarm.raise();
        })
    }

    /// Writes something, and remembers it if that fails.
    fn change<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.writable()?;
        change().inspect_err(|_| self.has_failed.store(true, Ordering::SeqCst))
    }

    /// Writes back what was written since the last sync, and syncs.
    fn sync(&self) -> io::Result<()> {
        let dirty = std::mem::take(&mut *self.dirty());
        for (offset, bytes) in pieces(dirty) {
            if !self.write_back(offset, bytes)? {
                break;
            }
            self.throttle.leave_disk();
        }
        self.file.sync()
    }

    /// What was written from here on is no more, and is not to be written back.
    fn cut_off(&self, len: u64) {
        let mut dirty = self.dirty();
        drop(dirty.split_off(&len));
        if let Some(mut last) = dirty.last_entry() {
            let left = usize::try_from(len - last.key()).unwrap_or(usize::MAX);
            *last.get_mut() = left.min(*last.get());
        }
    }

    /// False where the disk knows no such thing: then the sync does it all.
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
            // The sync that follows may know nothing of it.
            Err(error) => Err(error),
        }
    }

    // A panic elsewhere leaves it as it is: at worst the sync has more to do.
    fn dirty(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self) -> io::Result<()> {
        if self.is_revoked() {
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
        self.0.twice(|file| file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = out.len();
        let found = match self.0.file.read_if_in_memory(out, offset) {
            Ok(true) => return Ok(()),
            Ok(false) => {
                self.0.throttle.cold.note();
                self.0.twice(|file| file.read_exact_at(out, offset))
            }
            Err(_) => self.0.once_more(|file| file.read_exact_at(out, offset)),
        };
        found.inspect_err(|error| {
            tracing::error!(%error, offset, bytes, "the index cannot be read there; it is opened anew");
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.change(|| self.0.file.set_len(len))?;
        self.0.cut_off(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.change(|| self.0.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.throttle.leave_core();
        self.0.change(|| self.0.file.write_all_at(&[data], offset))?;
        self.0.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let mut dirty = self.0.dirty();
        let known = dirty.entry(offset).or_default();
        *known = data.len().max(*known);
        Ok(())
    }
}

/// Joins ranges that touch, up to [`PIECE_BYTES`].
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
    fn what_was_cut_off_is_not_written_back() {
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
    fn what_lies_together_is_written_back_together_up_to_a_bound() {
        let page = 4096;
        let lone = BTreeMap::from([(0, page), (12_288, page), (16_384, 2 * page), (28_672, page)]);
        assert_eq!(pieces(lone), [(0, page), (12_288, 3 * page), (28_672, page)]);

        let many = (0..17).map(|number| (number * 4096, page)).collect();
        assert_eq!(pieces(many), [(0, PIECE_BYTES), (65_536, page)]);

        let large = BTreeMap::from([(0, 100 * page), (409_600, page)]);
        assert_eq!(pieces(large), [(0, 100 * page), (409_600, page)]);
    }
}
