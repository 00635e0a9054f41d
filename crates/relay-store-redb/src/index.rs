//! The index: a redb database that one thread writes, one checkpoint at a time.

pub(crate) mod check;
pub(crate) mod file;
mod meta;
pub(crate) mod renaming;
pub(crate) mod rewriting;
mod size;
pub(crate) mod snapshot;
mod write;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use redb::{Database, Durability, WriteTransaction};
use relay_core::Timestamp;
use relay_disk::{Disk, DiskFile};

use crate::error::StoreError;
use crate::format::{self, Counters, Key, LiveCount};
use crate::index::file::{Backend, IndexFile};
pub(crate) use crate::index::meta::{Format, Head};
use crate::index::snapshot::{IndexSnapshot, OpenDatabase, read_segments};
use crate::io::files::{INDEX_FILE, NEW_INDEX_FILE};
use crate::io::throttle::IoThrottle;
use crate::memtable::SealedMemtable;
use crate::naming::Naming;

/// The system is asked to read this much of the file ahead when the store opens. Disks need some
/// seconds for it.
const READ_AHEAD_BYTES: u64 = 1024 * 1024 * 1024;

/// The index, open for checkpoints.
pub(crate) struct Index {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) naming: Naming,
    cache_bytes: usize,
    /// Shared with readers: they lose the tables when the database closes.
    db: Arc<OpenDatabase>,
    file: Arc<IndexFile>,
    pub(crate) throttle: Arc<IoThrottle>,
    /// The table of segments, once it was read or written.
    segments: OnceCell<Arc<BTreeMap<u32, LiveCount>>>,
    /// The bytes of all rows, once they were counted in an index that does not store them.
    counted_rows_bytes: Option<u64>,
    /// Checkpoints since the last rewrite of the file; `u32::MAX` if this process did none.
    checkpoints_since_rewrite: u32,
}

/// What a checkpoint wrote, and the index after it; `None` if there was nothing to write.
pub(crate) type Written = Option<(Arc<SealedMemtable>, Arc<IndexSnapshot>)>;

/// The part of the cache that redb may fill with pages. redb counts nothing else, but the allocator
/// takes 5 KiB for a page of 4 KiB and its header, the cache has its own tables, and some pages
/// exist twice while a checkpoint is written.
const fn page_bytes(cache_bytes: usize) -> usize {
    cache_bytes / 3 * 2
}

/// Whether the directory contains an index.
pub(crate) fn exists(disk: &dyn Disk) -> io::Result<bool> {
    Ok(disk.list()?.iter().any(|name| name == INDEX_FILE))
}

impl Index {
    /// Opens the index, or creates an empty one with this naming.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        new_naming: Naming,
        cache_bytes: usize,
    ) -> Result<Self, StoreError> {
        if disk.list()?.iter().any(|name| name == NEW_INDEX_FILE) {
            disk.remove(NEW_INDEX_FILE)?;
        }
        if exists(&*disk)? {
            let file = disk.open(INDEX_FILE)?;
            let mut index = Self::on(disk, file, Naming::Plain, cache_bytes, Arc::default())?;
            index.naming = index.head()?.naming;
            return Ok(index);
        }
        let file = disk.create(NEW_INDEX_FILE)?;
        let index = Self::on(Arc::clone(&disk), file, new_naming, cache_bytes, Arc::default())?;
        let tx = index.begin()?;
        meta::begin(&tx, new_naming, 0)?;
        drop((
            tx.open_table(format::RECIPIENTS)?,
            tx.open_table(format::ROWS)?,
            tx.open_table(format::SEGMENTS)?,
        ));
        tx.commit()?;
        disk.rename(NEW_INDEX_FILE, INDEX_FILE)?;
        if let Err(error) = disk.sync() {
            // A later sync would not make the name durable, so the next start creates it again.
            drop(disk.remove(INDEX_FILE));
            return Err(error.into());
        }
        Ok(index)
    }

    fn on(
        disk: Arc<dyn Disk>,
        file: Arc<dyn DiskFile>,
        naming: Naming,
        cache_bytes: usize,
        throttle: Arc<IoThrottle>,
    ) -> Result<Self, StoreError> {
        let file = Arc::new(IndexFile::new(Arc::clone(&disk), file, Arc::clone(&throttle)));
        let db = Database::builder()
            .set_cache_size(page_bytes(cache_bytes))
            .create_with_backend(Backend(Arc::clone(&file)))?;
        Ok(Self {
            disk,
            naming,
            cache_bytes,
            db: OpenDatabase::new(db),
            file,
            throttle,
            segments: OnceCell::new(),
            counted_rows_bytes: None,
            checkpoints_since_rewrite: u32::MAX,
        })
    }

    /// What the index says about itself.
    pub(crate) fn head(&self) -> Result<Head, StoreError> {
        meta::head(self.db.database()?)
    }

    /// A snapshot of the last checkpoint.
    pub(crate) fn index_snapshot(&self) -> Result<IndexSnapshot, StoreError> {
        let index_snapshot = IndexSnapshot::open(&self.db, self.naming, self.segments.get().cloned())?;
        self.segments.get_or_init(|| Arc::clone(&index_snapshot.segments));
        Ok(index_snapshot)
    }

    /// Whether only [`Self::reopen`] makes the index usable again: redb rejects everything, a crash
    /// may bring another file back under its name, or an earlier reopening failed.
    pub(crate) fn needs_reopening(&self) -> bool {
        self.file.needs_reopening()
    }

    /// Asks the system to read the file sequentially, before requests read single pages of it.
    pub(crate) fn read_ahead(&self) {
        self.file.read_ahead(READ_AHEAD_BYTES);
    }

    pub(crate) fn file_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.file.len()?)
    }

    /// Closes the database and opens it again at its last checkpoint, and returns a snapshot of it.
    /// After a failed write redb rejects everything until then. After a failed reopening, `self`
    /// does the same.
    pub(crate) fn reopen(&mut self) -> Result<IndexSnapshot, StoreError> {
        self.file.revoke();
        self.db.invalidate();
        let file = self.disk.open(INDEX_FILE)?;
        let (disk, throttle) = (Arc::clone(&self.disk), Arc::clone(&self.throttle));
        let mut new = Self::on(disk, file, self.naming, self.cache_bytes, throttle)?;
        if self.file.is_name_uncertain() {
            new.rewrite(Arc::new(new.index_snapshot()?), &mut |_| Ok(None))?;
        }
        let index_snapshot = new.index_snapshot()?;
        *self = new;
        Ok(index_snapshot)
    }

    /// Writes a sealed memtable durably. Returns how many bytes that wrote to the file.
    pub(crate) fn checkpoint(&mut self, sealed: &SealedMemtable) -> Result<u64, StoreError> {
        let SealedMemtable { memtable, position, blobs_through } = sealed;
        let already_written_bytes = self.file.written_bytes();
        self.checkpoints_since_rewrite = self.checkpoints_since_rewrite.saturating_add(1);
        // Taken, because the contents of the table are unknown if this fails.
        let known_segments = self.segments.take();
        let tx = self.begin()?;
        let segments = match &known_segments {
            Some(segments) => BTreeMap::clone(segments),
            None => read_segments(&tx.open_table(format::SEGMENTS)?)?,
        };
        let growth_bytes = write::write_memtable(&tx, &self.throttle, memtable, |_| true, |_| true)?;
        let segments = write::write_segments(&tx, segments, memtable)?;
        meta::add_rows_bytes(&tx, self.counted_rows_bytes, growth_bytes)?;
        meta::commit(tx, self.naming, memtable.numbers, Some(*position), *blobs_through, &segments)?;
        (self.segments, self.counted_rows_bytes) = (OnceCell::from(Arc::new(segments)), None);
        Ok(self.file.written_bytes() - already_written_bytes)
    }

    /// Durably removes rows that nobody reads any more.
    pub(crate) fn remove(&mut self, keys: &[Key]) -> Result<(), StoreError> {
        let tx = self.begin()?;
        let growth_bytes = write::remove_rows(&tx, &self.throttle, keys)?;
        meta::add_rows_bytes(&tx, self.counted_rows_bytes, growth_bytes)?;
        tx.commit()?;
        self.counted_rows_bytes = None;
        Ok(())
    }

    /// Sets the store's time back to `time`. The store is empty, and `index_snapshot` is its index.
    pub(crate) fn set_time_back(
        &self,
        index_snapshot: &IndexSnapshot,
        time: Timestamp,
    ) -> Result<(), StoreError> {
        let IndexSnapshot { numbers, position, blobs_through, segments, .. } = index_snapshot;
        let numbers = Counters { time, ..*numbers };
        meta::commit(self.begin()?, self.naming, numbers, *position, *blobs_through, segments)
    }

    /// Changes how recipients are named, in a store that never had one.
    pub(crate) fn set_naming(&mut self, naming: Naming) -> Result<(), StoreError> {
        let IndexSnapshot { numbers, position, blobs_through, segments, .. } = self.index_snapshot()?;
        let tx = self.begin()?;
        meta::set_naming(&tx, naming)?;
        meta::commit(tx, naming, numbers, position, blobs_through, &segments)?;
        self.naming = naming;
        Ok(())
    }

    /// Closes the index. Nobody may read it any more.
    ///
    /// # Errors
    /// When any write to this handle has failed. A handle that is opened later does not report
    /// earlier failures.
    fn close(self) -> Result<(), StoreError> {
        let Self { db, file, .. } = self;
        let mut db = Arc::into_inner(db).ok_or(StoreError::Corrupted("the index is still in use"))?;
        db.close()?;
        if file.has_failed() {
            return Err(io::Error::other("a write to the index failed").into());
        }
        Ok(())
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut tx = self.db.database()?.begin_write()?;
        tx.set_durability(Durability::Immediate)?;
        // After a crash redb then opens the file in milliseconds, and does not have to walk it.
        tx.set_quick_repair(true);
        Ok(tx)
    }
}
