//! An index that is written anew, row by row, into a new file. It takes as long as the index is
//! large, so that checkpoints of the old one come in between: what they change of rows that were
//! copied already is changed in both.

use std::sync::Arc;

use redb::WriteTransaction;
use relay_disk::Disk;

use crate::error::StoreError;
use crate::format::{self, Key};
use crate::index::file::IndexFile;
use crate::index::snapshot::IndexSnapshot;
use crate::index::{self, Index, Written};
use crate::io::files::{INDEX_FILE, NEW_INDEX_FILE};
use crate::io::throttle::IoThrottle;
use crate::memtable::Memtable;

/// How many rows are copied in one step: some milliseconds' work. Tests have few rows, and want
/// several steps.
const STEP_ROWS: usize = if cfg!(test) { 3 } else { 1024 };

/// The new index, which has not its name yet.
pub(crate) struct Rewriting {
    new: Index,
    tx: WriteTransaction,
    copied: CopyPosition,
    /// How many bytes the keys and values have that were copied.
    rows_bytes: u64,
}

/// How far it has come: first the rows, then the names, each in order. Both are empty before the
/// first one.
enum CopyPosition {
    /// The rows up to this key.
    RowsThrough(Vec<u8>),
    /// All rows, and the names up to this one.
    RecipientsThrough(String),
}

impl Index {
    /// Writes all that it holds, which is `base` now, into a new file, which then takes the place
    /// of the old one. On failure the old one stays, unless it is not known which:
    /// [`Index::reopen`] makes that certain. Between small steps it asks `between` whether a
    /// checkpoint was written, of what, and what the index holds then. Returns the file that has
    /// lost its name, which is to be given back once nobody reads it.
    pub(crate) fn rewrite(
        &mut self,
        index_snapshot: Arc<IndexSnapshot>,
        between: &mut dyn FnMut(&mut Self) -> Result<Written, StoreError>,
    ) -> Result<Arc<IndexFile>, StoreError> {
        let old = Arc::clone(&self.file);
        let written = self.write_anew(index_snapshot, between);
        if written.is_err() {
            // What is half written takes space for nothing. While requests come it is not tried
            // again with every checkpoint.
            drop(self.disk.remove(NEW_INDEX_FILE));
            self.checkpoints = 0;
        }
        written.map(|()| old)
    }

    fn write_anew(
        &mut self,
        mut index_snapshot: Arc<IndexSnapshot>,
        between: &mut dyn FnMut(&mut Self) -> Result<Written, StoreError>,
    ) -> Result<(), StoreError> {
        let mut rewriting = Rewriting::begin(&self.disk, self.cache_bytes, &self.throttle)?;
        while !rewriting.step(&index_snapshot)? {
            if let Some((sealed, now)) = between(self)? {
                rewriting.follow(&sealed.memtable)?;
                index_snapshot = now;
            }
        }
        let new = rewriting.finish(&index_snapshot)?;
        let before_bytes = self.file_bytes()?;
        if let Err(error) = self.disk.rename(NEW_INDEX_FILE, INDEX_FILE).and_then(|()| self.disk.sync()) {
            self.file.become_unsure();
            return Err(error.into());
        }
        self.file.revoke();
        self.db.replace();
        *self = new;
        self.checkpoints = 0;
        let bytes = self.file_bytes()?;
        tracing::info!(before_bytes, bytes, "the index was written anew");
        Ok(())
    }
}

/// Writes all rows of `base` as an index of its own to another disk, and closes it. Making its name
/// durable is left to the caller.
pub(crate) fn write(
    disk: &Arc<dyn Disk>,
    cache_bytes: usize,
    throttle: &Arc<IoThrottle>,
    index_snapshot: &IndexSnapshot,
) -> Result<(), StoreError> {
    let mut rewriting = Rewriting::begin(disk, cache_bytes, throttle)?;
    while !rewriting.step(index_snapshot)? {}
    rewriting.finish(index_snapshot)?.close()?;
    Ok(disk.rename(NEW_INDEX_FILE, INDEX_FILE)?)
}

impl Rewriting {
    /// Begins with an empty file.
    pub(crate) fn begin(
        disk: &Arc<dyn Disk>,
        cache_bytes: usize,
        throttle: &Arc<IoThrottle>,
    ) -> Result<Self, StoreError> {
        drop(disk.remove(NEW_INDEX_FILE));
        let file = disk.create(NEW_INDEX_FILE)?;
        let new = Index::on(Arc::clone(disk), file, cache_bytes, Arc::clone(throttle))?;
        let tx = new.begin()?;
        Ok(Self { new, tx, copied: CopyPosition::RowsThrough(Vec::new()), rows_bytes: 0 })
    }

    /// Copies the next rows of the old index, which holds `base` now. True when there are no more.
    pub(crate) fn step(&mut self, index_snapshot: &IndexSnapshot) -> Result<bool, StoreError> {
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

    /// Returns the last key that was copied; `None` when there are no more.
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
            self.new.throttle.leave_core();
            let (key, value) = row?;
            // Over a damaged page redb may go astray, and who follows it may go round in circles.
            if key.value() <= last.as_slice() {
                return Err(StoreError::Corrupted("the index is out of order"));
            }
            // A damaged row stays one: it is told by its checksum.
            rows.insert(key.value(), value.value())?;
            self.rows_bytes += (key.value().len() + value.value().len()) as u64;
            last.clear();
            last.extend_from_slice(key.value());
        }
        Ok(None)
    }

    /// Returns the last name that was copied, and whether there are no more.
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
            self.new.throttle.leave_core();
            let (name, queue) = row?;
            if name.value() <= last.as_str() {
                return Err(StoreError::Corrupted("the names of the index are out of order"));
            }
            recipients.insert(name.value(), queue.value())?;
            self.rows_bytes += (name.value().len() + index::RECIPIENT_VALUE_BYTES) as u64;
            last.clear();
            last.push_str(name.value());
        }
        Ok((last, true))
    }

    /// Does what a checkpoint has done to the old index, to what was copied of it. The rest is
    /// copied as it is now.
    pub(crate) fn follow(&mut self, memtable: &Memtable) -> Result<(), StoreError> {
        let has_row = |key: &Key| match &self.copied {
            CopyPosition::RowsThrough(last) => *key.bytes() <= last[..],
            CopyPosition::RecipientsThrough(_) => true,
        };
        let has_name = |name: &str| match &self.copied {
            CopyPosition::RowsThrough(_) => false,
            CopyPosition::RecipientsThrough(last) => name <= last.as_str(),
        };
        let growth_bytes = self.new.write_memtable(&self.tx, memtable, has_row, has_name)?;
        self.rows_bytes = self.rows_bytes.saturating_add_signed(growth_bytes);
        Ok(())
    }

    /// Writes what is left, which is little, and makes all of it durable.
    pub(crate) fn finish(self, index_snapshot: &IndexSnapshot) -> Result<Index, StoreError> {
        let Self { new, tx, rows_bytes, .. } = self;
        drop(tx.open_table(format::RECIPIENTS)?);
        index::begin_meta(&tx, rows_bytes)?;
        let mut segments = tx.open_table(format::SEGMENTS)?;
        for (segment, live) in &*index_snapshot.segments {
            segments.insert(segment, (live.items, live.bytes))?;
        }
        drop(segments);
        index::finish(
            tx,
            index_snapshot.numbers,
            index_snapshot.position,
            index_snapshot.payloads_through,
            &index_snapshot.segments,
        )?;
        new.know_segments(Arc::clone(&index_snapshot.segments));
        new.note_density(rows_bytes)?;
        Ok(new)
    }
}
