//! A batch: the write transaction that the rules run over. Rows of items go straight into the tables; rows of queues are
//! collected and written once, at the end, however many requests of the batch touched them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use redb::{ReadableTable, Table, WriteTransaction};
use relay_core::{Due, DueItems, Front, Item, ItemId, Recipient, Seq, Timestamp, Trace, Usage, WriteTx};

use crate::error::StoreError;
use crate::read::{QueueRows, impl_read_tx};
use crate::schema::{self, BLOCK_ITEMS, ItemRow, QueueRow, Tag, TraceRow};

type Rows<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// The tables of one write transaction.
pub(crate) struct Batch<'t> {
    meta: Table<'t, &'static str, u64>,
    queues: Table<'t, &'static str, u64>,
    index: Rows<'t>,
    bodies: Table<'t, u64, &'static [u8]>,
    due: Table<'t, (u64, u64), ()>,
    acked: Table<'t, &'static [u8], ()>,
    last_seq: u64,
    last_queue: u64,
    touched: RefCell<Touched>,
    changed: bool,
}

/// The queues that this batch has looked at.
#[derive(Default)]
struct Touched {
    numbers: HashMap<Recipient, u64>,
    queues: HashMap<u64, TouchedQueue>,
}

struct TouchedQueue {
    recipient: Recipient,
    /// The row as it stands in the table.
    stored: Option<QueueRow>,
    /// The row as it shall be.
    row: QueueRow,
}

impl<'t> Batch<'t> {
    pub(crate) fn open(tx: &'t WriteTransaction) -> Result<Self, StoreError> {
        let meta = tx.open_table(schema::META)?;
        let number = |name| Ok::<_, StoreError>(meta.get(name)?.map_or(0, |number| number.value()));
        let (last_seq, last_queue) = (number(schema::META_LAST_SEQ)?, number(schema::META_LAST_QUEUE)?);
        Ok(Self {
            meta,
            queues: tx.open_table(schema::QUEUES)?,
            index: tx.open_table(schema::INDEX)?,
            bodies: tx.open_table(schema::BODIES)?,
            due: tx.open_table(schema::DUE)?,
            acked: tx.open_table(schema::ACKED)?,
            last_seq,
            last_queue,
            touched: RefCell::default(),
            changed: false,
        })
    }

    /// Writes what was collected. Tells whether the batch changed anything at all.
    pub(crate) fn finish(mut self) -> Result<bool, StoreError> {
        self.flush()?;
        if self.changed {
            self.meta.insert(schema::META_LAST_SEQ, self.last_seq)?;
            self.meta.insert(schema::META_LAST_QUEUE, self.last_queue)?;
        }
        Ok(self.changed)
    }

    fn rows(&self, queue: u64) -> QueueRows<'_, Rows<'t>> {
        QueueRows { index: &self.index, queue }
    }

    /// The number and row of a queue, if there is one.
    fn find(&self, recipient: &Recipient) -> Result<Option<(u64, QueueRow)>, StoreError> {
        let known = self.touched.borrow().numbers.get(recipient).copied();
        let number = match known {
            Some(number) => number,
            None => match self.queues.get(recipient.as_str())? {
                Some(number) => number.value(),
                None => return Ok(None),
            },
        };
        if known.is_none() {
            self.touch(number, recipient.clone())?;
        }
        Ok(self.touched.borrow().queues.get(&number).map(|queue| (number, queue.row)))
    }

    fn touch(&self, number: u64, recipient: Recipient) -> Result<(), StoreError> {
        let row = self.rows(number).read_row()?.ok_or(StoreError::Damaged("a queue has no row"))?;
        let mut touched = self.touched.borrow_mut();
        touched.numbers.insert(recipient.clone(), number);
        touched.queues.insert(number, TouchedQueue { recipient, stored: Some(row), row });
        Ok(())
    }

    /// As [`Self::find`], by the queue's number.
    fn find_number(&self, number: u64) -> Result<(Recipient, QueueRow), StoreError> {
        if !self.touched.borrow().queues.contains_key(&number) {
            self.touch(number, self.rows(number).read_name()?)?;
        }
        let touched = self.touched.borrow();
        let queue = touched.queues.get(&number).ok_or(StoreError::Damaged("a queue has no row"))?;
        Ok((queue.recipient.clone(), queue.row))
    }

    /// As [`Self::find`], and makes the queue if there is none.
    fn find_or_make(&mut self, recipient: &Recipient) -> Result<(u64, QueueRow), StoreError> {
        if let Some(found) = self.find(recipient)? {
            return Ok(found);
        }
        self.last_queue = self.last_queue.saturating_add(1);
        let number = self.last_queue;
        let touched = self.touched.get_mut();
        touched.numbers.insert(recipient.clone(), number);
        let row = QueueRow::default();
        touched.queues.insert(number, TouchedQueue { recipient: recipient.clone(), stored: None, row });
        Ok((number, row))
    }

    fn set_row(&mut self, number: u64, row: QueueRow) {
        self.changed = true;
        if let Some(queue) = self.touched.get_mut().queues.get_mut(&number) {
            queue.row = row;
        }
    }

    /// Writes the rows of the queues that changed, and forgets queues that hold nothing.
    fn flush(&mut self) -> Result<(), StoreError> {
        let touched = std::mem::take(self.touched.get_mut());
        for (number, queue) in touched.queues {
            if queue.stored == Some(queue.row) {
                continue;
            }
            let queue_key = schema::key(number, Tag::Queue, &[]);
            let name_key = schema::key(number, Tag::Name, &[]);
            self.move_due(number, queue.stored.and_then(|row| row.due), queue.row.due)?;
            if queue.row.is_forgettable() {
                self.queues.remove(queue.recipient.as_str())?;
                self.index.remove(queue_key.as_slice())?;
                self.index.remove(name_key.as_slice())?;
                continue;
            }
            if queue.stored.is_none() {
                self.queues.insert(queue.recipient.as_str(), number)?;
                self.index.insert(name_key.as_slice(), queue.recipient.as_str().as_bytes())?;
            }
            self.index.insert(queue_key.as_slice(), queue.row.encode().as_slice())?;
        }
        Ok(())
    }

    fn move_due(
        &mut self,
        queue: u64,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        if from == to {
            return Ok(());
        }
        if let Some(from) = from {
            self.due.remove((from.as_ms(), queue))?;
        }
        if let Some(to) = to {
            self.due.insert((to.as_ms(), queue), ())?;
        }
        Ok(())
    }

    /// Takes one item out of the count of the full block that it lies in.
    fn shrink_block(&mut self, queue: u64, block: u64, removed: Usage) -> Result<(), StoreError> {
        let key = schema::block_key(queue, block);
        let left = match self.index.get(key.as_slice())? {
            Some(row) => schema::decode_usage(row.value())?.minus(removed),
            None => return Err(StoreError::Damaged("a full block is not counted")),
        };
        if left.is_empty() {
            self.index.remove(key.as_slice())?;
        } else {
            self.index.insert(key.as_slice(), schema::encode_usage(left).as_slice())?;
        }
        Ok(())
    }

    /// The due items of one queue, from its front.
    fn due_of(&mut self, queue: u64, now: Timestamp, max: usize) -> Result<Vec<Due>, StoreError> {
        let (recipient, mut row) = self.find_number(queue)?;
        let mut due = Vec::new();
        let mut first_live = None;
        self.rows(queue).scan(Seq::ZERO, &mut |row| {
            let item = row.item;
            if item.is_live(now) {
                first_live = Some(item.deadline);
                return ControlFlow::Break(());
            }
            let (recipient, id) = (recipient.clone(), item.id());
            due.push(Due { recipient, id, seq: item.seq, payload_bytes: item.payload_bytes });
            if due.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        // Its first item was acked since: the sweep comes back when the one that is first now is due.
        if due.is_empty() {
            row.due = first_live;
            self.set_row(queue, row);
        }
        Ok(due)
    }
}

impl_read_tx!(Batch<'_>);

impl WriteTx for Batch<'_> {
    fn next_seq(&mut self) -> Result<Seq, StoreError> {
        self.last_seq = self.last_seq.saturating_add(1);
        Ok(Seq::new(self.last_seq))
    }

    fn insert(&mut self, recipient: &Recipient, item: Item<Bytes>) -> Result<(), StoreError> {
        let (queue, mut row) = self.find_or_make(recipient)?;
        let (seq, id, added) = (item.seq, item.id(), Usage::of(item.payload_bytes));
        let trace_key = schema::trace_key(queue, id);
        let trace = TraceRow::Queued(seq).encode();
        let before = self.index.insert(trace_key.as_slice(), trace.as_slice())?;
        let before = before.map(|before| TraceRow::decode(before.value())).transpose()?;
        if let Some(TraceRow::Acked { until }) = before {
            self.acked.remove(schema::acked_key(until, queue, id).as_slice())?;
            row.acked = row.acked.saturating_sub(1);
        }
        self.bodies.insert(seq.as_u64(), item.body.as_ref())?;
        row.due = Some(row.due.map_or(item.deadline, |due| due.min(item.deadline)));
        let place = row.next_place;
        let item_row = ItemRow { item: item.with_body(()), place };
        self.index.insert(schema::item_key(queue, seq).as_slice(), item_row.encode().as_slice())?;
        row.next_place = place.saturating_add(1);
        row.open_block = row.open_block.plus(added);
        if row.next_place.is_multiple_of(BLOCK_ITEMS) {
            let full = std::mem::take(&mut row.open_block);
            let key = schema::block_key(queue, place / BLOCK_ITEMS);
            self.index.insert(key.as_slice(), schema::encode_usage(full).as_slice())?;
        }
        self.set_row(queue, row);
        Ok(())
    }

    fn remove(&mut self, recipient: &Recipient, id: ItemId, seq: Seq) -> Result<(), StoreError> {
        let missing = StoreError::Damaged("an item to remove is not there");
        let Some((queue, mut row)) = self.find(recipient)? else { return Err(missing) };
        let removed = self.index.remove(schema::item_key(queue, seq).as_slice())?.ok_or(missing)?;
        let ItemRow { item, place } = ItemRow::decode(seq, removed.value())?;
        drop(removed);
        self.index.remove(schema::trace_key(queue, id).as_slice())?;
        self.bodies.remove(seq.as_u64())?;
        let (block, removed) = (place / BLOCK_ITEMS, Usage::of(item.payload_bytes));
        if block == row.next_place / BLOCK_ITEMS {
            row.open_block = row.open_block.minus(removed);
        } else {
            self.shrink_block(queue, block, removed)?;
        }
        self.set_row(queue, row);
        Ok(())
    }

    fn remember_acked(
        &mut self,
        recipient: &Recipient,
        id: ItemId,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let (queue, mut row) = self.find_or_make(recipient)?;
        let trace = TraceRow::Acked { until }.encode();
        self.index.insert(schema::trace_key(queue, id).as_slice(), trace.as_slice())?;
        self.acked.insert(schema::acked_key(until, queue, id).as_slice(), ())?;
        row.acked = row.acked.saturating_add(1);
        self.set_row(queue, row);
        Ok(())
    }

    fn set_usage(&mut self, recipient: &Recipient, usage: Usage) -> Result<(), StoreError> {
        let (queue, mut row) = self.find_or_make(recipient)?;
        row.usage = usage;
        if usage.is_empty() {
            row.due = None;
            row.next_place = 0;
            row.open_block = Usage::ZERO;
        }
        self.set_row(queue, row);
        Ok(())
    }

    fn due(&mut self, now: Timestamp, max: usize) -> Result<DueItems, StoreError> {
        self.flush()?;
        let mut queues = Vec::new();
        for row in self.due.range((0, 0)..=(now.as_ms(), u64::MAX))?.take(max) {
            queues.push(row?.0.value().1);
        }
        let mut found = DueItems { items: Vec::new(), more: queues.len() >= max };
        for queue in queues {
            let room = max.saturating_sub(found.items.len());
            if room == 0 {
                found.more = true;
                break;
            }
            let due = self.due_of(queue, now, room)?;
            found.more |= due.len() >= room;
            found.items.extend(due);
        }
        Ok(found)
    }

    fn forget_acked(&mut self, now: Timestamp, max: usize) -> Result<usize, StoreError> {
        let end = now.plus_ms(1).as_ms().to_be_bytes();
        let mut over = Vec::new();
        for row in self.acked.range::<&[u8]>(..end.as_slice())?.take(max) {
            over.push(schema::decode_acked_key(row?.0.value())?);
        }
        for &(until, queue, id) in &over {
            let (_, mut row) = self.find_number(queue)?;
            self.acked.remove(schema::acked_key(until, queue, id).as_slice())?;
            self.index.remove(schema::trace_key(queue, id).as_slice())?;
            row.acked = row.acked.saturating_sub(1);
            self.set_row(queue, row);
        }
        Ok(over.len())
    }
}
