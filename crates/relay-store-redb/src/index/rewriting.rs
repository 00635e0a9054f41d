//! Rewrites the index row by row into a new file. That takes long for a large index, so checkpoints
//! of the old index come in between. What they change of rows that were copied already is changed
//! in both.

use std::sync::Arc;

use redb::WriteTransaction;
use relay_disk::Disk;

use crate::error::StoreError;
use crate::format::{self, Key};
use crate::index::file::IndexFile;
use crate::index::snapshot::IndexSnapshot;
use crate::index::write::{RECIPIENT_VALUE_BYTES, write_memtable};
use crate::index::{Index, Written, meta};
use crate::io::files::{INDEX_FILE, NEW_INDEX_FILE};
use crate::io::throttle::IoThrottle;
use crate::memtable::Memtable;
use crate::naming::Naming;

/// The rows that one step copies: some milliseconds of work. Tests have few rows, and need several
/// steps.
const STEP_ROWS: usize = if cfg!(test) { 3 } else { 1024 };

/// The new index, which does not have its final name yet.
struct Rewriting {
    new: Index,
    tx: WriteTransaction,
    copied: CopyPosition,
    /// The bytes of all copied keys and values.
    rows_bytes: u64,
}

/// How far the copy has come: first the rows, then the recipients, each in order. The empty key and
/// the empty text come before all others.
enum CopyPosition {
    /// The rows up to this key.
    RowsThrough(Vec<u8>),
    /// All rows, and the recipients up to this one.
    RecipientsThrough(String),
}

impl Index {
    /// Writes the rows of `index_snapshot`, which is the current one, to a new file, and replaces
    /// the old file with it. Between small steps it calls `between`, which may write a checkpoint
    /// and then returns it. Returns the replaced file. Its space can be freed once nobody reads it.
    ///
    /// # Errors
    /// The old file stays, or it is uncertain which of the two does. [`Index::reopen`] settles
    /// that.
    pub(crate) fn rewrite(
        &mut self,
        index_snapshot: Arc<IndexSnapshot>,
        between: &mut dyn FnMut(&mut Self) -> Result<Written, StoreError>,
    ) -> Result<Arc<IndexFile>, StoreError> {
        let old = Arc::clone(&self.file);
        let rewritten = self.replace_with_copy(index_snapshot, between);
        if rewritten.is_err() {
            // The incomplete copy only takes space. While requests arrive, not every checkpoint
            // tries a rewrite again.
            drop(self.disk.remove(NEW_INDEX_FILE));
            self.checkpoints_since_rewrite = 0;
        }
        rewritten.map(|()| old)
    }

    fn replace_with_copy(
        &mut self,
        mut index_snapshot: Arc<IndexSnapshot>,
        between: &mut dyn FnMut(&mut Self) -> Result<Written, StoreError>,
    ) -> Result<(), StoreError> {
        let mut rewriting = Rewriting::begin(&self.disk, self.naming, self.cache_bytes, &self.throttle)?;
        while !rewriting.step(&index_snapshot)? {
            if let Some((sealed, now)) = between(self)? {
                rewriting.follow(&sealed.memtable)?;
                index_snapshot = now;
            }
        }
        let new = rewriting.finish(&index_snapshot)?;
        let before_bytes = self.file_bytes()?;
        if let Err(error) = self.disk.rename(NEW_INDEX_FILE, INDEX_FILE).and_then(|()| self.disk.sync()) {
            self.file.set_name_uncertain();
            return Err(error.into());
        }
        self.file.revoke();
        self.db.set_replaced();
        *self = new;
        self.checkpoints_since_rewrite = 0;
        let bytes = self.file_bytes()?;
        tracing::info!(before_bytes, bytes, "rewrote the index");
        Ok(())
    }
}

/// Writes the rows of a snapshot to another disk as an index, and closes it. The caller syncs the
/// directory.
pub(crate) fn write(
    disk: &Arc<dyn Disk>,
    cache_bytes: usize,
    throttle: &Arc<IoThrottle>,
    index_snapshot: &IndexSnapshot,
) -> Result<(), StoreError> {
    let mut rewriting = Rewriting::begin(disk, index_snapshot.naming, cache_bytes, throttle)?;
    while !rewriting.step(index_snapshot)? {}
    rewriting.finish(index_snapshot)?.close()?;
    Ok(disk.rename(NEW_INDEX_FILE, INDEX_FILE)?)
}

impl Rewriting {
    /// Begins with an empty file.
    fn begin(
        disk: &Arc<dyn Disk>,
        naming: Naming,
        cache_bytes: usize,
        throttle: &Arc<IoThrottle>,
    ) -> Result<Self, StoreError> {
        drop(disk.remove(NEW_INDEX_FILE));
        let file = disk.create(NEW_INDEX_FILE)?;
        let new = Index::on(Arc::clone(disk), file, naming, cache_bytes, Arc::clone(throttle))?;
        let tx = new.begin()?;
        Ok(Self { new, tx, copied: CopyPosition::RowsThrough(Vec::new()), rows_bytes: 0 })
    }

    /// Copies the next rows from the current snapshot of the old index. True when there are no
    /// more.
    fn step(&mut self, index_snapshot: &IndexSnapshot) -> Result<bool, StoreError> {
        match std::mem::replace(&mut self.copied, CopyPosition::RowsThrough(Vec::new())) {
            CopyPosition::RowsThrough(last) => {
                let next = self.copy_rows(index_snapshot, last)?;
                self.copied =
                    next.map_or(CopyPosition::RecipientsThrough(String::new()), CopyPosition::RowsThrough);
                Ok(false)
            }
            CopyPosition::RecipientsThrough(last) => {
                let (last, is_done) = self.copy_recipients(index_snapshot, last)?;
                self.copied = CopyPosition::RecipientsThrough(last);
                Ok(is_done)
            }
        }
    }

    /// Returns the last copied key; `None` when there are no more.
    fn copy_rows(
        &mut self,
        index_snapshot: &IndexSnapshot,
        mut last: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut rows = self.tx.open_table(format::ROWS)?;
        for (number, row) in index_snapshot.rows_after(&last.clone())?.enumerate() {
            if number == STEP_ROWS {
                return Ok(Some(last));
            }
            self.new.throttle.yield_core();
            let (key, value) = row?;
            // Over a corrupt page redb may walk in a circle.
            if key.value() <= last.as_slice() {
                return Err(StoreError::Corrupted("the index is out of order"));
            }
            // A corrupt row is copied as it is: its checksum still detects it.
            rows.insert(key.value(), value.value())?;
            self.rows_bytes += (key.value().len() + value.value().len()) as u64;
            last.clear();
            last.extend_from_slice(key.value());
        }
        Ok(None)
    }

    /// Returns the last copied recipient, and whether there are no more.
    fn copy_recipients(
        &mut self,
        index_snapshot: &IndexSnapshot,
        mut last: String,
    ) -> Result<(String, bool), StoreError> {
        let mut recipients = self.tx.open_table(format::RECIPIENTS)?;
        for (number, row) in index_snapshot.recipients_after(&last.clone())?.enumerate() {
            if number == STEP_ROWS {
                return Ok((last, false));
            }
            self.new.throttle.yield_core();
            let (name, queue) = row?;
            if name.value() <= last.as_str() {
                return Err(StoreError::Corrupted("the names of the index are out of order"));
            }
            recipients.insert(name.value(), queue.value())?;
            self.rows_bytes += (name.value().len() + RECIPIENT_VALUE_BYTES) as u64;
            last.clear();
            last.push_str(name.value());
        }
        Ok((last, true))
    }

    /// Repeats a checkpoint of the old index for the rows that were copied already. The others are
    /// copied in their new state.
    fn follow(&mut self, memtable: &Memtable) -> Result<(), StoreError> {
        let has_row = |key: &Key| match &self.copied {
            CopyPosition::RowsThrough(last) => *key.bytes() <= last[..],
            CopyPosition::RecipientsThrough(_) => true,
        };
        let has_recipient = |name: &str| match &self.copied {
            CopyPosition::RowsThrough(_) => false,
            CopyPosition::RecipientsThrough(last) => name <= last.as_str(),
        };
        let growth_bytes = write_memtable(&self.tx, &self.new.throttle, memtable, has_row, has_recipient)?;
        self.rows_bytes = self.rows_bytes.saturating_add_signed(growth_bytes);
        Ok(())
    }

    /// Writes the small tables, and makes everything durable.
    fn finish(self, index_snapshot: &IndexSnapshot) -> Result<Index, StoreError> {
        let Self { new, tx, rows_bytes, .. } = self;
        let IndexSnapshot { numbers, position, blobs_through, segments, .. } = index_snapshot;
        drop(tx.open_table(format::RECIPIENTS)?);
        meta::begin(&tx, new.naming, rows_bytes)?;
        let mut table = tx.open_table(format::SEGMENTS)?;
        for (segment, live) in &**segments {
            table.insert(segment, (live.items, live.bytes))?;
        }
        drop(table);
        meta::commit(tx, new.naming, *numbers, *position, *blobs_through, segments)?;
        new.segments.get_or_init(|| Arc::clone(segments));
        new.store_density(rows_bytes)?;
        Ok(new)
    }
}
