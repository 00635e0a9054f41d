//! The write transaction that relay-core's rules run over. It applies each decision to the rows at
//! once, and appends a record of it to the journal.

use std::cell::Cell;
use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{
    Item, ItemId, ItemStatus, ReadTx, Recipient, RemovedThrough, Seq, Timestamp, Usage, WriteTx,
};
use relay_journal::Frame;

use crate::engine::command::Prepared;
use crate::error::{StoreError, caught};
use crate::format::record::{self, ItemRecord, Removed, kind};
use crate::format::{ItemRow, QueueRow};
use crate::io::journals::Journals;
use crate::io::payload;
use crate::memtable::Memtable;
use crate::memtable::queue_cache::QueueCache;
use crate::txn::queue_handle::{OpenQueue, QueueHandle};
use crate::txn::read::ReadTxn;
use crate::txn::write::WriteTxn;
use crate::version::Version;

/// The write transaction of one batch.
pub(super) struct Batch<'s> {
    pub(super) txn: WriteTxn<'s>,
    pub(super) records: relay_journal::Batch,
    journal: &'s Journals,
    /// What the blob writer did for the next push.
    pub(super) prepared: Prepared,
    /// Payloads that cannot be read from the journal yet.
    pending: Vec<(Seq, Bytes)>,
    /// Whether the caller compares the payload of a duplicate push after the answer.
    pub(super) compares_later: bool,
    /// The item whose payload the caller must then compare.
    to_compare: Cell<Option<Seq>>,
    /// The length of a slot of dedup entries.
    pub(super) slot_ms: u64,
    pub(super) now: Timestamp,
    /// Queues with a floor whose items are to be removed.
    pub(super) floors: Vec<u64>,
}

impl<'s> Batch<'s> {
    pub(super) fn new(
        version: &'s Version,
        cache: &'s QueueCache,
        records: relay_journal::Batch,
        journal: &'s Journals,
        slot_ms: u64,
        now: Timestamp,
    ) -> Self {
        Self {
            txn: WriteTxn::new(version, cache),
            records,
            journal,
            prepared: Prepared::Nothing,
            pending: Vec::new(),
            compares_later: false,
            to_compare: Cell::new(None),
            slot_ms,
            now,
            floors: Vec::new(),
        }
    }

    /// The changed rows, and the records of the changes.
    pub(super) fn finish(self) -> (Memtable, relay_journal::Batch) {
        (self.txn.memtable, self.records)
    }

    /// Runs `act`, and undoes its changes if it fails, or panics because of a corrupt index.
    pub(super) fn attempt<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (numbers, mark) = (self.txn.savepoint(), self.records.mark());
        let outcome = caught(|| act(self));
        if let Err(error) = &outcome {
            tracing::warn!(%error, "a request failed and was rolled back");
            self.txn.rollback(numbers);
            self.records.rewind(mark);
        }
        outcome
    }

    /// Copies the item of a record to the end of the journal, unless it was moved or removed since
    /// the record was read.
    pub(super) fn move_item(&mut self, frame: &Frame) -> Result<(), StoreError> {
        let found = ItemRecord::parse(&frame.body)?;
        let mark = self.records.mark();
        let to = self.records.append(kind::MOVED, &[], frame.body.clone());
        if !self.txn.move_item(&found, Some(frame.location), to)? {
            self.records.rewind(mark);
        }
        Ok(())
    }

    /// The last arrival number that was assigned.
    pub(super) const fn last_seq(&self) -> Seq {
        self.txn.memtable.numbers.seq
    }

    /// The queued item whose payload the caller of the last push must compare.
    pub(super) fn take_to_compare(&self) -> Option<Seq> {
        self.to_compare.take()
    }

    fn read_txn(&self) -> ReadTxn<'_> {
        ReadTxn { view: self.txn.view(), journal: self.journal }
    }

    /// Records the items that were removed from a queue. A replay updates the ends of the queue
    /// after each such record, so this does too.
    pub(super) fn record_removed(&mut self, queue: &mut QueueHandle) -> Result<(), StoreError> {
        match &mut queue.open {
            Some(open) => self.record_items(open, std::mem::take(&mut queue.removed)),
            None => Ok(()),
        }
    }

    pub(super) fn record_items(
        &mut self,
        open: &mut OpenQueue,
        items: Vec<(Seq, Option<Timestamp>)>,
    ) -> Result<(), StoreError> {
        if items.is_empty() {
            return Ok(());
        }
        let is_remembered = items.iter().any(|(_, until)| until.is_some());
        let slot_ms = if is_remembered { self.slot_ms } else { 0 };
        let removed = Removed { queue: open.number, slot_ms, items };
        self.records.append(kind::REMOVED, &removed.encode(), Bytes::new());
        self.txn.update_ends(open)
    }

    /// Drops a queue that a request or a removal has left empty. While rows of its acked items are
    /// left, it waits for the sweep: under a new number it would not find them.
    pub(super) fn drop_if_unused(&mut self, queue: u64) -> Result<(), StoreError> {
        self.drop_if(queue, QueueRow::is_unused)
    }

    /// Drops a queue if it is empty, and all dedup windows have ended.
    pub(super) fn drop_if_forgettable(&mut self, queue: u64) -> Result<(), StoreError> {
        let now = self.now;
        self.drop_if(queue, |row| row.is_forgettable(now))
    }

    fn drop_if(&mut self, queue: u64, condition: impl Fn(&QueueRow) -> bool) -> Result<(), StoreError> {
        if self.txn.drop_queue(queue, condition)? {
            self.records.append(kind::DROPPED, &record::dropped(queue), Bytes::new());
        }
        Ok(())
    }
}

impl ReadTx for Batch<'_> {
    type Error = StoreError;
    type Item = ItemRow;
    type Queue = QueueHandle;

    fn queue(&self, recipient: &Recipient) -> Result<QueueHandle, StoreError> {
        self.read_txn().queue(recipient)
    }

    fn usage(&self, queue: &QueueHandle) -> Result<Usage, StoreError> {
        self.read_txn().usage(queue)
    }

    fn locate(&self, queue: &QueueHandle, id: ItemId) -> Result<Option<ItemStatus>, StoreError> {
        self.read_txn().locate(queue, id)
    }

    fn scan(
        &self,
        queue: &QueueHandle,
        from: Seq,
        visit: &mut dyn FnMut(ItemRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.read_txn().scan(queue, from, visit)
    }

    fn has_payload(&self, queue: &QueueHandle, seq: Seq, payload: &[u8]) -> Result<bool, StoreError> {
        match self.prepared {
            Prepared::Compared(compared, is_same) if compared == seq => return Ok(is_same),
            _ => {}
        }
        // The last one counts: a request that was rolled back may have used the same seq.
        match self.pending.iter().rev().find(|(pending_seq, _)| *pending_seq == seq) {
            Some((_, pending)) => Ok(pending == payload),
            None if self.compares_later => {
                self.to_compare.set(Some(seq));
                Ok(true)
            }
            None => self.read_txn().has_payload(queue, seq, payload),
        }
    }

    fn live_items_from(&self, queue: &QueueHandle, from: Seq, now: Timestamp) -> Result<u64, StoreError> {
        self.read_txn().live_items_from(queue, from, now)
    }

    fn front(&self, queue: &QueueHandle, now: Timestamp) -> Result<relay_core::Front, StoreError> {
        self.read_txn().front(queue, now)
    }
}

impl WriteTx for Batch<'_> {
    fn next_seq(&mut self, _: &Self::Queue) -> Result<Seq, StoreError> {
        Ok(self.txn.next_seq())
    }

    fn insert(&mut self, queue: &mut QueueHandle, item: Item<Bytes>) -> Result<(), StoreError> {
        self.remove_hidden(queue, item.id())?;
        self.record_removed(queue)?;
        let acked = queue.acked(item.id());
        let recipient = &queue.recipient;
        let open = match &mut queue.open {
            Some(open) => open,
            none => {
                let number = self.txn.next_queue_number();
                none.insert(self.txn.create_queue(number, recipient.clone()))
            }
        };
        self.pending.push((item.seq, item.body.clone()));
        let location = if let Prepared::Written(location) = std::mem::take(&mut self.prepared) {
            let record = payload::blob_record(open.number, recipient, &item, location);
            self.records.append(kind::PUSHED_BLOB, &record, Bytes::new());
            location
        } else {
            let head = record::item_head(open.number, recipient, &item);
            self.records.append(kind::PUSHED, &head, item.body.clone())
        };
        self.txn.add_item(open, ItemRow::new(&item, location), acked)
    }

    fn remove(&mut self, queue: &mut QueueHandle, id: ItemId, seq: Seq) -> Result<(), StoreError> {
        let found = queue.found(seq);
        let open = queue.open.as_mut().ok_or(StoreError::Corrupted("a queue to change is missing"))?;
        let taken = self.txn.remove_item(open, seq, found)?;
        if taken.is_none_or(|taken| taken.id != id) {
            return Err(StoreError::Corrupted("an item to remove is missing"));
        }
        queue.removed.push((seq, None));
        Ok(())
    }

    fn remember_acked(
        &mut self,
        queue: &mut QueueHandle,
        id: ItemId,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        match (queue.removed.last_mut(), &mut queue.open) {
            (Some(last), Some(open)) => {
                last.1 = Some(until);
                self.txn.remember_ack(open, id, until, self.slot_ms);
                Ok(())
            }
            _ => Err(StoreError::Corrupted("an ack to remember does not follow a removal")),
        }
    }

    fn remove_through(
        &mut self,
        queue: &mut QueueHandle,
        through: Seq,
        now: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<RemovedThrough, StoreError> {
        self.remove_front(queue, through, now, until)
    }

    fn close(&mut self, mut queue: QueueHandle, usage: Usage) -> Result<(), StoreError> {
        // The transaction computes the usage itself, because a replay has no rules to supply it.
        if queue.open.as_ref().is_none_or(|open| open.row.visible_usage() != usage) {
            return Err(StoreError::Corrupted("the usage of a queue is wrong"));
        }
        self.record_removed(&mut queue)?;
        let Some(open) = queue.open else { return Ok(()) };
        let (number, is_unused) = (open.number, open.row.is_unused());
        self.txn.close(open)?;
        if is_unused { self.drop_if_unused(number) } else { Ok(()) }
    }
}
