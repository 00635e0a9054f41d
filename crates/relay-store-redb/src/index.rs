//! The database of the index, and the only way in which it is written: a checkpoint at a time, by
//! one thread.

pub(crate) mod rewriting;

pub(crate) mod check;
pub(crate) mod file;
pub(crate) mod snapshot;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use redb::{Database, Durability, ReadableTable, WriteTransaction};
use relay_core::Timestamp;
use relay_disk::{Disk, DiskFile};
use relay_journal::Position;

use crate::error::{StoreError, caught};
use crate::format::{self, Counters, Key, LiveCount};
use crate::index::file::{Backend, IndexFile};
use crate::index::snapshot::{IndexSnapshot, OpenDatabase, read_segments};
use crate::io::files::{INDEX_FILE, NEW_INDEX_FILE};
use crate::io::throttle::IoThrottle;
use crate::memtable::{Memtable, SealedMemtable};

/// An index that is smaller is never written anew.
const SMALL_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// How many bytes of the file 1,000 bytes of rows take in an index without holes, or more, if it
/// took more when it was last written anew: pages are half to wholly full, and the file grows by
/// doubling.
const FILE_BYTES_PER_1000: u64 = 2000;

/// So much of the file is read when the store is opened, which is some seconds' work of a disk.
/// What comes of it is up to the system.
const READ_AHEAD_BYTES: u64 = 1024 * 1024 * 1024;

/// What the value of a name takes.
pub(crate) const RECIPIENT_VALUE_BYTES: usize = 12;

/// What a row of the table of segments takes, and an overhead.
const SEGMENT_ROW_BYTES: u64 = 24;

/// An index that takes so many times what its rows need is mostly holes, and is written anew. One
/// in which everything comes and goes takes twice as much, and fills its holes. When there is time,
/// twice is too much; less is not, since a file that has just been written may be half empty, as it
/// grows by doubling, and writing it anew would win nothing.
const WASTEFUL: u64 = 3;
const WASTEFUL_QUIET: u64 = 2;

/// While requests come it is not written anew before so many checkpoints after the last time, since
/// none can begin meanwhile. Unless it is nearly all holes: then it is done in no time.
const REWRITE_AFTER_CHECKPOINTS: u32 = 8;
const NEARLY_ALL: u64 = 12;

/// The index, open for checkpoints.
pub(crate) struct Index {
    disk: Arc<dyn Disk>,
    cache_bytes: usize,
    /// Shared with what reads it: closing it would take the tables away from them.
    db: Arc<OpenDatabase>,
    file: Arc<IndexFile>,
    pub(crate) throttle: Arc<IoThrottle>,
    /// What the table of segments holds, once it was read or written.
    segments: OnceCell<Arc<BTreeMap<u32, LiveCount>>>,
    /// The bytes of all rows, once they were counted in an index that does not note them.
    counted: Option<u64>,
    /// How many checkpoints were written since the file was last written anew; many if that was in
    /// another process.
    checkpoints: u32,
}

/// What a checkpoint has written, and what the index holds then; `None` if there was nothing to
/// write.
pub(crate) type Written = Option<(Arc<SealedMemtable>, Arc<IndexSnapshot>)>;

/// Whose an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Of a build from before the first release.
    Earlier,
    /// Of this number; 0 when there is none.
    Numbered(u64),
}

/// The format that is noted in an index.
pub(crate) fn format(db: &Database) -> Result<Format, StoreError> {
    use redb::ReadableDatabase;
    let meta = match db.begin_read()?.open_table(format::META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Format::Numbered(0)),
        Err(error) => return Err(error.into()),
    };
    match meta.get(format::META_FORMAT)? {
        Some(format) => Ok(Format::Numbered(format.value())),
        None => {
            for earlier in format::META_EARLIER_FORMATS {
                if meta.get(earlier)?.is_some() {
                    return Ok(Format::Earlier);
                }
            }
            Ok(Format::Numbered(0))
        }
    }
}

/// How much of the memory of the cache redb may fill with pages. It counts nothing else, but the
/// allocator takes 5 KiB for a page of 4 KiB and its header, the cache has tables of its own, and
/// while a checkpoint is written there are two of some pages.
pub(crate) const fn page_bytes(cache_bytes: usize) -> usize {
    cache_bytes / 3 * 2
}

/// Whether there is an index in the directory.
pub(crate) fn exists(disk: &dyn Disk) -> io::Result<bool> {
    Ok(disk.list()?.iter().any(|name| name == INDEX_FILE))
}

impl Index {
    /// Opens the index, or makes an empty one.
    pub(crate) fn open(disk: Arc<dyn Disk>, cache_bytes: usize) -> Result<Self, StoreError> {
        if disk.list()?.iter().any(|name| name == NEW_INDEX_FILE) {
            disk.remove(NEW_INDEX_FILE)?;
        }
        if exists(&*disk)? {
            let file = disk.open(INDEX_FILE)?;
            return Self::on(disk, file, cache_bytes, Arc::default());
        }
        let file = disk.create(NEW_INDEX_FILE)?;
        let index = Self::on(Arc::clone(&disk), file, cache_bytes, Arc::default())?;
        let tx = index.begin()?;
        begin_meta(&tx, 0)?;
        drop((
            tx.open_table(format::RECIPIENTS)?,
            tx.open_table(format::ROWS)?,
            tx.open_table(format::SEGMENTS)?,
        ));
        tx.commit()?;
        disk.rename(NEW_INDEX_FILE, INDEX_FILE)?;
        if let Err(error) = disk.sync() {
            // A later sync would not make the name durable, so the next start begins anew.
            drop(disk.remove(INDEX_FILE));
            return Err(error.into());
        }
        Ok(index)
    }

    pub(crate) fn on(
        disk: Arc<dyn Disk>,
        file: Arc<dyn DiskFile>,
        cache_bytes: usize,
        throttle: Arc<IoThrottle>,
    ) -> Result<Self, StoreError> {
        let file = Arc::new(IndexFile::new(Arc::clone(&disk), file, Arc::clone(&throttle)));
        let db = Database::builder()
            .set_cache_size(page_bytes(cache_bytes))
            .create_with_backend(Backend(Arc::clone(&file)))?;
        Ok(Self {
            disk,
            cache_bytes,
            db: OpenDatabase::new(db),
            file,
            throttle,
            segments: OnceCell::new(),
            counted: None,
            checkpoints: REWRITE_AFTER_CHECKPOINTS,
        })
    }

    /// The format that it was written in.
    pub(crate) fn format(&self) -> Result<Format, StoreError> {
        format(self.db.database()?)
    }

    /// What it holds now.
    pub(crate) fn index_snapshot(&self) -> Result<IndexSnapshot, StoreError> {
        let index_snapshot = IndexSnapshot::open(&self.db, self.segments.get().cloned())?;
        self.segments.get_or_init(|| Arc::clone(&index_snapshot.segments));
        Ok(index_snapshot)
    }

    /// Whether it has to be opened anew: it is not known which file has the name, redb refuses
    /// everything, or that was tried and failed.
    pub(crate) fn needs_reopening(&self) -> bool {
        self.file.is_unsure() || self.file.is_unreadable() || self.file.is_revoked()
    }

    /// Has the system read the file, one behind the other, before requests come to it page by page.
    pub(crate) fn read_ahead(&self) {
        self.file.read_ahead(READ_AHEAD_BYTES);
    }

    pub(crate) fn file_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.file.len()?)
    }

    /// Closes the database and opens it again, at its last checkpoint, and tells what it holds.
    /// redb refuses everything after a failed write until then; so does this after a failed
    /// reopening.
    pub(crate) fn reopen(&mut self) -> Result<IndexSnapshot, StoreError> {
        self.file.revoke();
        self.db.overtake();
        let file = self.disk.open(INDEX_FILE)?;
        let mut new = Self::on(Arc::clone(&self.disk), file, self.cache_bytes, Arc::clone(&self.throttle))?;
        if self.file.is_unsure() {
            new.rewrite(Arc::new(new.index_snapshot()?), &mut |_| Ok(None))?;
        }
        let index_snapshot = new.index_snapshot()?;
        *self = new;
        Ok(index_snapshot)
    }

    /// Writes a sealed memtable, durably. Returns how many bytes that took.
    pub(crate) fn checkpoint(&mut self, sealed: &SealedMemtable) -> Result<u64, StoreError> {
        let before = self.file.written_bytes();
        self.checkpoints = self.checkpoints.saturating_add(1);
        // Nobody knows what is in the table when this fails.
        let known = self.segments.take();
        let tx = self.begin()?;
        let segments = match &known {
            Some(segments) => BTreeMap::clone(segments),
            None => read_segments(&tx.open_table(format::SEGMENTS)?)?,
        };
        let growth_bytes = self.write_memtable(&tx, &sealed.memtable, |_| true, |_| true)?;
        let segments = write_segments(&tx, segments, &sealed.memtable)?;
        note_growth(&tx, self.counted, growth_bytes)?;
        finish(tx, sealed.memtable.numbers, Some(sealed.position), sealed.payloads_through, &segments)?;
        (self.segments, self.counted) = (OnceCell::from(Arc::new(segments)), None);
        Ok(self.file.written_bytes() - before)
    }

    /// Takes rows away that nobody reads any more, durably.
    pub(crate) fn remove(&mut self, keys: &[Key]) -> Result<(), StoreError> {
        let tx = self.begin()?;
        let (mut rows, mut growth_bytes) = (tx.open_table(format::ROWS)?, 0);
        for key in keys {
            self.throttle.leave_core();
            let key = key.bytes();
            let old = rows.remove(&*key)?;
            growth_bytes += growth(key.len(), [None, old.map(|old| old.value().len())]);
        }
        drop(rows);
        note_growth(&tx, self.counted, growth_bytes)?;
        tx.commit()?;
        self.counted = None;
        Ok(())
    }

    /// Notes that the store, which is as `base` says and holds nothing, has come to no later time
    /// than `time`.
    pub(crate) fn set_back(&self, index_snapshot: &IndexSnapshot, time: Timestamp) -> Result<(), StoreError> {
        let numbers = Counters { time, ..index_snapshot.numbers };
        finish(
            self.begin()?,
            numbers,
            index_snapshot.position,
            index_snapshot.payloads_through,
            &index_snapshot.segments,
        )
    }

    /// Whether most of the file is holes, or, when there is time since it `is_quiet`, half. redb
    /// reuses them, but gives none back.
    pub(crate) fn is_wasteful(
        &mut self,
        index_snapshot: &IndexSnapshot,
        is_quiet: bool,
    ) -> Result<bool, StoreError> {
        let bytes = self.file_bytes()?;
        if bytes <= SMALL_FILE_BYTES {
            return Ok(false);
        }
        let has_settled = self.checkpoints >= REWRITE_AFTER_CHECKPOINTS;
        let times = match (is_quiet, has_settled) {
            (true, _) => WASTEFUL_QUIET,
            (false, true) => WASTEFUL,
            (false, false) => NEARLY_ALL,
        };
        let needed_bytes = self.needed_bytes(index_snapshot, bytes);
        tracing::debug!(bytes, needed_bytes, times, "the index has holes");
        Ok(bytes > needed_bytes.saturating_mul(times))
    }

    /// What an index without holes would take, about.
    fn needed_bytes(&mut self, index_snapshot: &IndexSnapshot, file_bytes: u64) -> u64 {
        // An index that cannot be counted cannot be written anew either.
        let count = || caught(|| index_snapshot.count_rows_bytes()).unwrap_or(file_bytes);
        let rows_bytes =
            index_snapshot.size.rows_bytes.unwrap_or_else(|| *self.counted.get_or_insert_with(count));
        let segments_bytes = (index_snapshot.segments.len() as u64).saturating_mul(SEGMENT_ROW_BYTES);
        let per_1000 = index_snapshot.size.file_bytes_per_1000.unwrap_or_default().max(FILE_BYTES_PER_1000);
        rows_bytes.saturating_add(segments_bytes).saturating_mul(per_1000) / 1000
    }

    /// Whether there is room for another one beside it. What the disk cannot tell is no reason
    /// against it.
    pub(crate) fn has_room_for_another(
        &mut self,
        index_snapshot: &IndexSnapshot,
    ) -> Result<bool, StoreError> {
        let file_bytes = self.file_bytes()?;
        let needed_bytes = self.needed_bytes(index_snapshot, file_bytes).saturating_add(SMALL_FILE_BYTES);
        let free_bytes = self.disk.free_bytes().ok().flatten();
        Ok(free_bytes.is_none_or(|free_bytes| free_bytes >= needed_bytes))
    }

    /// What the table of segments holds, of an index that was just written.
    pub(crate) fn know_segments(&self, segments: Arc<BTreeMap<u32, LiveCount>>) {
        self.segments.get_or_init(|| segments);
    }

    /// Notes how much of a file without holes its rows take. In a small one the empty pages of the
    /// tables count.
    pub(crate) fn note_density(&self, rows_bytes: u64) -> Result<(), StoreError> {
        let bytes = self.file_bytes()?;
        if bytes > SMALL_FILE_BYTES && rows_bytes > 0 {
            let tx = self.begin()?;
            let per_1000 = bytes.saturating_mul(1000) / rows_bytes;
            tx.open_table(format::META)?.insert(format::META_FILE_BYTES_PER_1000, per_1000)?;
            tx.commit()?;
        }
        Ok(())
    }

    /// Closes it, where nobody reads it.
    ///
    /// # Errors
    /// When anything that was ever written to it may not be there. A handle that is opened later is
    /// told of nothing that failed before.
    fn close(self) -> Result<(), StoreError> {
        let Self { db, file, .. } = self;
        let mut db = Arc::into_inner(db).ok_or(StoreError::Corrupted("the index is still in use"))?;
        db.close()?;
        if !file.is_whole() {
            return Err(io::Error::other("something could not be written").into());
        }
        Ok(())
    }

    /// The disk that it lies on.
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    pub(crate) fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut tx = self.db.database()?.begin_write()?;
        tx.set_durability(Durability::Immediate)?;
        // Makes reopening after a crash a matter of milliseconds instead of a walk over the file.
        tx.set_quick_repair(true);
        Ok(tx)
    }
}

/// Begins the table of numbers, in an index whose rows have so many bytes.
pub(crate) fn begin_meta(tx: &WriteTransaction, rows_bytes: u64) -> Result<(), StoreError> {
    let mut meta = tx.open_table(format::META)?;
    meta.insert(format::META_FORMAT, format::FORMAT)?;
    meta.insert(format::META_ROWS_BYTES, rows_bytes)?;
    Ok(())
}

/// Notes that the rows have grown by so many bytes, from what is noted or was `counted`. What is
/// not known stays so.
fn note_growth(tx: &WriteTransaction, counted: Option<u64>, growth_bytes: i64) -> Result<(), StoreError> {
    let mut meta = tx.open_table(format::META)?;
    let noted = meta.get(format::META_ROWS_BYTES)?.map(|noted| noted.value());
    if let Some(bytes) = noted.or(counted) {
        meta.insert(format::META_ROWS_BYTES, bytes.saturating_add_signed(growth_bytes))?;
    }
    Ok(())
}

/// Notes where the journal goes on, if anything was written to it yet, and commits.
pub(crate) fn finish(
    tx: WriteTransaction,
    numbers: Counters,
    position: Option<Position>,
    payloads_through: u32,
    segments: &BTreeMap<u32, LiveCount>,
) -> Result<(), StoreError> {
    let mut meta = tx.open_table(format::META)?;
    meta.insert(format::META_LAST_SEQ, numbers.seq.as_u64())?;
    meta.insert(format::META_LAST_QUEUE, numbers.queue)?;
    meta.insert(format::META_TIME, numbers.time.as_ms())?;
    if let Some(position) = position {
        meta.insert(format::META_SEGMENT, u64::from(position.segment))?;
        meta.insert(format::META_OFFSET, u64::from(position.offset))?;
    }
    meta.insert(format::META_PAYLOADS, u64::from(payloads_through))?;
    let checksum = format::meta_checksum(numbers, position, payloads_through, segments);
    meta.insert(format::META_CHECKSUM, checksum)?;
    drop(meta);
    Ok(tx.commit()?)
}

impl Index {
    /// Writes those rows and names of a memtable that are meant. Returns by how many bytes that
    /// makes keys and values more.
    pub(crate) fn write_memtable(
        &self,
        tx: &WriteTransaction,
        memtable: &Memtable,
        is_row_meant: impl Fn(&Key) -> bool,
        is_name_meant: impl Fn(&str) -> bool,
    ) -> Result<i64, StoreError> {
        let mut growth_bytes = 0;
        let mut rows = tx.open_table(format::ROWS)?;
        for (key, value) in memtable.rows.in_order().filter(|(key, _)| is_row_meant(key)) {
            self.throttle.leave_core();
            let (key_bytes, value) =
                (key.bytes(), value.map(|value| IndexSnapshot::with_checksum(&key, &value.bytes())));
            let old = match &value {
                Some(value) => rows.insert(&*key_bytes, value.as_slice())?,
                None => rows.remove(&*key_bytes)?,
            };
            let lengths = [value.map(|value| value.len()), old.map(|old| old.value().len())];
            growth_bytes += growth(key_bytes.len(), lengths);
        }
        let mut names = tx.open_table(format::RECIPIENTS)?;
        for (recipient, queue) in memtable.recipients.iter().filter(|(name, _)| is_name_meant(name.as_str()))
        {
            self.throttle.leave_core();
            let name = recipient.as_str();
            let old = match queue {
                Some(queue) => names.insert(name, (*queue, format::name_checksum(name, *queue)))?.is_some(),
                None => names.remove(name)?.is_some(),
            };
            let length = |is_there: bool| is_there.then_some(RECIPIENT_VALUE_BYTES);
            growth_bytes += growth(name.len(), [length(queue.is_some()), length(old)]);
        }
        Ok(growth_bytes)
    }
}

/// By how many bytes a row grows whose value has a new and an old length, as far as it is there.
fn growth(key_bytes: usize, [new, old]: [Option<usize>; 2]) -> i64 {
    let bytes = |value: Option<usize>| value.map_or(0, |value| (key_bytes + value) as i64);
    bytes(new) - bytes(old)
}

/// Changes the live frames of segments as the memtable says, and returns all of them.
fn write_segments(
    tx: &WriteTransaction,
    mut segments: BTreeMap<u32, LiveCount>,
    memtable: &Memtable,
) -> Result<BTreeMap<u32, LiveCount>, StoreError> {
    let mut table = tx.open_table(format::SEGMENTS)?;
    for (segment, change) in &memtable.segments {
        let live = segments.remove(segment).unwrap_or_default().changed(*change);
        if live.items == 0 {
            table.remove(segment)?;
        } else {
            table.insert(segment, (live.items, live.bytes))?;
            segments.insert(*segment, live);
        }
    }
    Ok(segments)
}
