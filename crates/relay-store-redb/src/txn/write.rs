//! A write transaction: collects changed rows in a memtable of its own, with an undo log for one
//! request. Requests and replay change rows through the same code, so both end in the same version.
//! It decides nothing and writes no file.

use std::sync::Arc;

use relay_core::{ItemId, Recipient, Seq, Timestamp};
use smallvec::SmallVec;

use crate::error::StoreError;
use crate::format::packed_items::PackedItems;
use crate::format::{self, Counters, Key, LiveChange, QueueRow};
use crate::index::snapshot::Value;
use crate::memtable::Memtable;
use crate::memtable::queue_cache::QueueCache;
use crate::memtable::rows::RowChange;
use crate::txn::queue_handle::OpenQueue;
use crate::version::Version;
use crate::version::queue_reader::QueueRows;
use crate::version::view::ReadView;

/// A version, and changes on top of it.
pub(crate) struct WriteTxn<'s> {
    pub(super) version: &'s Version,
    pub(crate) memtable: Memtable,
    undo: Vec<Undo>,
    /// Outlives the transaction and contains its changes. If these are not published, the caller
    /// must clear it.
    pub(super) cache: &'s QueueCache,
}

/// How to revert a change.
enum Undo {
    /// The queue that the row belongs to, and the previous row.
    Row(u64, RowChange),
    Recipient(Recipient, Option<Option<u64>>),
    Count(u32, LiveChange),
}

impl<'s> WriteTxn<'s> {
    pub(crate) fn new(version: &'s Version, cache: &'s QueueCache) -> Self {
        let memtable = Memtable::new(version.numbers());
        Self { version, memtable, undo: Vec::new(), cache }
    }

    pub(crate) fn view(&self) -> ReadView<'_> {
        self.version.view(Some(&self.memtable)).with_cache(self.cache)
    }

    pub(super) fn rows(&self, queue: u64) -> Result<Option<QueueRows<'_>>, StoreError> {
        QueueRows::of(self.view(), queue)
    }

    /// Records that the store had reached this time when a record was made.
    pub(super) fn note_time(&mut self, time: Timestamp) {
        self.memtable.numbers.time = self.memtable.numbers.time.max(time);
    }

    /// [`WriteTxn::rollback`] reverts what follows. Returns the numbers assigned so far.
    pub(crate) fn savepoint(&mut self) -> Counters {
        self.undo.clear();
        self.memtable.numbers
    }

    /// Reverts all changes since the savepoint that returned `numbers`.
    pub(crate) fn rollback(&mut self, numbers: Counters) {
        self.memtable.numbers = numbers;
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Row(queue, previous) => {
                    self.cache.forget_queue(queue);
                    self.memtable.rows.swap(previous);
                }
                Undo::Recipient(recipient, previous) => {
                    self.cache.forget_recipient(&recipient);
                    match previous {
                        Some(queue) => drop(self.memtable.recipients.insert(recipient, queue)),
                        None => drop(self.memtable.recipients.remove(&recipient)),
                    }
                }
                Undo::Count(segment, change) => self.memtable.count(segment, change.negated()),
            }
        }
    }

    /// Assigns the number of a new queue.
    pub(crate) fn next_queue_number(&mut self) -> u64 {
        self.memtable.numbers.queue = self.memtable.numbers.queue.saturating_add(1);
        self.memtable.numbers.queue
    }

    pub(crate) fn next_seq(&mut self) -> Seq {
        self.memtable.numbers.seq = self.memtable.numbers.seq.next();
        self.memtable.numbers.seq
    }

    pub(crate) fn create_queue(&mut self, queue: u64, owner: Recipient) -> OpenQueue {
        self.put(Key::owner(queue), Some(owner.as_str().into()));
        self.cache.keep_owner(queue, owner.clone());
        self.put_recipient(owner.clone(), Some(queue));
        self.cache.keep_recipient(owner, queue);
        OpenQueue::new(queue, Arc::default())
    }

    /// Opens a queue for changes, if it exists. [`WriteTxn::close`] writes its row back.
    pub(crate) fn open(&self, queue: u64) -> Result<Option<OpenQueue>, StoreError> {
        Ok(self.view().queue_row(queue)?.map(|row| OpenQueue::new(queue, row)))
    }

    /// Writes back the row of a changed queue, and its due time for the sweep.
    pub(crate) fn close(&mut self, mut open: OpenQueue) -> Result<(), StoreError> {
        self.update_ends(&mut open)?;
        // A removal leaves it as it was. That of an inline queue must be what its row is read as.
        if let Some(early_from) = open.row.early_from.and(open.row.inline()).map(PackedItems::early_from)
            && early_from != open.row.early_from
        {
            Arc::make_mut(&mut open.row).early_from = early_from;
        }
        let due = open.row.due();
        if due != open.due {
            if let Some(at) = open.due {
                self.put_due(at, open.number, false);
            }
            if let Some(at) = due {
                self.put_due(at, open.number, true);
            }
        }
        self.put_queue(open.number, open.row);
        Ok(())
    }

    /// Drops an empty queue that meets `condition`. Otherwise returns false and changes nothing.
    pub(crate) fn drop_queue(
        &mut self,
        queue: u64,
        condition: impl Fn(&QueueRow) -> bool,
    ) -> Result<bool, StoreError> {
        let row = self.view().queue_row(queue)?;
        let Some(row) = row.filter(|row| row.usage.is_empty() && condition(row)) else { return Ok(false) };
        let owner = self.view().owner(queue)?;
        // After corruption the owner may have another queue. An unreadable row leads to none.
        let is_its_queue = match self.view().queue_number(&owner) {
            Ok(number) => number == Some(queue),
            Err(StoreError::Corrupted(_)) => true,
            Err(error) => return Err(error),
        };
        if let Some(at) = row.due() {
            self.put_due(at, queue, false);
        }
        self.put_row(queue, RowChange::Queue(queue, Some(None)));
        self.put(Key::owner(queue), None);
        if is_its_queue {
            self.put_recipient(owner, None);
        }
        self.cache.forget_queue(queue);
        Ok(true)
    }

    pub(super) fn put_queue(&mut self, queue: u64, row: Arc<QueueRow>) {
        self.cache.keep_row(queue, Arc::clone(&row));
        self.put_row(queue, RowChange::Queue(queue, Some(Some(row))));
    }

    pub(super) fn put_item_id(&mut self, queue: u64, id: ItemId, seq: Option<Seq>) {
        self.put(Key::by_id(queue, id), seq.map(|seq| format::encode_number(seq.as_u64())));
    }

    pub(super) fn put(&mut self, key: Key, value: Option<Vec<u8>>) {
        let value = value.map(|value| SmallVec::from_slice(&value));
        self.put_row(key.queue_number(), RowChange::Other(key, Some(value)));
    }

    pub(super) fn put_due(&mut self, at: Timestamp, queue: u64, is_due: bool) {
        self.put_row(queue, RowChange::Due(at, queue, Some(is_due)));
    }

    pub(super) fn put_row(&mut self, queue: u64, change: RowChange) {
        let previous = self.memtable.rows.swap(change);
        self.undo.push(Undo::Row(queue, previous));
    }

    pub(super) fn put_recipient(&mut self, recipient: Recipient, queue: Option<u64>) {
        self.cache.forget_recipient(&recipient);
        let previous = self.memtable.recipients.insert(recipient.clone(), queue);
        self.undo.push(Undo::Recipient(recipient, previous));
    }

    /// Changes the live frames of a segment.
    pub(super) fn count(&mut self, segment: u32, change: LiveChange) {
        self.memtable.count(segment, change);
        self.undo.push(Undo::Count(segment, change));
    }
}

/// Whether an acked item id is no longer remembered. A corrupt row counts as expired: nothing else
/// would ever remove it.
pub(crate) fn is_acked_row_expired(row: &Value<'_>, now: Timestamp) -> Result<bool, StoreError> {
    match row.bytes().and_then(|bytes| format::decode_until(&bytes)) {
        Ok(until) => Ok(until <= now),
        Err(StoreError::Corrupted(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "../tests/write.rs"]
mod tests;
