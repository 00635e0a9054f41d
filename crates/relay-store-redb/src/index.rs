//! The database of the index, and the only way in which it is written: a checkpoint at a time, by one thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use redb::{Database, Durability, ReadableTable, Table, WriteTransaction};
use relay_disk::{Disk, DiskFile};
use relay_journal::Position;

use crate::base::{Base, Live, OpenDatabase};
use crate::error::StoreError;
use crate::index_file::{Backend, IndexFile};
use crate::layer::{Layer, Numbers};
use crate::pace::Pace;
use crate::schema::{self, Key};
use crate::state::Frozen;

/// The file of the index in the storage directory.
pub(crate) const FILE_NAME: &str = "relay.redb";
/// A new index, until it takes the place of the old one.
const NEW_FILE_NAME: &str = "relay.redb.new";

/// An index that is smaller is never written anew.
const SMALL_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// How many bytes a row takes in an index without holes, about, as long as that was not seen.
const ROW_BYTES: u64 = 96;

/// An index that takes so many times what its rows need is mostly holes, and is written anew. One in which everything comes and goes takes
/// twice as much, and fills its holes.
const WASTEFUL: u64 = 3;

/// While requests come it is not written anew before so many checkpoints after the last time, since none can begin meanwhile. Unless it is
/// nearly all holes: then it is done in no time.
const REWRITE_AFTER_CHECKPOINTS: u32 = 8;
const NEARLY_ALL: u64 = 12;

/// The index, open for checkpoints.
pub(crate) struct Index {
    disk: Arc<dyn Disk>,
    cache_bytes: usize,
    /// Shared with what reads it: closing it would take the tables away from them.
    db: Arc<OpenDatabase>,
    file: Arc<IndexFile>,
    pub(crate) pace: Arc<Pace>,
    /// How many bytes a row took when the file was last written anew.
    row_bytes: u64,
    /// How many checkpoints were written since then; many if that was in another process.
    checkpoints: u32,
}

/// How much of the memory of the cache redb may fill with pages. It counts nothing else, but the allocator takes 5 KiB for a page of 4 KiB and
/// its header, the cache has tables of its own, and while a checkpoint is written there are two of some pages.
pub(crate) const fn page_bytes(cache_bytes: usize) -> usize {
    cache_bytes / 3 * 2
}

/// Whether there is an index in the directory.
pub(crate) fn exists(disk: &dyn Disk) -> io::Result<bool> {
    Ok(disk.list()?.iter().any(|name| name == FILE_NAME))
}

/// How many bytes the index takes, and a new one that is being written.
pub(crate) fn file_bytes_of(disk: &dyn Disk) -> io::Result<u64> {
    let mut bytes = 0;
    for name in [FILE_NAME, NEW_FILE_NAME] {
        match disk.open(name).and_then(|file| file.len()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            len => bytes += len?,
        }
    }
    Ok(bytes)
}

impl Index {
    /// Opens the index, or makes an empty one.
    pub(crate) fn open(disk: Arc<dyn Disk>, cache_bytes: usize) -> Result<Self, StoreError> {
        if disk.list()?.iter().any(|name| name == NEW_FILE_NAME) {
            disk.remove(NEW_FILE_NAME)?;
        }
        if exists(&*disk)? {
            let file = disk.open(FILE_NAME)?;
            return Self::on(disk, file, cache_bytes, Arc::default());
        }
        let file = disk.create(NEW_FILE_NAME)?;
        let index = Self::on(Arc::clone(&disk), file, cache_bytes, Arc::default())?;
        let tx = index.begin()?;
        tx.open_table(schema::META)?.insert(schema::META_FORMAT, schema::FORMAT)?;
        drop((tx.open_table(schema::NAMES)?, tx.open_table(schema::ROWS)?, tx.open_table(schema::SEGMENTS)?));
        tx.commit()?;
        disk.rename(NEW_FILE_NAME, FILE_NAME)?;
        if let Err(error) = disk.sync() {
            // A later sync would not make the name durable, so the next start begins anew.
            drop(disk.remove(FILE_NAME));
            return Err(error.into());
        }
        Ok(index)
    }

    fn on(
        disk: Arc<dyn Disk>,
        file: Arc<dyn DiskFile>,
        cache_bytes: usize,
        pace: Arc<Pace>,
    ) -> Result<Self, StoreError> {
        let file = Arc::new(IndexFile::new(file, Arc::clone(&pace)));
        let db = Database::builder()
            .set_cache_size(page_bytes(cache_bytes))
            .create_with_backend(Backend(Arc::clone(&file)))?;
        Ok(Self {
            disk,
            cache_bytes,
            db: OpenDatabase::new(db),
            file,
            pace,
            row_bytes: ROW_BYTES,
            checkpoints: REWRITE_AFTER_CHECKPOINTS,
        })
    }

    /// The format that it was written in.
    pub(crate) fn format(&self) -> Result<u64, StoreError> {
        use redb::ReadableDatabase;
        let tx = self.db.database()?.begin_read()?;
        let meta = match tx.open_table(schema::META) {
            Ok(meta) => meta,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        Ok(meta.get(schema::META_FORMAT)?.map_or(0, |format| format.value()))
    }

    /// What it holds now.
    pub(crate) fn base(&self) -> Result<Base, StoreError> {
        Base::open(&self.db)
    }

    /// Whether it has to be opened anew: it is not known which file has the name, or redb refuses everything.
    pub(crate) fn needs_reopening(&self) -> bool {
        self.file.is_unsure() || self.file.is_unreadable()
    }

    pub(crate) fn file_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.file.len()?)
    }

    /// Closes the database and opens it again, at its last checkpoint, and tells what it holds. redb refuses everything after a failed
    /// write until then; so does this after a failed reopening.
    pub(crate) fn reopen(&mut self) -> Result<Base, StoreError> {
        self.file.revoke();
        self.db.overtake();
        let file = self.disk.open(FILE_NAME)?;
        let mut new = Self::on(Arc::clone(&self.disk), file, self.cache_bytes, Arc::clone(&self.pace))?;
        if self.file.is_unsure() {
            new.rewrite(&new.base()?)?;
        }
        let base = new.base()?;
        *self = new;
        Ok(base)
    }

    /// Writes a frozen layer, durably. Returns how many bytes that took.
    pub(crate) fn checkpoint(&mut self, frozen: &Frozen) -> Result<u64, StoreError> {
        let before = self.file.written_bytes();
        self.checkpoints = self.checkpoints.saturating_add(1);
        let tx = self.begin()?;
        self.write_layer(&tx, &frozen.layer)?;
        finish(tx, frozen.layer.numbers, Some(frozen.position), frozen.payloads_through)?;
        Ok(self.file.written_bytes() - before)
    }

    /// Whether most of the file is holes, or, when there is time since it `is_quiet`, a third. redb reuses them, but gives none back.
    pub(crate) fn is_wasteful(&self, base: &Base, is_quiet: bool) -> Result<bool, StoreError> {
        let bytes = self.file_bytes()?;
        let needed_bytes = base.rows()?.saturating_mul(self.row_bytes);
        let has_settled = self.checkpoints >= REWRITE_AFTER_CHECKPOINTS;
        let is_wasteful = if is_quiet {
            bytes.saturating_mul(2) > needed_bytes.saturating_mul(WASTEFUL)
        } else if has_settled {
            bytes > needed_bytes.saturating_mul(WASTEFUL)
        } else {
            bytes > needed_bytes.saturating_mul(NEARLY_ALL)
        };
        Ok(bytes > SMALL_FILE_BYTES && is_wasteful)
    }

    /// Whether there is room for another one beside it. What the disk cannot tell is no reason against it.
    pub(crate) fn has_room_for_another(&self, base: &Base) -> Result<bool, StoreError> {
        let needed_bytes = base.rows()?.saturating_mul(self.row_bytes).saturating_add(SMALL_FILE_BYTES);
        let free_bytes = self.disk.free_bytes().ok().flatten();
        Ok(free_bytes.is_none_or(|free_bytes| free_bytes >= needed_bytes))
    }

    /// Writes all rows of `base`, which is what the index holds, into a new file, which then takes the place of the old one. On failure
    /// the old one stays, unless it is not known which: [`Index::reopen`] makes that certain.
    /// Returns the file that has lost its name, which is to be given back once nobody reads it.
    pub(crate) fn rewrite(&mut self, base: &Base) -> Result<Arc<IndexFile>, StoreError> {
        let old = Arc::clone(&self.file);
        let written = self.write_anew(base);
        if written.is_err() {
            // What is half written takes space for nothing. While requests come it is not tried again with every checkpoint.
            drop(self.disk.remove(NEW_FILE_NAME));
            self.checkpoints = 0;
        }
        written.map(|()| old)
    }

    fn write_anew(&mut self, base: &Base) -> Result<(), StoreError> {
        let new = Self::write_new(&self.disk, self.cache_bytes, &self.pace, base)?;
        let before_bytes = self.file_bytes()?;
        if let Err(error) = self.disk.rename(NEW_FILE_NAME, FILE_NAME).and_then(|()| self.disk.sync()) {
            self.file.become_unsure();
            return Err(error.into());
        }
        self.file.revoke();
        *self = new;
        self.checkpoints = 0;
        let bytes = self.file_bytes()?;
        // In one of few rows the empty pages of the tables count.
        if bytes > SMALL_FILE_BYTES {
            self.row_bytes = bytes / base.rows()?.max(1);
        }
        tracing::info!(before_bytes, bytes, "the index was written anew");
        Ok(())
    }

    /// Writes all rows of `base` into a new file of `disk`, which has not its name yet.
    fn write_new(
        disk: &Arc<dyn Disk>,
        cache_bytes: usize,
        pace: &Arc<Pace>,
        base: &Base,
    ) -> Result<Self, StoreError> {
        drop(disk.remove(NEW_FILE_NAME));
        let file = disk.create(NEW_FILE_NAME)?;
        let new = Self::on(Arc::clone(disk), file, cache_bytes, Arc::clone(pace))?;
        let tx = new.begin()?;
        tx.open_table(schema::META)?.insert(schema::META_FORMAT, schema::FORMAT)?;
        new.copy(base, &tx)?;
        finish(tx, base.numbers, base.position, base.payloads_through)?;
        Ok(new)
    }

    /// The disk that it lies on.
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut tx = self.db.database()?.begin_write()?;
        tx.set_durability(Durability::Immediate)?;
        // Makes reopening after a crash a matter of milliseconds instead of a walk over the file.
        tx.set_quick_repair(true);
        Ok(tx)
    }
}

/// Writes all rows of `base` as an index of its own to another disk, and closes it. Making its name durable is left to the caller.
pub(crate) fn write(
    disk: &Arc<dyn Disk>,
    cache_bytes: usize,
    pace: &Arc<Pace>,
    base: &Base,
) -> Result<(), StoreError> {
    drop(Index::write_new(disk, cache_bytes, pace, base)?);
    Ok(disk.rename(NEW_FILE_NAME, FILE_NAME)?)
}

/// Notes where the journal goes on, if anything was written to it yet, and commits.
fn finish(
    tx: WriteTransaction,
    numbers: Numbers,
    position: Option<Position>,
    payloads_through: u32,
) -> Result<(), StoreError> {
    let mut meta = tx.open_table(schema::META)?;
    meta.insert(schema::META_LAST_SEQ, numbers.seq.as_u64())?;
    meta.insert(schema::META_LAST_QUEUE, numbers.queue)?;
    if let Some(position) = position {
        meta.insert(schema::META_SEGMENT, u64::from(position.segment))?;
        meta.insert(schema::META_OFFSET, u64::from(position.offset))?;
    }
    meta.insert(schema::META_PAYLOADS, u64::from(payloads_through))?;
    let segments = read_segments(&tx.open_table(schema::SEGMENTS)?)?;
    meta.insert(
        schema::META_CHECKSUM,
        schema::meta_checksum(numbers, position, payloads_through, &segments),
    )?;
    drop(meta);
    Ok(tx.commit()?)
}

impl Index {
    fn write_layer(&self, tx: &WriteTransaction, layer: &Layer) -> Result<(), StoreError> {
        let mut rows = tx.open_table(schema::ROWS)?;
        for (key, value) in layer.rows.in_order() {
            self.pace.leave_core();
            match value {
                Some(value) => put(&mut rows, &key, &value.bytes())?,
                None => drop(rows.remove(&*key.bytes())?),
            }
        }
        let mut names = tx.open_table(schema::NAMES)?;
        for (recipient, queue) in &layer.names {
            self.pace.leave_core();
            match queue {
                Some(queue) => {
                    let checksum = schema::name_checksum(recipient.as_str(), *queue);
                    names.insert(recipient.as_str(), (*queue, checksum))?;
                }
                None => drop(names.remove(recipient.as_str())?),
            }
        }
        let mut segments = tx.open_table(schema::SEGMENTS)?;
        for (segment, change) in &layer.segments {
            let (items, bytes) = segments.get(segment)?.map_or((0, 0), |live| live.value());
            let live = Live { items, bytes }.changed(*change);
            if live.items == 0 {
                segments.remove(segment)?;
            } else {
                segments.insert(segment, (live.items, live.bytes))?;
            }
        }
        Ok(())
    }

    fn copy(&self, base: &Base, tx: &WriteTransaction) -> Result<(), StoreError> {
        let mut rows = tx.open_table(schema::ROWS)?;
        for row in base.range(&Key::start(), &Key::end())? {
            self.pace.leave_core();
            let (key, value) = row?;
            // A damaged row stays one: it is told by its checksum.
            rows.insert(key.value(), value.value())?;
        }
        let mut names = tx.open_table(schema::NAMES)?;
        for row in base.names()? {
            self.pace.leave_core();
            let (name, queue) = row?;
            names.insert(name.value(), queue.value())?;
        }
        let mut segments = tx.open_table(schema::SEGMENTS)?;
        for (segment, live) in &base.segments {
            segments.insert(segment, (live.items, live.bytes))?;
        }
        Ok(())
    }
}

/// The live frames of each segment that has any.
pub(crate) fn read_segments(
    table: &impl ReadableTable<u32, (u64, u64)>,
) -> Result<BTreeMap<u32, Live>, StoreError> {
    let mut segments = BTreeMap::new();
    for row in table.iter()? {
        let (segment, live) = row?;
        let (items, bytes) = live.value();
        segments.insert(segment.value(), Live { items, bytes });
    }
    Ok(segments)
}

fn put(
    rows: &mut Table<'_, &'static [u8], &'static [u8]>,
    key: &Key,
    value: &[u8],
) -> Result<(), StoreError> {
    rows.insert(&*key.bytes(), Base::with_checksum(key, value).as_slice())?;
    Ok(())
}
