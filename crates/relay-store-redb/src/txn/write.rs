//! What can be done to the rows, mechanically: the same code changes them when a request is decided
//! and when its record is replayed, so that both end in the same version. It decides nothing and
//! writes no file.
//!
//! Changes go to a memtable of their own, and an undo log takes back those of one request.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use relay_core::{ItemId, Recipient, Seq, Timestamp, Usage};
use relay_journal::Location;
use smallvec::SmallVec;

use crate::error::StoreError;
use crate::format::packed_items::PackedItems;
use crate::format::record::{FrontSum, ItemRecord, Owner};
use crate::format::{
    self, APART_FROM_ITEMS, BLOCK_ITEMS, Ends, ItemRow, Items, Key, Positions, QueueRow, SPILLED_UNTIL_ITEMS,
};
use crate::format::{Change, Counters};
use crate::index::snapshot::Value;
use crate::memtable::Memtable;
use crate::memtable::dedup_filter;
use crate::memtable::queue_cache::QueueCache;
use crate::memtable::rows::RowChange;
use crate::txn::queue_handle::{AckedEntry, OpenQueue};
use crate::version::Version;
use crate::version::queue_reader::QueueRows;
use crate::version::view::ReadView;

/// The rows as they are, and the changes to them.
pub(crate) struct Tables<'s> {
    version: &'s Version,
    pub(crate) memtable: Memtable,
    undo: Vec<Undo>,
    /// Outlives this, and knows what is changed here: it must forget all when that is not
    /// published.
    cache: &'s QueueCache,
}

/// How to take a change back.
enum Undo {
    /// The queue that the row is about, and what was there.
    Row(u64, RowChange),
    Name(Recipient, Option<Option<u64>>),
    Count(u32, Change),
}

impl<'s> Tables<'s> {
    pub(crate) fn new(version: &'s Version, cache: &'s QueueCache) -> Self {
        let memtable = Memtable::new(version.numbers());
        Self { version, memtable, undo: Vec::new(), cache }
    }

    pub(crate) fn view(&self) -> ReadView<'_> {
        self.version.view(Some(&self.memtable)).with_cache(self.cache)
    }

    pub(crate) fn rows(&self, queue: u64) -> Result<Option<QueueRows<'_>>, StoreError> {
        QueueRows::of(self.view(), queue)
    }

    /// The row of a queue, to be changed and put back.
    fn row(&self, queue: u64) -> Result<Option<Arc<QueueRow>>, StoreError> {
        self.view().queue_row(queue)
    }

    /// Notes that the store had come to this time when a record was made.
    pub(crate) fn note_time(&mut self, time: Timestamp) {
        self.memtable.numbers.time = self.memtable.numbers.time.max(time);
    }

    /// From here on, [`Tables::rollback`] takes back. Returns the numbers given away so far.
    pub(crate) fn savepoint(&mut self) -> Counters {
        self.undo.clear();
        self.memtable.numbers
    }

    /// Takes back what was done since the savepoint, where `numbers` had been given away.
    pub(crate) fn rollback(&mut self, numbers: Counters) {
        self.memtable.numbers = numbers;
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Row(queue, before) => {
                    self.cache.forget_queue(queue);
                    self.memtable.rows.swap(before);
                }
                Undo::Name(name, before) => {
                    self.cache.forget_recipient(&name);
                    match before {
                        Some(before) => drop(self.memtable.recipients.insert(name, before)),
                        None => drop(self.memtable.recipients.remove(&name)),
                    }
                }
                Undo::Count(segment, change) => self.memtable.count(segment, change.negated()),
            }
        }
    }

    /// A queue by its number, to be changed and then [closed](Self::close), if there is one.
    pub(crate) fn open(&self, queue: u64) -> Result<Option<OpenQueue>, StoreError> {
        Ok(self.row(queue)?.map(|row| OpenQueue::new(queue, row)))
    }

    /// A number for a queue that there is not yet.
    pub(crate) fn next_queue(&mut self) -> u64 {
        self.memtable.numbers.queue = self.memtable.numbers.queue.saturating_add(1);
        self.memtable.numbers.queue
    }

    pub(crate) fn next_seq(&mut self) -> Seq {
        self.memtable.numbers.seq = self.memtable.numbers.seq.next();
        self.memtable.numbers.seq
    }

    /// Puts an item at the end of its queue. Where its name is remembered as acked, if that was
    /// looked up already.
    pub(crate) fn add_item(
        &mut self,
        open: &mut OpenQueue,
        item: ItemRow,
        acked: Option<Option<AckedEntry>>,
    ) -> Result<(), StoreError> {
        self.settle(open)?;
        let (queue, row) = (open.number, Arc::make_mut(&mut open.row));
        // The rules see to that. But after damage there may be an item again that they did not know
        // of.
        let deadline = row.ends.map_or(item.deadline, |ends| item.deadline.max(ends.last.deadline));
        let item = ItemRow { deadline, ..item };
        let (id, location, last) = (item.id, item.location, item.as_end());
        let added = Usage::of(item.payload_bytes);
        // Its time is over, or the rules would not put it into the queue, but no sweep has come by.
        if row.remembers_until > Timestamp::default()
            && let Some((acked, _)) = acked.map_or_else(|| self.view().read_acked(queue, id), Ok)?
        {
            self.put(acked, None);
        }
        self.lay(queue, row, item);
        self.count(location.segment, Change::added(location));
        row.usage = row.usage.plus(added);
        row.ends = Some(Ends { first: row.ends.map_or(last, |ends| ends.first), last });
        self.memtable.numbers.seq = self.memtable.numbers.seq.max(last.seq);
        self.memtable.numbers.queue = self.memtable.numbers.queue.max(queue);
        Ok(())
    }

    /// Puts an item where those of its queue are.
    fn lay(&mut self, queue: u64, row: &mut QueueRow, item: ItemRow) {
        match &mut row.items {
            Items::Inline(items) if items.len() < APART_FROM_ITEMS => items.push(&item),
            Items::Inline(items) => {
                let mut positions = Positions::default();
                for item in std::mem::take(items).iter().chain([item]) {
                    self.lay_apart(queue, &mut positions, item);
                }
                row.items = Items::Spilled(positions);
            }
            Items::Spilled(positions) => self.lay_apart(queue, positions, item),
        }
    }

    /// Gives an item a row, and its name one, at the next place.
    fn lay_apart(&mut self, queue: u64, positions: &mut Positions, item: ItemRow) {
        let (id, seq, position) = (item.id, item.seq, positions.next);
        positions.next = position.saturating_add(1);
        positions.open_block = positions.open_block.plus(Usage::of(item.payload_bytes));
        self.put_trace(queue, id, Some(seq));
        self.put(Key::item(queue, seq), Some(ItemRow { position, ..item }.encode()));
        if positions.next.is_multiple_of(BLOCK_ITEMS) {
            let full = std::mem::take(&mut positions.open_block);
            self.put(Key::block(queue, position / BLOCK_ITEMS), Some(format::encode_usage(full)));
        }
    }

    /// Takes an item out of its queue and forgets its name. `None` when it is not there. It may
    /// have been `found` already.
    pub(crate) fn take_item(
        &mut self,
        open: &mut OpenQueue,
        seq: Seq,
        found: Option<ItemRow>,
    ) -> Result<Option<ItemRow>, StoreError> {
        let taken = match &open.row.items {
            Items::Inline(items) => match items.without(seq) {
                Some((taken, left)) => {
                    // Without a copy of what is replaced.
                    open.row = Arc::new(QueueRow { items: Items::Inline(left), ..*open.row });
                    taken
                }
                None => return Ok(None),
            },
            Items::Spilled(_) => {
                let read = || open.rows(self.view()).read_item(seq);
                match found.map_or_else(read, |found| Ok(Some(found)))? {
                    Some(taken) => taken,
                    None => return Ok(None),
                }
            }
        };
        let row = Arc::make_mut(&mut open.row);
        self.cache.take_from_front(open.number, seq, Usage::of(taken.payload_bytes));
        open.has_gone = true;
        open.is_last_gone |= row.ends.is_some_and(|ends| ends.last.seq == seq);
        self.count(taken.location.segment, Change::removed(taken.location));
        row.usage = row.usage.minus(Usage::of(taken.payload_bytes));
        if let Items::Spilled(positions) = &mut row.items {
            take_apart(positions, &mut open.blocks, &taken);
            self.put(Key::item(open.number, seq), None);
            self.put_trace(open.number, taken.id, None);
            if row.usage.items <= SPILLED_UNTIL_ITEMS {
                self.shrink_blocks(open)?;
                self.take_back(open)?;
            }
        }
        let row = Arc::make_mut(&mut open.row);
        // Those of items apart are left to the settling. If none is left, the row is emptied.
        row.ends = row.inline().and_then(PackedItems::ends).or(row.ends);
        if row.usage.is_empty() {
            empty(row);
        }
        Ok(Some(taken))
    }

    /// Takes what is left of a queue back into its row, unless some of it cannot be read: its count
    /// would go.
    fn take_back(&mut self, open: &mut OpenQueue) -> Result<(), StoreError> {
        let mut items = Vec::new();
        open.rows(self.view()).scan(Seq::ZERO, &mut |item| {
            items.push(item);
            ControlFlow::Continue(())
        })?;
        let (queue, row) = (open.number, Arc::make_mut(&mut open.row));
        if items.len() as u64 != row.usage.items {
            return Ok(());
        }
        for item in &mut items {
            self.put(Key::item(queue, item.seq), None);
            self.put_trace(queue, item.id, None);
            self.put(Key::block(queue, item.position / BLOCK_ITEMS), None);
            item.position = 0;
        }
        row.items = Items::Inline(items.into_iter().collect());
        Ok(())
    }

    /// Remembers that an item was acked, in a slot of this length.
    pub(crate) fn remember(&mut self, open: &mut OpenQueue, id: ItemId, until: Timestamp, slot_ms: u64) {
        let slot = dedup_filter::slot_of(until, slot_ms);
        self.version.acked().add(slot, open.number, id);
        self.put(Key::acked(slot, open.number, id), Some(format::encode_number(until.as_ms())));
        let row = Arc::make_mut(&mut open.row);
        row.remembers_until = row.remembers_until.max(until);
    }

    /// Takes the items up to `through` out of their queue and forgets their names. What they come
    /// to is told where they have rows of their own; otherwise these are looked at one by one.
    pub(crate) fn trim(
        &mut self,
        open: &mut OpenQueue,
        through: Seq,
        sum: Option<&FrontSum>,
    ) -> Result<(), StoreError> {
        match (&open.row.items, sum) {
            (Items::Inline(_), _) => self.trim_here(open, through),
            (Items::Spilled(_), Some(sum)) => {
                // What lies in front of it has a record of its own, which may be lost.
                if let Some(before) = sum.first.as_u64().checked_sub(1).map(Seq::new) {
                    self.take_through(open, before)?;
                }
                return self.trim_apart(open, through, sum);
            }
            // It was in its row once, and what made it one of few is lost.
            (Items::Spilled(_), None) => self.take_through(open, through)?,
        }
        Ok(())
    }

    fn trim_here(&mut self, open: &mut OpenQueue, through: Seq) {
        let row = Arc::make_mut(&mut open.row);
        let Items::Inline(items) = &row.items else { return };
        let (gone, left): (Vec<_>, Vec<_>) = items.iter().partition(|item| item.seq <= through);
        let items: PackedItems = left.into_iter().collect();
        (row.ends, row.items) = (items.ends(), Items::Inline(items));
        let sum: Usage = gone.iter().map(|item| Usage::of(item.payload_bytes)).sum();
        row.usage = row.usage.minus(sum);
        for item in gone {
            self.count(item.location.segment, Change::removed(item.location));
        }
        // It may have been one of many before, and be one again.
        self.cache.trim_front(open.number, through, sum);
    }

    /// No row is touched: they are dead, as they lie in front of the first item, and are taken away
    /// by whoever looks after the index.
    fn trim_apart(&mut self, open: &mut OpenQueue, through: Seq, sum: &FrontSum) -> Result<(), StoreError> {
        let row = Arc::make_mut(&mut open.row);
        if let Items::Spilled(positions) = &mut row.items {
            for (block, usage) in &sum.blocks {
                take_of_block(positions, &mut open.blocks, *block, *usage);
            }
        }
        row.usage = row.usage.minus(sum.usage());
        let is_last_gone = row.ends.is_none_or(|ends| ends.last.seq <= through);
        if let Some(ends) = &mut row.ends {
            ends.first.seq = ends.first.seq.max(through.next());
        }
        for (segment, live) in &sum.segments {
            self.count(*segment, Change::of(*live).negated());
        }
        self.put(Key::dead(open.number), Some(Vec::new()));
        self.cache.trim_front(open.number, through, sum.usage());
        self.shrink_blocks(open)?;
        if is_last_gone {
            return self.empty_apart(open);
        }
        open.has_gone = true;
        self.settle(open)?;
        if open.row.inline().is_none() && open.row.usage.items <= SPILLED_UNTIL_ITEMS {
            self.take_back(open)?;
        }
        Ok(())
    }

    fn take_through(&mut self, open: &mut OpenQueue, through: Seq) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        open.rows(self.view()).scan(Seq::ZERO, &mut |item| {
            if item.seq > through {
                return ControlFlow::Break(());
            }
            gone.push(item);
            ControlFlow::Continue(())
        })?;
        for item in gone {
            self.take_item(open, item.seq, Some(item))?;
        }
        Ok(())
    }

    /// Makes a queue one that holds nothing, whatever rows there are of its items.
    fn empty_apart(&mut self, open: &mut OpenQueue) -> Result<(), StoreError> {
        let queue = open.number;
        let mut blocks = Vec::new();
        for row in self.view().range(&Key::block(queue, 0), &Key::items_start(queue.saturating_add(1)))? {
            match row {
                Ok((key, _)) => blocks.push(key),
                Err(StoreError::Corrupted(_)) => {}
                Err(error) => return Err(error),
            }
        }
        blocks.into_iter().for_each(|key| self.put(key, None));
        self.put(Key::dead(queue), Some(Vec::new()));
        let row = Arc::make_mut(&mut open.row);
        row.usage = Usage::ZERO;
        empty(row);
        Ok(())
    }

    /// Brings the ends of a queue up to date, after items were taken out of it.
    pub(crate) fn settle(&mut self, open: &mut OpenQueue) -> Result<(), StoreError> {
        self.shrink_blocks(open)?;
        let is_last_gone = std::mem::take(&mut open.is_last_gone);
        if !std::mem::take(&mut open.has_gone) {
            return Ok(());
        }
        let Some(ends) = open.row.ends else { return Ok(()) };
        let settled = open.rows(self.view()).settled(ends, is_last_gone)?;
        if settled.is_none() {
            tracing::error!("what was left of a queue cannot be read; it counts as empty");
            self.cache.forget_queue(open.number);
            return self.empty_apart(open);
        }
        Arc::make_mut(&mut open.row).ends = settled;
        Ok(())
    }

    /// Puts back the row of a queue that was changed, and where the sweep finds it.
    pub(crate) fn close(&mut self, mut open: OpenQueue) -> Result<(), StoreError> {
        self.settle(&mut open)?;
        let due = open.row.due();
        if due != open.due {
            for (at, is_due) in open.due.map(|at| (at, false)).into_iter().chain(due.map(|at| (at, true))) {
                self.put_due(at, open.number, is_due);
            }
        }
        self.put_queue(open.number, open.row);
        Ok(())
    }

    /// Forgets a queue that holds nothing, if it is meant. False, and nothing done, otherwise.
    pub(crate) fn drop_queue(
        &mut self,
        queue: u64,
        is_meant: impl Fn(&QueueRow) -> bool,
    ) -> Result<bool, StoreError> {
        let Some(row) = self.row(queue)?.filter(|row| row.usage.is_empty() && is_meant(row)) else {
            return Ok(false);
        };
        let owner = self.view().owner(queue)?;
        // After damage its owner may have another queue. A name that cannot be read leads to none.
        let is_its_name = match self.view().queue_number(&owner) {
            Ok(named) => named == Some(queue),
            Err(StoreError::Corrupted(_)) => true,
            Err(error) => return Err(error),
        };
        if let Some(at) = row.due() {
            self.put_due(at, queue, false);
        }
        self.put_row(queue, RowChange::Queue(queue, Some(None)));
        self.put(Key::owner(queue), None);
        if is_its_name {
            self.put_recipient(owner, None);
        }
        self.cache.forget_queue(queue);
        Ok(true)
    }

    /// Notes that the item of this record lies elsewhere now. False, and nothing done, when it is
    /// not at `from` any more, or when the row that leads there is that of another item.
    pub(crate) fn move_item(
        &mut self,
        found: &ItemRecord<'_>,
        from: Option<Location>,
        to: Location,
    ) -> Result<bool, StoreError> {
        let (queue, seq) = (found.queue, found.seq);
        let Some(rows) = self.rows(queue)? else { return Ok(false) };
        let Some(mut item) = rows.read_item(seq)? else { return Ok(false) };
        let recipient = rows.view.owner(queue)?;
        let mut row = rows.row;
        let old = item.location;
        let is_its_record = found.is_of(Owner { queue, recipient: &recipient }, seq, item.id);
        if !is_its_record || from.is_some_and(|from| from != old) {
            return Ok(false);
        }
        item.location = to;
        match &mut Arc::make_mut(&mut row).items {
            Items::Inline(items) => {
                let moved = |here: ItemRow| if here.seq == seq { item.clone() } else { here };
                *items = items.iter().map(moved).collect();
                self.put_queue(queue, row);
            }
            Items::Spilled(_) => self.put(Key::item(queue, seq), Some(item.encode())),
        }
        self.count(old.segment, Change::removed(old));
        self.count(to.segment, Change::added(to));
        Ok(true)
    }

    /// A queue that there was not yet.
    pub(crate) fn make_queue(&mut self, queue: u64, owner: Recipient) -> OpenQueue {
        self.put(Key::owner(queue), Some(owner.as_str().into()));
        self.cache.keep_owner(queue, owner.clone());
        self.put_recipient(owner.clone(), Some(queue));
        self.cache.keep_recipient(owner, queue);
        OpenQueue::new(queue, Arc::default())
    }

    /// Counts what was taken out of full blocks.
    fn shrink_blocks(&mut self, open: &mut OpenQueue) -> Result<(), StoreError> {
        let queue = open.number;
        for (block, removed) in std::mem::take(&mut open.blocks) {
            let left = match self.view().read(&Key::block(queue, block), format::decode_usage) {
                Ok(Some(left)) => left.minus(removed),
                // A wrong count must not keep items in the queue. What is estimated from it is too
                // small.
                Ok(None) | Err(StoreError::Corrupted(_)) => {
                    tracing::error!("a full block of items is not counted");
                    Usage::ZERO
                }
                Err(error) => return Err(error),
            };
            let left = (!left.is_empty()).then(|| format::encode_usage(left));
            self.put(Key::block(queue, block), left);
        }
        Ok(())
    }

    fn put_queue(&mut self, queue: u64, row: Arc<QueueRow>) {
        self.cache.keep_row(queue, Arc::clone(&row));
        self.put_row(queue, RowChange::Queue(queue, Some(Some(row))));
    }

    fn put_trace(&mut self, queue: u64, id: ItemId, seq: Option<Seq>) {
        self.put(Key::by_id(queue, id), seq.map(|seq| format::encode_number(seq.as_u64())));
    }

    fn put(&mut self, key: Key, value: Option<Vec<u8>>) {
        let value = value.map(|value| SmallVec::from_slice(&value));
        self.put_row(key.about(), RowChange::Other(key, Some(value)));
    }

    fn put_due(&mut self, at: Timestamp, queue: u64, is_due: bool) {
        self.put_row(queue, RowChange::Due(at, queue, Some(is_due)));
    }

    fn put_row(&mut self, queue: u64, slot: RowChange) {
        let before = self.memtable.rows.swap(slot);
        self.undo.push(Undo::Row(queue, before));
    }

    fn put_recipient(&mut self, recipient: Recipient, queue: Option<u64>) {
        self.cache.forget_recipient(&recipient);
        let before = self.memtable.recipients.insert(recipient.clone(), queue);
        self.undo.push(Undo::Name(recipient, before));
    }

    fn count(&mut self, segment: u32, change: Change) {
        self.memtable.count(segment, change);
        self.undo.push(Undo::Count(segment, change));
    }
}

/// Notes in which block an item is missing that had a row of its own.
fn take_apart(positions: &mut Positions, blocks: &mut BTreeMap<u64, Usage>, item: &ItemRow) {
    take_of_block(positions, blocks, item.position / BLOCK_ITEMS, Usage::of(item.payload_bytes));
}

/// Notes that so much is missing in a block.
fn take_of_block(positions: &mut Positions, blocks: &mut BTreeMap<u64, Usage>, block: u64, removed: Usage) {
    if block == positions.next / BLOCK_ITEMS {
        positions.open_block = positions.open_block.minus(removed);
    } else {
        let sum = blocks.entry(block).or_default();
        *sum = sum.plus(removed);
    }
}

/// Makes the row one of a queue that holds nothing.
fn empty(row: &mut QueueRow) {
    row.ends = None;
    row.items = Items::default();
}

/// Whether the time of an acked name is over. That of one whose row is damaged is: nothing tells
/// otherwise, and it must not stay.
pub(crate) fn is_over(row: &Value<'_>, now: Timestamp) -> Result<bool, StoreError> {
    match row.bytes().and_then(|bytes| format::decode_until(&bytes)) {
        Ok(until) => Ok(until <= now),
        Err(StoreError::Corrupted(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "../tests/tables.rs"]
mod tests;
