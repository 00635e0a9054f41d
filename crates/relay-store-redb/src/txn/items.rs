//! Adds, removes and moves the items of a queue. They lie in its row (inline) or, once they are
//! many, in rows of their own (spilled).

use std::ops::ControlFlow;
use std::sync::Arc;

use relay_core::{ItemId, Seq, Timestamp, Usage};
use relay_journal::Location;

use crate::error::StoreError;
use crate::format::packed_items::PackedItems;
use crate::format::record::{ItemRecord, Owner};
use crate::format::{
    self, BLOCK_ITEMS, Ends, Floor, INLINE_AGAIN_ITEMS, ItemRow, Items, Key, LiveChange, Positions, QueueRow,
    SPILL_FROM_ITEMS,
};
use crate::memtable::dedup_filter;
use crate::txn::queue_handle::{AckedEntry, OpenQueue};
use crate::txn::write::WriteTxn;

impl WriteTxn<'_> {
    /// Appends an item to its queue. `acked` is the result of a lookup of its item id among the
    /// acked ones, if there was one.
    pub(crate) fn add_item(
        &mut self,
        open: &mut OpenQueue,
        item: ItemRow,
        acked: Option<Option<AckedEntry>>,
    ) -> Result<(), StoreError> {
        self.update_ends(open)?;
        let (queue, row) = (open.number, Arc::make_mut(&mut open.row));
        let item = item.behind(row.ends.map(|ends| ends.last.bound));
        if item.is_early() {
            row.early_from = Some(row.early_from.map_or(item.deadline, |early| early.min(item.deadline)));
        }
        let (id, location, last) = (item.id, item.location, item.as_end());
        let added = Usage::of(item.payload_bytes);
        // Such an entry has expired, or the rules would not add the item, but no sweep has removed
        // it yet.
        if row.remembers_until > Timestamp::default()
            && let Some((acked, _)) = acked.map_or_else(|| self.view().read_acked(queue, id), Ok)?
        {
            self.put(acked, None);
        }
        self.insert_item(queue, row, item);
        self.count(location.segment, LiveChange::added(location));
        row.usage = row.usage.plus(added);
        row.ends = Some(Ends { first: row.ends.map_or(last, |ends| ends.first), last });
        self.memtable.numbers.seq = self.memtable.numbers.seq.max(last.seq);
        self.memtable.numbers.queue = self.memtable.numbers.queue.max(queue);
        Ok(())
    }

    fn insert_item(&mut self, queue: u64, row: &mut QueueRow, item: ItemRow) {
        match &mut row.items {
            Items::Inline(items) if items.len() < SPILL_FROM_ITEMS => items.push(&item),
            Items::Inline(items) => {
                let mut positions = Positions::default();
                for item in std::mem::take(items).iter().chain([item]) {
                    self.insert_spilled(queue, &mut positions, item);
                }
                row.items = Items::Spilled(positions);
            }
            Items::Spilled(positions) => self.insert_spilled(queue, positions, item),
        }
    }

    /// Writes rows for an item and its item id, at the next position.
    fn insert_spilled(&mut self, queue: u64, positions: &mut Positions, item: ItemRow) {
        let (id, seq, position) = (item.id, item.seq, positions.next);
        positions.next = position.saturating_add(1);
        positions.open_block = positions.open_block.plus(Usage::of(item.payload_bytes));
        self.put_item_id(queue, id, Some(seq));
        if item.is_early() {
            self.put(Key::early(queue, item.deadline, seq), Some(format::encode_number(item.payload_bytes)));
        }
        self.put(Key::item(queue, seq), Some(ItemRow { position, ..item }.encode()));
        if positions.next.is_multiple_of(BLOCK_ITEMS) {
            let full = std::mem::take(&mut positions.open_block);
            self.put(Key::block(queue, position / BLOCK_ITEMS), Some(format::encode_usage(full)));
        }
    }

    /// Removes an item and its item id from its queue, and returns it; `None` if the queue does not
    /// contain it. `found` is the item, if the caller has read it already.
    pub(crate) fn remove_item(
        &mut self,
        open: &mut OpenQueue,
        seq: Seq,
        found: Option<ItemRow>,
    ) -> Result<Option<ItemRow>, StoreError> {
        let removed = match &open.row.items {
            Items::Inline(items) => items.without(seq).map(|(removed, left)| {
                // Does not copy the items that it replaces.
                open.row = Arc::new(QueueRow { items: Items::Inline(left), ..*open.row });
                removed
            }),
            Items::Spilled(_) => {
                let read = || open.rows(self.view()).read_item(seq);
                found.map_or_else(read, |found| Ok(Some(found)))?
            }
        };
        let Some(removed) = removed else { return Ok(None) };
        let row = Arc::make_mut(&mut open.row);
        let is_last = row.ends.is_some_and(|ends| ends.last.seq == seq);
        self.cache.remove_from_front(open.number, seq, Usage::of(removed.payload_bytes), is_last);
        (open.has_removed, open.is_last_removed) = (true, open.is_last_removed || is_last);
        self.count(removed.location.segment, LiveChange::removed(removed.location));
        row.usage = row.usage.minus(Usage::of(removed.payload_bytes));
        if let Some(floor) = row.floor.filter(|floor| seq <= floor.through) {
            self.set_floor(open, floor.without(Usage::of(removed.payload_bytes)));
        }
        let row = Arc::make_mut(&mut open.row);
        if row.inline().is_none() {
            self.remove_spilled(open, &removed)?;
        }
        let row = Arc::make_mut(&mut open.row);
        // `update_ends` finds the ends of a spilled queue.
        row.ends = row.inline().and_then(PackedItems::ends).or(row.ends);
        if row.usage.is_empty() {
            (row.ends, row.early_from, row.items) = (None, None, Items::default());
            // After corruption, something may seem to be left of it.
            self.set_floor(open, Floor::default());
        }
        Ok(Some(removed))
    }

    fn remove_spilled(&mut self, open: &mut OpenQueue, removed: &ItemRow) -> Result<(), StoreError> {
        open.remove_from_block(removed.position / BLOCK_ITEMS, Usage::of(removed.payload_bytes));
        self.delete_spilled(open.number, removed);
        self.inline_if_few(open)
    }

    /// Removes the rows of an item and its item id.
    fn delete_spilled(&mut self, queue: u64, item: &ItemRow) {
        self.put(Key::item(queue, item.seq), None);
        self.put_item_id(queue, item.id, None);
        if item.is_early() {
            self.put(Key::early(queue, item.deadline, item.seq), None);
        }
    }

    /// Moves the items of a spilled queue back into its row once they are few. If some cannot be
    /// read, they stay in rows of their own, or the queue would lose count of them.
    pub(super) fn inline_if_few(&mut self, open: &mut OpenQueue) -> Result<(), StoreError> {
        let row = &open.row;
        if row.inline().is_some() || row.floor.is_some() || row.usage.items > INLINE_AGAIN_ITEMS {
            return Ok(());
        }
        self.update_blocks(open)?;
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
            self.delete_spilled(queue, item);
            self.put(Key::block(queue, item.position / BLOCK_ITEMS), None);
            item.position = 0;
        }
        row.items = Items::Inline(items.into_iter().collect());
        Ok(())
    }

    /// Remembers the item id of an acked item until `until`, in a slot of `slot_ms`.
    pub(crate) fn remember_ack(&mut self, open: &mut OpenQueue, id: ItemId, until: Timestamp, slot_ms: u64) {
        let slot = dedup_filter::slot_of(until, slot_ms);
        self.version.acked().add(slot, open.number, id);
        self.put(Key::acked(slot, open.number, id), Some(format::encode_number(until.as_ms())));
        let row = Arc::make_mut(&mut open.row);
        row.remembers_until = row.remembers_until.max(until);
    }

    /// Records the new location of the item that this record contains. Returns false and changes
    /// nothing if the item is no longer at `from`, or if its row is that of another item.
    pub(crate) fn move_item(
        &mut self,
        record: &ItemRecord<'_>,
        from: Option<Location>,
        to: Location,
    ) -> Result<bool, StoreError> {
        let (queue, seq) = (record.queue, record.seq);
        let Some(rows) = self.rows(queue)? else { return Ok(false) };
        let Some(mut item) = rows.read_item(seq)? else { return Ok(false) };
        let recipient = rows.view.owner(queue)?;
        let is_its_record = record.is_of(Owner { queue, recipient: &recipient }, seq, item.id);
        if !is_its_record || from.is_some_and(|from| from != item.location) {
            return Ok(false);
        }
        let mut row = rows.row;
        let old = std::mem::replace(&mut item.location, to);
        match &mut Arc::make_mut(&mut row).items {
            Items::Inline(items) => {
                let moved = |other: ItemRow| if other.seq == seq { item.clone() } else { other };
                *items = items.iter().map(moved).collect();
                self.put_queue(queue, row);
            }
            Items::Spilled(_) => self.put(Key::item(queue, seq), Some(item.encode())),
        }
        self.count(old.segment, LiveChange::removed(old));
        self.count(to.segment, LiveChange::added(to));
        Ok(true)
    }

    /// Updates the ends and block counts of a queue after items were removed.
    pub(crate) fn update_ends(&mut self, open: &mut OpenQueue) -> Result<(), StoreError> {
        self.update_blocks(open)?;
        let is_last_removed = std::mem::take(&mut open.is_last_removed);
        if !std::mem::take(&mut open.has_removed) {
            return Ok(());
        }
        let Some(ends) = open.row.ends else { return Ok(()) };
        let ends = open.rows(self.view()).current_ends(ends, is_last_removed)?;
        if ends.is_none() {
            tracing::error!("the remaining items of a queue cannot be read; it counts as empty");
            self.cache.forget_queue(open.number);
            return self.empty_spilled(open);
        }
        Arc::make_mut(&mut open.row).ends = ends;
        Ok(())
    }

    /// Subtracts removed items from the counts of full blocks.
    pub(super) fn update_blocks(&mut self, open: &mut OpenQueue) -> Result<(), StoreError> {
        let queue = open.number;
        for (block, removed) in std::mem::take(&mut open.removed_from_blocks) {
            let left = match self.view().read(&Key::block(queue, block), format::decode_usage) {
                Ok(Some(usage)) => usage.minus(removed),
                // A wrong count must not keep items in the queue. Estimates from it are too low.
                Ok(None) | Err(StoreError::Corrupted(_)) => {
                    tracing::error!("the count of a full block of items is missing or corrupt");
                    Usage::ZERO
                }
                Err(error) => return Err(error),
            };
            let left = (!left.is_empty()).then(|| format::encode_usage(left));
            self.put(Key::block(queue, block), left);
        }
        Ok(())
    }

    /// Empties a spilled queue, whatever rows of items it has.
    pub(super) fn empty_spilled(&mut self, open: &mut OpenQueue) -> Result<(), StoreError> {
        let queue = open.number;
        let mut blocks = Vec::new();
        for row in self.view().range(&Key::block(queue, 0), &Key::early_start(queue))? {
            match row {
                Ok((key, _)) => blocks.push(key),
                Err(StoreError::Corrupted(_)) => {}
                Err(error) => return Err(error),
            }
        }
        blocks.into_iter().for_each(|key| self.put(key, None));
        self.put(Key::dead(queue), Some(Vec::new()));
        self.set_floor(open, Floor::default());
        let row = Arc::make_mut(&mut open.row);
        (row.usage, row.ends, row.early_from, row.items) = (Usage::ZERO, None, None, Items::default());
        Ok(())
    }
}
