//! How the write transaction removes many items at once: the front of a queue that has expired or
//! was acked, and items that have expired before one in front of them.

use bytes::Bytes;
use relay_core::{ItemId, Queued as _, Recipient, RemovedThrough, Seq, Timestamp, Usage};

use crate::engine::batch::Batch;
use crate::engine::command::{Front, SETTLE_ITEMS, Settled};
use crate::error::StoreError;
use crate::format::record::{ExpiredEarly, Floored, Trimmed, kind};
use crate::format::{Floor, ItemRow, Key, difference};
use crate::index::snapshot::IndexSnapshot;
use crate::txn::early::FoundEarly;
use crate::txn::queue_handle::{OpenQueue, QueueHandle};
use crate::version::queue_reader::QueueRows;

/// An ack of all items up to one removes so many at once: two milliseconds of work.
const AT_ONCE_ITEMS: usize = 512;

/// Before a request to a queue is decided, items that have expired before one in front of them are
/// removed until there are at most so many. Those are counted in no time, and left to the sweep.
const SETTLE_FROM: usize = 64;

impl Batch<'_> {
    /// Removes the expired items at the front of a queue, and returns their number. Drops the queue
    /// if it then has no items and no dedup entries.
    pub(super) fn trim(&mut self, front: &Front, index_snapshot: &IndexSnapshot) -> Result<u64, StoreError> {
        let Some(open) = self.txn.open(front.queue)? else { return Ok(0) };
        if open.row.floor.is_some() {
            // The writer removes what it hides, unless that has failed.
            self.floors.push(front.queue);
            return Ok(0);
        }
        let settled = match front.walked {
            None => self.settle(front.queue, SETTLE_ITEMS)?.expired,
            Some(_) => 0,
        };
        let Some(mut open) = self.txn.open(front.queue)? else { return Ok(settled) };
        let Some((items, trimmed)) = self.expired(&open, front, index_snapshot)? else { return Ok(settled) };
        if items > 0 {
            self.records.append(kind::TRIMMED, &trimmed.encode(), Bytes::new());
            self.txn.trim(&mut open, trimmed.through, trimmed.sum.as_ref())?;
            self.txn.close(open)?;
        }
        self.drop_if_forgettable(front.queue)?;
        Ok(settled + items)
    }

    /// The number of expired items, and the record that removes them. `None` if the queue has
    /// changed since the walk.
    fn expired(
        &self,
        open: &OpenQueue,
        front: &Front,
        index_snapshot: &IndexSnapshot,
    ) -> Result<Option<(u64, Trimmed)>, StoreError> {
        let trimmed = Trimmed { queue: front.queue, now: self.now, ..Trimmed::default() };
        if let Some(items) = open.row.inline() {
            let expired: Vec<_> = items.iter().take_while(|item| item.bound() <= self.now).collect();
            let through = expired.last().map_or(Seq::ZERO, |item| item.seq);
            return Ok(Some((expired.len() as u64, Trimmed { through, ..trimmed })));
        }
        let Some(walked) = &front.walked else { return Ok(None) };
        let view = self.txn.view();
        // The first item may be a corrupt one that the walk has skipped.
        let is_first = |first: &Seq| (walked.from..=walked.sum.first).contains(first);
        let first = open.row.ends.map(|ends| ends.first.seq).filter(is_first);
        let is_unchanged = first.is_some_and(|first| {
            let (from, to) = (Key::item(front.queue, first), Key::item(front.queue, walked.through.next()));
            std::ptr::eq(view.index_snapshot(), index_snapshot) && view.is_only_in_index(&from, &to)
        });
        let sum = Some(walked.sum.clone());
        Ok(is_unchanged
            .then(|| (walked.sum.usage().items, Trimmed { through: walked.through, sum, ..trimmed })))
    }

    /// Removes some items of a queue that its floor hides, and remembers their ids. Returns whether
    /// something is left of the floor.
    pub(super) fn remove_floored(&mut self, queue: u64, max: usize) -> Result<bool, StoreError> {
        let Some(mut open) = self.txn.open(queue)? else { return Ok(false) };
        let Some(floor) = open.row.floor else { return Ok(false) };
        let items = open.rows(self.txn.view()).first_items(floor.through, max)?;
        let (is_last, mut removed) = (items.is_empty(), Vec::new());
        for item in items {
            let until = floor.until.filter(|until| self.now < *until && floor.at < item.deadline);
            self.remove_found(&mut open, &mut removed, item, until)?;
        }
        self.record_items(&mut open, removed)?;
        if is_last {
            // Some could not be read, and stay until they expire.
            let floored = Floored { queue, floor: Floor::default() };
            self.records.append(kind::FLOORED, &floored.encode(), Bytes::new());
            self.txn.set_floor(&mut open, floored.floor);
        }
        let is_left = open.row.floor.is_some();
        self.txn.close(open)?;
        self.drop_if_unused(queue)?;
        Ok(is_left)
    }

    /// Removes an item that was just read, adds it to those that are to be recorded, and remembers
    /// its id.
    fn remove_found(
        &mut self,
        open: &mut OpenQueue,
        removed: &mut Vec<(Seq, Option<Timestamp>)>,
        item: ItemRow,
        until: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let (seq, id) = (item.seq, item.id);
        if self.txn.remove_item(open, seq, Some(item))?.is_some() {
            removed.push((seq, until));
            if let Some(until) = until {
                self.txn.remember_ack(open, id, until, self.slot_ms);
            }
        }
        Ok(())
    }

    /// The recipient's queue, if it has a floor.
    pub(super) fn floored_queue(&self, recipient: &Recipient) -> Result<Option<u64>, StoreError> {
        let queue = self.txn.view().queue(recipient)?;
        Ok(queue.filter(|(_, row)| row.floor.is_some()).map(|(queue, _)| queue))
    }

    /// The recipient's queue, if many of its items have expired before one in front of them.
    pub(super) fn unsettled(&self, recipient: &Recipient) -> Result<Option<u64>, StoreError> {
        let Some(rows) = QueueRows::of_recipient(self.txn.view(), recipient)? else { return Ok(None) };
        Ok(rows.has_expired_early(SETTLE_FROM, self.now)?.then_some(rows.queue))
    }

    /// Removes items of a queue that have expired before one in front of them, at most `max`. If
    /// the queue has a floor, this first removes what that hides.
    pub(super) fn settle(&mut self, queue: u64, max: usize) -> Result<Settled, StoreError> {
        let now = self.now;
        let Some(mut open) = self.txn.open(queue)?.filter(|open| open.row.is_early_due(now)) else {
            return Ok(Settled::default());
        };
        if open.row.floor.is_some() {
            self.remove_floored(queue, max)?;
            return Ok(Settled { expired: 0, has_advanced: true, is_full: true });
        }
        let FoundEarly { items, gone, next } = self.txn.find_early(&open, now, max)?;
        let expired = ExpiredEarly { queue, now, next, items };
        self.records.append(kind::EXPIRED_EARLY, &expired.encode(), Bytes::new());
        let removed = self.txn.remove_early(&mut open, &expired.items, next)?;
        self.txn.close(open)?;
        self.drop_if_unused(queue)?;
        let is_full = next.is_some_and(|next| next <= now);
        Ok(Settled { expired: removed as u64, has_advanced: removed + gone > 0, is_full })
    }

    /// Removes all items up to `through`. A few are removed at once. More of them are hidden by a
    /// floor: that takes a count for each block.
    pub(super) fn remove_front(
        &mut self,
        queue: &mut QueueHandle,
        through: Seq,
        now: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<RemovedThrough, StoreError> {
        self.record_removed(queue)?;
        let QueueHandle { open: Some(open), removed: to_record, .. } = queue else {
            return Ok(RemovedThrough::default());
        };
        let through = through.min(self.txn.memtable.numbers.seq);
        let rows = open.rows(self.txn.view());
        let items = rows.first_items(through, AT_ONCE_ITEMS + 1)?;
        if items.len() <= AT_ONCE_ITEMS {
            let mut removed = RemovedThrough::default();
            for item in items {
                let (is_live, usage) = (item.is_live(now), Usage::of(item.payload_bytes));
                self.remove_found(open, to_record, item, until.filter(|_| is_live))?;
                let sum = if is_live { &mut removed.live } else { &mut removed.expired };
                *sum = sum.plus(usage);
            }
            return Ok(removed);
        }
        let (left, expired) = rows.front_usage(through, now)?;
        let until = until.filter(|_| left != expired);
        let floored = Floored { queue: open.number, floor: Floor { through, at: now, until, left } };
        self.records.append(kind::FLOORED, &floored.encode(), Bytes::new());
        self.txn.set_floor(open, floored.floor);
        self.floors.push(open.number);
        Ok(RemovedThrough { live: difference(left, expired), expired })
    }

    /// Removes the item with this id if the floor hides it, because it is pushed again.
    pub(super) fn remove_hidden(&mut self, queue: &mut QueueHandle, id: ItemId) -> Result<(), StoreError> {
        let QueueHandle { open: Some(open), removed, .. } = queue else { return Ok(()) };
        let Some(floor) = open.row.floor else { return Ok(()) };
        match open.rows(self.txn.view()).find(id)? {
            Some(item) if item.seq <= floor.through => self.remove_found(open, removed, item, None),
            _ => Ok(()),
        }
    }
}
