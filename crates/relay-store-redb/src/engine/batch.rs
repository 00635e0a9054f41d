//! A batch: the write transaction that the rules run over. What they decide goes to the tables at
//! once, and to the journal as a record of what was done.

use std::cell::Cell;
use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{
    Front as LiveFront, Item, ItemId, ItemStatus, Queued as _, ReadTx, Recipient, Seq, Timestamp, Usage,
    WriteTx,
};
use relay_journal::{Frame, Mark};

use crate::engine::command::{Front, Prepared};
use crate::error::StoreError;
use crate::format::record::{self, ItemRecord, Removed, Trimmed, kind};
use crate::format::{Counters, ItemRow, Key};
use crate::index::snapshot::IndexSnapshot;
use crate::io::journals::Journals;
use crate::io::payload;
use crate::memtable::Memtable;
use crate::memtable::queue_cache::QueueCache;
use crate::txn::queue_handle::{OpenQueue, QueueHandle};
use crate::txn::read::Reading;
use crate::txn::write::Tables;
use crate::version::Version;

/// A payload on its way to the journal, and the number of its item.
type Pending = (Seq, Bytes);

/// One write transaction.
pub(crate) struct Batch<'s> {
    tables: Tables<'s>,
    records: relay_journal::Batch,
    journal: &'s Journals,
    /// What was done for the push that is decided next.
    pub(crate) ahead: Prepared,
    /// Payloads that cannot be read from the journal yet.
    pending: Vec<Pending>,
    /// Whether the payload of a push is compared by whoever asked for it, once it is answered that
    /// it is known.
    pub(crate) compares_later: bool,
    /// The item whose payload is to be compared then.
    to_compare: Cell<Option<Seq>>,
    /// How long the slots are in which acked names are put.
    slot_ms: u64,
    now: Timestamp,
}

/// Where a request began.
pub(crate) struct Savepoint {
    numbers: Counters,
    mark: Mark,
}

impl<'s> Batch<'s> {
    pub(crate) fn new(
        version: &'s Version,
        cache: &'s QueueCache,
        records: relay_journal::Batch,
        journal: &'s Journals,
        slot_ms: u64,
        now: Timestamp,
    ) -> Self {
        Self {
            tables: Tables::new(version, cache),
            records,
            journal,
            ahead: Prepared::Nothing,
            pending: Vec::new(),
            compares_later: false,
            to_compare: Cell::new(None),
            slot_ms,
            now,
        }
    }

    /// What was decided, and the records of it.
    pub(crate) fn finish(self) -> (Memtable, relay_journal::Batch) {
        (self.tables.memtable, self.records)
    }

    /// From here on, [`Batch::rollback`] takes back.
    pub(crate) fn savepoint(&mut self) -> Savepoint {
        Savepoint { numbers: self.tables.savepoint(), mark: self.records.mark() }
    }

    /// Takes back what a request has done.
    pub(crate) fn rollback(&mut self, to: Savepoint) {
        self.tables.rollback(to.numbers);
        self.records.rewind(to.mark);
    }

    /// Copies the item of a record to the end of the journal, if it still lies where the record was
    /// found.
    pub(crate) fn move_item(&mut self, frame: &Frame) -> Result<(), StoreError> {
        let found = ItemRecord::parse(&frame.body)?;
        let mark = self.records.mark();
        let to = self.records.append(kind::MOVED, &[], frame.body.clone());
        if !self.tables.move_item(&found, Some(frame.location), to)? {
            self.records.rewind(mark);
        }
        Ok(())
    }

    /// The item whose payload the push that was just decided has to be compared with, if it is
    /// known and that is left to do.
    pub(crate) fn take_to_compare(&self) -> Option<Seq> {
        self.to_compare.take()
    }

    fn reading(&self) -> Reading<'_> {
        Reading { view: self.tables.view(), journal: self.journal }
    }

    /// Records what was taken out of a queue. A replay settles the queue after each such record, so
    /// this does.
    fn record_removed(&mut self, queue: &mut QueueHandle) -> Result<(), StoreError> {
        let Some(open) = queue.open.as_mut().filter(|_| !queue.removed.is_empty()) else { return Ok(()) };
        let items = std::mem::take(&mut queue.removed);
        let is_remembered = items.iter().any(|(_, until)| until.is_some());
        let slot_ms = if is_remembered { self.slot_ms } else { 0 };
        let removed = Removed { queue: open.number, slot_ms, items };
        self.records.append(kind::REMOVED, &removed.encode(), Bytes::new());
        self.tables.settle(open)
    }

    fn drop_if_forgettable(&mut self, queue: u64) -> Result<(), StoreError> {
        if self.tables.drop_queue(queue, |row| row.is_forgettable(self.now))? {
            self.records.append(kind::DROPPED, &record::dropped(queue), Bytes::new());
        }
        Ok(())
    }

    /// Takes what has expired out of a queue, as far as it is told what that comes to, and tells
    /// how many items that were. A queue that then holds and remembers nothing is forgotten.
    pub(crate) fn trim(&mut self, front: &Front, index_snapshot: &IndexSnapshot) -> Result<u64, StoreError> {
        let Some(mut open) = self.tables.open(front.queue)? else { return Ok(0) };
        let Some((items, trimmed)) = self.expired(&open, front, index_snapshot)? else { return Ok(0) };
        if items > 0 {
            self.records.append(kind::TRIMMED, &trimmed.encode(), Bytes::new());
            self.tables.trim(&mut open, trimmed.through, trimmed.sum.as_ref())?;
            self.tables.close(open)?;
        }
        self.drop_if_forgettable(front.queue)?;
        Ok(items)
    }

    /// What of a queue has expired, and how many items that are. `None` if what was found of it
    /// does not hold any more.
    fn expired(
        &self,
        open: &OpenQueue,
        front: &Front,
        index_snapshot: &IndexSnapshot,
    ) -> Result<Option<(u64, Trimmed)>, StoreError> {
        let trimmed = Trimmed { queue: front.queue, now: self.now, ..Trimmed::default() };
        if let Some(here) = open.row.inline() {
            let expired: Vec<_> = here.iter().take_while(|item| !item.is_live(self.now)).collect();
            let through = expired.last().map_or(Seq::ZERO, |item| item.seq);
            return Ok(Some((expired.len() as u64, Trimmed { through, ..trimmed })));
        }
        let Some(walked) = &front.walked else { return Ok(None) };
        let view = self.tables.view();
        // A damaged item may be the first one, which the walk has passed over.
        let is_first = |first: &Seq| (walked.from..=walked.sum.first).contains(first);
        let first = open.row.ends.map(|ends| ends.first.seq).filter(is_first);
        let is_as_walked = first.is_some_and(|first| {
            let (from, to) = (Key::item(front.queue, first), Key::item(front.queue, walked.through.next()));
            std::ptr::eq(view.index_snapshot(), index_snapshot) && view.is_of_index(&from, &to)
        });
        let sum = Some(walked.sum.clone());
        Ok(is_as_walked
            .then(|| (walked.sum.usage().items, Trimmed { through: walked.through, sum, ..trimmed })))
    }
}

impl ReadTx for Batch<'_> {
    type Error = StoreError;
    type Item = ItemRow;
    type Queue = QueueHandle;

    fn queue(&self, recipient: &Recipient) -> Result<QueueHandle, StoreError> {
        self.reading().queue(recipient)
    }

    fn usage(&self, queue: &QueueHandle) -> Result<Usage, StoreError> {
        self.reading().usage(queue)
    }

    fn locate(&self, queue: &QueueHandle, id: ItemId) -> Result<Option<ItemStatus>, StoreError> {
        self.reading().locate(queue, id)
    }

    fn scan(
        &self,
        queue: &QueueHandle,
        from: Seq,
        visit: &mut dyn FnMut(ItemRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.reading().scan(queue, from, visit)
    }

    fn last_deadline(&self, queue: &QueueHandle) -> Result<Option<Timestamp>, StoreError> {
        self.reading().last_deadline(queue)
    }

    fn has_payload(&self, queue: &QueueHandle, seq: Seq, payload: &[u8]) -> Result<bool, StoreError> {
        match self.ahead {
            Prepared::Compared(known, is_same) if known == seq => return Ok(is_same),
            _ => {}
        }
        // The last one counts: a request that was taken back has used the number before.
        match self.pending.iter().rev().find(|(pending, _)| *pending == seq) {
            Some((_, pending)) => Ok(pending == payload),
            None if self.compares_later => {
                self.to_compare.set(Some(seq));
                Ok(true)
            }
            None => self.reading().has_payload(queue, seq, payload),
        }
    }

    fn items_from(&self, queue: &QueueHandle, from: Seq) -> Result<u64, StoreError> {
        self.reading().items_from(queue, from)
    }

    fn front(&self, queue: &QueueHandle, now: Timestamp) -> Result<LiveFront, StoreError> {
        self.reading().front(queue, now)
    }
}

impl WriteTx for Batch<'_> {
    fn next_seq(&mut self) -> Result<Seq, StoreError> {
        Ok(self.tables.next_seq())
    }

    fn insert(&mut self, queue: &mut QueueHandle, item: Item<Bytes>) -> Result<(), StoreError> {
        self.record_removed(queue)?;
        let acked = queue.acked(item.id());
        let recipient = &queue.recipient;
        let open = match &mut queue.open {
            Some(open) => open,
            none => {
                let number = self.tables.next_queue();
                none.insert(self.tables.make_queue(number, recipient.clone()))
            }
        };
        self.pending.push((item.seq, item.body.clone()));
        let location = if let Prepared::Written(location) = std::mem::take(&mut self.ahead) {
            let record = payload::record(open.number, recipient, &item, location);
            self.records.append(kind::PUSHED_ASIDE, &record, Bytes::new());
            location
        } else {
            let head = record::item_head(open.number, recipient, &item);
            self.records.append(kind::PUSHED, &head, item.body.clone())
        };
        self.tables.add_item(open, ItemRow::new(&item, location), acked)
    }

    fn remove(&mut self, queue: &mut QueueHandle, id: ItemId, seq: Seq) -> Result<(), StoreError> {
        let found = queue.found(seq);
        let open = queue.open.as_mut().ok_or(StoreError::Corrupted("a queue to change is not there"))?;
        let taken = self.tables.take_item(open, seq, found)?;
        if taken.is_none_or(|taken| taken.id != id) {
            return Err(StoreError::Corrupted("an item to remove is not there"));
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
                self.tables.remember(open, id, until, self.slot_ms);
                Ok(())
            }
            _ => Err(StoreError::Corrupted("only what was just removed can be remembered")),
        }
    }

    fn close(&mut self, mut queue: QueueHandle, usage: Usage) -> Result<(), StoreError> {
        // The tables count on their own, since a replay has nobody who tells them. What cannot be
        // read is given up later.
        if queue.open.as_ref().is_none_or(|open| open.row.usage != usage) {
            return Err(StoreError::Corrupted("a queue's usage is not what it should be"));
        }
        self.record_removed(&mut queue)?;
        let Some(open) = queue.open else { return Ok(()) };
        let (number, is_forgettable) = (open.number, open.row.is_forgettable(self.now));
        self.tables.close(open)?;
        if is_forgettable { self.drop_if_forgettable(number) } else { Ok(()) }
    }
}
