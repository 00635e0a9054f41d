//! Reads queues, with the same code over synced rows and over a batch that is being decided.
//!
//! Nothing here walks a whole queue. A page is a range scan. The number of items behind an item is
//! the difference of two positions if the queue has no holes; one that is emptied from the front
//! never has. Otherwise it is counted by blocks of [`BLOCK_ITEMS`]: the rest of the item's own
//! block row by row, and one row for every later block, a five-hundredth of the queue's depth. A
//! binary search finds the live part, because the bounds of items never decrease along a queue.
//! Items that expire before their bound have rows by deadline, which count the expired ones.

use std::ops::{ControlFlow, RangeBounds};
use std::sync::Arc;

use relay_core::{Front, ItemId, Queued as _, Recipient, Seq, Timestamp, Usage};

use crate::error::StoreError;
use crate::format::{self, BLOCK_ITEMS, End, Ends, ItemRow, Items, Key, ParsedKey, Positions, QueueRow};
use crate::memtable::queue_cache::CachedFront;
use crate::version::view::{Merger, ReadView};

/// A front that has moved by up to so many items is found by walking on from the cached one. From
/// there on, a search is as fast.
const ADVANCE_ROWS: usize = 64;

/// The most rows of items that expire early that are passed to count the visible ones: a
/// millisecond of work.
const EARLY_ROWS_MAX: usize = 4096;

/// One queue: its row, and the rows of its items if it is spilled.
pub(crate) struct QueueRows<'a> {
    pub(crate) view: ReadView<'a>,
    pub(crate) queue: u64,
    pub(crate) row: Arc<QueueRow>,
}

impl<'a> QueueRows<'a> {
    /// A queue by its number, if there is one.
    pub(crate) fn of(view: ReadView<'a>, queue: u64) -> Result<Option<Self>, StoreError> {
        Ok(view.queue_row(queue)?.map(|row| Self { view, queue, row }))
    }

    /// The queue of a recipient, if there is one.
    pub(crate) fn of_recipient(
        view: ReadView<'a>,
        recipient: &Recipient,
    ) -> Result<Option<Self>, StoreError> {
        Ok(view.queue(recipient)?.map(|(queue, row)| Self { view, queue, row }))
    }

    /// The arrival number of the first item. Rows in front of it are dead.
    pub(crate) fn first(&self) -> Seq {
        self.row.ends.map_or(Seq::ZERO, |ends| ends.first.seq)
    }

    pub(crate) fn read_item(&self, seq: Seq) -> Result<Option<ItemRow>, StoreError> {
        match self.row.inline() {
            Some(items) => Ok(items.get(seq)),
            None if seq < self.first() => Ok(None),
            None => self.view.read(&Key::item(self.queue, seq), |row| ItemRow::decode(seq, row)),
        }
    }

    /// The item with this id. An item whose own row is corrupt counts as missing: it must not fail
    /// an ack of others, and may be pushed again. If the row of the item id is corrupt, this
    /// searches the whole queue.
    pub(crate) fn find(&self, id: ItemId) -> Result<Option<ItemRow>, StoreError> {
        if let Some(items) = self.row.inline() {
            return Ok(items.find(id));
        }
        let found = match self.view.read(&Key::by_id(self.queue, id), format::decode_seq) {
            Ok(Some(seq)) => self.read_item(seq),
            Ok(None) => return Ok(None),
            Err(StoreError::Corrupted(_)) => self.search(id),
            Err(error) => return Err(error),
        };
        match found {
            Err(StoreError::Corrupted(what)) => {
                tracing::error!(what, "an item cannot be found by its item id");
                Ok(None)
            }
            found => found,
        }
    }

    fn search(&self, id: ItemId) -> Result<Option<ItemRow>, StoreError> {
        let mut found = None;
        self.scan(Seq::ZERO, &mut |item| {
            found = (item.id == id).then_some(item);
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }

    /// Visits the items from `from` on. Skips a corrupt row, which must not hide later items.
    pub(crate) fn scan(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(ItemRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some(items) = self.row.inline() else { return self.scan_with(from, ItemRow::decode, visit) };
        let _ = items.iter().filter(|item| item.seq >= from).try_for_each(visit);
        Ok(())
    }

    /// Like [`QueueRows::scan`] for a spilled queue, with only what `decode` reads of each row.
    fn scan_with<T>(
        &self,
        from: Seq,
        mut decode: impl FnMut(Seq, &[u8]) -> Result<T, StoreError>,
        visit: &mut dyn FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        for row in self.items(from)? {
            let flow = match row.and_then(|(key, value)| decode(item_seq(&key)?, &value.bytes()?)) {
                Ok(row) => visit(row),
                Err(StoreError::Corrupted(what)) => {
                    tracing::error!(what, "skipping the corrupt row of an item");
                    self.view.cache.inspect(|cache| cache.note_skipped_item());
                    ControlFlow::Continue(())
                }
                Err(error) => return Err(error),
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The current ends of the queue. `ends` are those before items were removed.
    pub(crate) fn current_ends(&self, ends: Ends, is_last_removed: bool) -> Result<Option<Ends>, StoreError> {
        if let Some(items) = self.row.inline() {
            return Ok(items.ends());
        }
        let first = first_end(self.items(ends.first.seq)?)?;
        let last = if is_last_removed {
            let [from, to] = [ends.first.seq, ends.last.seq].map(|seq| Key::item(self.queue, seq));
            first_end(self.view.range_back(&from, &to)?)?
        } else {
            Some(ends.last)
        };
        Ok(first.zip(last).map(|(first, last)| Ends { first, last }))
    }

    /// The number of items from `from` on that are live at `now`, if `from` is in the live part.
    pub(crate) fn live_items_from(&self, from: Seq, now: Timestamp) -> Result<u64, StoreError> {
        let expired = self.expired_early(from.., now)?;
        Ok(self.items_from(from)?.saturating_sub(expired.items))
    }

    /// The items among `seqs` that have expired although their bound is not reached.
    pub(crate) fn expired_early(
        &self,
        seqs: impl RangeBounds<Seq>,
        now: Timestamp,
    ) -> Result<Usage, StoreError> {
        let mut usage = Usage::ZERO;
        let Some(early_from) = self.row.early_from.filter(|early| *early <= now) else { return Ok(usage) };
        if let Some(items) = self.row.inline() {
            let expired =
                items.iter().filter(|item| seqs.contains(&item.seq) && item.is_early() && !item.is_live(now));
            return Ok(expired.map(|item| Usage::of(item.payload_bytes)).sum());
        }
        for row in self.early(early_from, now)? {
            let found = row.and_then(|(key, value)| {
                let payload_bytes = format::decode_payload_bytes(&value.bytes()?)?;
                Ok(matches!(key.parse()?, ParsedKey::Early(_, _, seq) if seqs.contains(&seq))
                    .then_some(payload_bytes))
            });
            match found {
                Ok(payload_bytes) => usage = usage.plus(payload_bytes.map_or(Usage::ZERO, Usage::of)),
                // A count that is too high must not fail a request.
                Err(StoreError::Corrupted(what)) => {
                    tracing::error!(what, "skipping the corrupt row of an item that expires early");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(usage)
    }

    /// Whether the queue is spilled and more than so many of its visible items have expired before
    /// their bound. Removed ones count as well: requests pass them until the writer settles the
    /// queue. It is also true if that takes too long to find out.
    pub(crate) fn has_expired_early(&self, more_than: usize, now: Timestamp) -> Result<bool, StoreError> {
        let early_from = self.row.early_from.filter(|early| *early <= now && self.row.inline().is_none());
        let Some(early_from) = early_from else { return Ok(false) };
        let (visible_from, mut found, mut passed) = (self.row.visible_from(), 0, 0);
        let mut rows = self.early(early_from, now)?;
        while let Some(row) = rows.next() {
            let is_hidden = match row.and_then(|(key, _)| key.parse()) {
                Ok(ParsedKey::Early(_, _, seq)) => seq < visible_from,
                Ok(_) | Err(StoreError::Corrupted(_)) => false,
                Err(error) => return Err(error),
            };
            (found, passed) = (found + usize::from(!is_hidden), passed + 1);
            if found + rows.tombstones() > more_than || passed > EARLY_ROWS_MAX {
                return Ok(true);
            }
        }
        Ok(found + rows.tombstones() > more_than)
    }

    /// The rows of the items that expire early, from `from` to `now`.
    fn early(&self, from: Timestamp, now: Timestamp) -> Result<Merger<'a>, StoreError> {
        self.view.range(&Key::early(self.queue, from, Seq::ZERO), &Key::early_end(self.queue, now))
    }

    /// The number of items from `from` on.
    fn items_from(&self, from: Seq) -> Result<u64, StoreError> {
        let Items::Spilled(Positions { next, .. }) = self.row.items else {
            return Ok(self.usage_from(from)?.items);
        };
        // If a row cannot be read, count by blocks. Other code reports the corruption.
        let position = |seq| self.read_item(seq).ok().flatten().map(|item| item.position);
        let positions = self.row.ends.and_then(|ends| Some((position(ends.first.seq)?, position(from)?)));
        match positions.map(|(first, from)| (next.checked_sub(first), next.checked_sub(from))) {
            Some((Some(positions), Some(items))) if positions == self.row.usage.items => Ok(items),
            _ => Ok(self.usage_from(from)?.items),
        }
    }

    /// The usage of the items from `from` on.
    pub(crate) fn usage_from(&self, from: Seq) -> Result<Usage, StoreError> {
        let positions = match &self.row.items {
            Items::Inline(items) => {
                let items = items.iter().filter(|item| item.seq >= from);
                return Ok(items.map(|item| Usage::of(item.payload_bytes)).sum());
            }
            Items::Spilled(positions) => positions,
        };
        let (mut usage, mut block) = (Usage::ZERO, None);
        self.scan_with(from, ItemRow::decode_weight, &mut |(position, payload_bytes)| {
            let item_block = position / BLOCK_ITEMS;
            if *block.get_or_insert(item_block) != item_block {
                return ControlFlow::Break(());
            }
            usage = usage.plus(Usage::of(payload_bytes));
            ControlFlow::Continue(())
        })?;
        let open_block = positions.next / BLOCK_ITEMS;
        let Some(block) = block.filter(|block| *block < open_block) else { return Ok(usage) };
        let next_block = Key::block(self.queue, block.saturating_add(1));
        for row in self.view.range(&next_block, &Key::block(self.queue, u64::MAX))? {
            usage = usage.plus(format::decode_usage(&row?.1.bytes()?)?);
        }
        Ok(usage.plus(positions.open_block))
    }

    /// Where the live part begins at `now`.
    pub(crate) fn front(&self, now: Timestamp) -> Result<Front, StoreError> {
        let front = self.above_floor(self.front_by_bounds(now)?);
        Ok(Front { expired: front.expired.plus(self.expired_early(front.live_from.., now)?), ..front })
    }

    /// The part of a front that requests see.
    fn above_floor(&self, front: Front) -> Front {
        let Some(floor) = &self.row.floor else { return front };
        let visible_from = self.row.visible_from();
        if front.live_from <= visible_from {
            return Front { live_from: visible_from, expired: Usage::ZERO };
        }
        // All that is left of the floor lies before the live part.
        Front { expired: floor.above(front.expired), ..front }
    }

    /// Where the items begin whose bound is not reached at `now`.
    pub(crate) fn front_by_bounds(&self, now: Timestamp) -> Result<Front, StoreError> {
        let row = &*self.row;
        let Some(ends) = row.ends.filter(|ends| ends.first.bound <= now) else {
            return Ok(Front { live_from: self.first(), expired: Usage::ZERO });
        };
        if ends.last.bound <= now {
            return Ok(Front { live_from: ends.last.seq.next(), expired: row.usage });
        }
        if let Some(items) = row.inline() {
            let live_from =
                items.iter().find(|item| now < item.bound()).map_or(ends.last.seq, |item| item.seq);
            return Ok(Front { live_from, expired: row.usage.minus(self.usage_from(live_from)?) });
        }
        let cached = self.view.cache.and_then(|cache| cache.front(self.queue));
        let found = match cached.map(|cached| self.advance(cached, now)).transpose()?.flatten() {
            Some(found) => found,
            None => self.search_front(ends, now)?,
        };
        self.view.cache.inspect(|cache| cache.keep_front(self.queue, found));
        Ok(found.front)
    }

    /// Walks from a cached front to the one at `now`; `None` if that is far away.
    fn advance(&self, cached: CachedFront, now: Timestamp) -> Result<Option<CachedFront>, StoreError> {
        if now < cached.until {
            return Ok(Some(cached));
        }
        let (mut expired, mut seen, mut found) = (cached.front.expired, 0, None);
        self.scan_with(cached.front.live_from, ItemRow::decode_end, &mut |(end, payload_bytes)| {
            if now < end.bound {
                let front = Front { live_from: end.seq, expired };
                found = Some(CachedFront { front, until: end.bound });
                return ControlFlow::Break(());
            }
            (expired, seen) = (expired.plus(Usage::of(payload_bytes)), seen + 1);
            if seen < ADVANCE_ROWS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(found)
    }

    fn search_front(&self, ends: Ends, now: Timestamp) -> Result<CachedFront, StoreError> {
        let first = self.first_live(ends, now)?;
        let expired = self.row.usage.minus(self.usage_from(first.seq)?);
        Ok(CachedFront { front: Front { live_from: first.seq, expired }, until: first.bound })
    }

    /// Searches for the first item whose bound is not reached. The bound of the first end is
    /// reached, that of the last one is not.
    fn first_live(&self, ends: Ends, now: Timestamp) -> Result<End, StoreError> {
        let (mut expired, mut live, mut first) = (ends.first.seq, ends.last.seq, ends.last);
        while expired.next() < live {
            let middle = Seq::new(u64::midpoint(expired.as_u64(), live.as_u64()));
            let found = first_end(self.items(middle)?)?;
            let found = found.ok_or(StoreError::Corrupted("the last item of a queue is missing"))?;
            if now < found.bound {
                (live, first) = (middle, found);
            } else {
                expired = found.seq;
            }
        }
        Ok(first)
    }

    fn items(&self, from: Seq) -> Result<Merger<'a>, StoreError> {
        self.view.range(&Key::item(self.queue, from.max(self.first())), &Key::items_end(self.queue))
    }
}

/// The first item whose row is not corrupt.
fn first_end(items: Merger<'_>) -> Result<Option<End>, StoreError> {
    for row in items {
        let end = row.and_then(|(key, value)| {
            Ok(End { seq: item_seq(&key)?, bound: ItemRow::decode_bound(&value.bytes()?)? })
        });
        match end {
            Ok(end) => return Ok(Some(end)),
            Err(StoreError::Corrupted(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn item_seq(key: &Key) -> Result<Seq, StoreError> {
    key.seq().ok_or(StoreError::Corrupted("a row among the items is not an item"))
}
