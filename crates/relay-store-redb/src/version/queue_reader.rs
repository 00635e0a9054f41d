//! Reading queues: the same code over what is synced and over a batch that is being decided.
//!
//! Nothing here walks a queue. A page is a range scan. What lies behind an item is the difference
//! of two places while the queue has no holes, as one that is emptied from the front never has.
//! Otherwise it is counted by blocks of [`BLOCK_ITEMS`]: the rest of its own block row by row,
//! every later block by one row, a five-hundredth of the queue's depth. The live part begins where
//! a binary search over deadlines says, since they never decrease along a queue.

use std::ops::ControlFlow;
use std::sync::Arc;

use relay_core::{Front, ItemId, Queued as _, Seq, Timestamp, Usage};

use crate::error::StoreError;
use crate::format::{self, BLOCK_ITEMS, End, Ends, ItemRow, Items, Key, Positions, QueueRow};
use crate::index::snapshot::Value;
use crate::memtable::queue_cache::CachedFront;
use crate::version::view::{Merger, ReadView};

/// A front that has moved by so many items since it was known is found by walking, which takes as
/// long as a search then.
const ADVANCE_ROWS: usize = 64;

/// One queue: its row, and those of its items if they lie apart.
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

    /// Where the queue begins. What lies in front of it is dead.
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

    /// The arrival number of the item of this name that lies in the queue.
    pub(crate) fn read_by_id(&self, id: ItemId) -> Result<Option<Seq>, StoreError> {
        self.view.read(&Key::by_id(self.queue, id), format::decode_seq)
    }

    /// The item of this name, if it lies in the queue. One whose row cannot be read does not: it
    /// fails no ack of others along with it, and may be pushed again. One whose name cannot be read
    /// is looked for among all.
    pub(crate) fn find(&self, id: ItemId) -> Result<Option<ItemRow>, StoreError> {
        if let Some(items) = self.row.inline() {
            return Ok(items.find(id));
        }
        let found = match self.read_by_id(id) {
            Ok(Some(seq)) => self.read_item(seq),
            Ok(None) => return Ok(None),
            Err(StoreError::Corrupted(_)) => self.search(id),
            Err(error) => return Err(error),
        };
        match found {
            Err(StoreError::Corrupted(what)) => {
                tracing::error!(what, "an item cannot be found by its name");
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

    /// Shows the items from `from` on. One whose row is damaged is passed over: it must not hide
    /// those behind it.
    pub(crate) fn scan(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(ItemRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some(items) = self.row.inline() else { return self.scan_with(from, ItemRow::decode, visit) };
        let _ = items.iter().filter(|item| item.seq >= from).try_for_each(visit);
        Ok(())
    }

    /// As [`QueueRows::scan`], over as much of each row as `decode` reads, of items that lie apart.
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
                    tracing::error!(what, "an item's row is passed over");
                    self.view.cache.inspect(|cache| cache.note_passed_over());
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

    /// The ends of the queue as they are, once items between them were taken out, and perhaps its
    /// last one.
    pub(crate) fn settled(&self, ends: Ends, is_last_gone: bool) -> Result<Option<Ends>, StoreError> {
        if let Some(items) = self.row.inline() {
            return Ok(items.ends());
        }
        let first = first_end(self.items(ends.first.seq)?)?;
        let last = if is_last_gone { self.last_before(ends.last.seq)? } else { Some(ends.last) };
        Ok(first.zip(last).map(|(first, last)| Ends { first, last }))
    }

    fn last_before(&self, end: Seq) -> Result<Option<End>, StoreError> {
        let first = Key::item(self.queue, self.first());
        first_end(self.view.range_back(&first, &Key::item(self.queue, end))?)
    }

    /// How many items lie in the queue from `from` on.
    pub(crate) fn items_from(&self, from: Seq) -> Result<u64, StoreError> {
        let Items::Spilled(Positions { next, .. }) = self.row.items else {
            return Ok(self.usage_from(from)?.items);
        };
        // A row that cannot be read is no reason to show nothing; what is wrong with it is told
        // elsewhere.
        let position = |seq| self.read_item(seq).ok().flatten().map(|item| item.position);
        let positions = self.row.ends.and_then(|ends| Some((position(ends.first.seq)?, position(from)?)));
        match positions.map(|(first, here)| (next.checked_sub(first), next.checked_sub(here))) {
            Some((Some(positions), Some(behind))) if positions == self.row.usage.items => Ok(behind),
            _ => Ok(self.usage_from(from)?.items),
        }
    }

    /// What lies in the queue from `from` on.
    fn usage_from(&self, from: Seq) -> Result<Usage, StoreError> {
        let mut usage = Usage::ZERO;
        let positions = match &self.row.items {
            Items::Inline(items) => {
                let later = items.iter().filter(|item| item.seq >= from);
                return Ok(later.map(|item| Usage::of(item.payload_bytes)).sum());
            }
            Items::Spilled(positions) => positions,
        };
        let mut block = None;
        self.scan_with(from, ItemRow::decode_weight, &mut |(position, payload_bytes)| {
            let item_block = position / BLOCK_ITEMS;
            if *block.get_or_insert(item_block) != item_block {
                return ControlFlow::Break(());
            }
            usage = usage.plus(Usage::of(payload_bytes));
            ControlFlow::Continue(())
        })?;
        let open = positions.next / BLOCK_ITEMS;
        let Some(block) = block.filter(|block| *block < open) else { return Ok(usage) };
        let later = Key::block(self.queue, block.saturating_add(1));
        for row in self.view.range(&later, &Key::block(self.queue, u64::MAX))? {
            usage = usage.plus(format::decode_usage(&row?.1.bytes()?)?);
        }
        Ok(usage.plus(positions.open_block))
    }

    /// Where the live part begins at `now`.
    pub(crate) fn front(&self, now: Timestamp) -> Result<Front, StoreError> {
        let row = &*self.row;
        let Some(ends) = row.ends.filter(|ends| ends.first.deadline <= now) else {
            return Ok(Front {
                live_from: row.ends.map_or(Seq::ZERO, |ends| ends.first.seq),
                expired: Usage::ZERO,
            });
        };
        if ends.last.deadline <= now {
            return Ok(Front { live_from: ends.last.seq.next(), expired: row.usage });
        }
        if let Some(items) = row.inline() {
            let live_from =
                items.iter().find(|item| item.is_live(now)).map_or(ends.last.seq, |item| item.seq);
            return Ok(Front { live_from, expired: row.usage.minus(self.usage_from(live_from)?) });
        }
        let known = self.view.cache.and_then(|cache| cache.front(self.queue));
        let found = match known.map(|known| self.advance(known, now)).transpose()?.flatten() {
            Some(found) => found,
            None => self.search_front(ends, now)?,
        };
        self.view.cache.inspect(|cache| cache.keep_front(self.queue, found));
        Ok(found.front)
    }

    /// The front at `now`, from where it was before; `None` when that is far from there.
    fn advance(&self, known: CachedFront, now: Timestamp) -> Result<Option<CachedFront>, StoreError> {
        if now < known.until {
            return Ok(Some(known));
        }
        let (mut expired, mut seen, mut found) = (known.front.expired, 0, None);
        self.scan_with(known.front.live_from, ItemRow::decode_end, &mut |(end, payload_bytes)| {
            if now < end.deadline {
                let front = Front { live_from: end.seq, expired };
                found = Some(CachedFront { front, until: end.deadline });
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
        Ok(CachedFront { front: Front { live_from: first.seq, expired }, until: first.deadline })
    }

    /// Finds the first live item between one that is expired and one that is live.
    fn first_live(&self, ends: Ends, now: Timestamp) -> Result<End, StoreError> {
        let (mut expired, mut live, mut first) = (ends.first.seq, ends.last.seq, ends.last);
        while expired.next() < live {
            let middle = Seq::new(u64::midpoint(expired.as_u64(), live.as_u64()));
            let found = first_end(self.items(middle)?)?;
            let found = found.ok_or(StoreError::Corrupted("a queue lost its last item"))?;
            if now < found.deadline {
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

/// The first of these items whose row can be read.
fn first_end(items: Merger<'_>) -> Result<Option<End>, StoreError> {
    for row in items {
        match row.and_then(read_end) {
            Ok(end) => return Ok(Some(end)),
            Err(StoreError::Corrupted(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn read_end((key, value): (Key, Value<'_>)) -> Result<End, StoreError> {
    Ok(End { seq: item_seq(&key)?, deadline: ItemRow::decode_deadline(&value.bytes()?)? })
}

fn item_seq(key: &Key) -> Result<Seq, StoreError> {
    key.item_seq().ok_or(StoreError::Corrupted("a row among the items is none"))
}
