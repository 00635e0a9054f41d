//! Reading queues: the same code over what is synced and over a batch that is being decided.
//!
//! Nothing here walks a queue. A page is a range scan. What lies behind an item is the difference of two places while the queue
//! has no holes, as one that is emptied from the front never has. Otherwise it is counted by blocks of [`BLOCK_ITEMS`]: the
//! rest of its own block row by row, every later block by one row, a five-hundredth of the queue's depth. The live part
//! begins where a binary search over deadlines says, since they never decrease along a queue.

use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{Front, ItemId, Queued as _, ReadTx, Recipient, Seq, Timestamp, Trace, Usage};

use crate::error::StoreError;
use crate::journals::Journals;
use crate::payload;
use crate::schema::{self, BLOCK_ITEMS, End, ItemRow, Key, QueueRow};
use crate::view::{Merge, Value, View};

/// One queue's rows.
pub(crate) struct QueueRows<'a> {
    pub(crate) view: View<'a>,
    pub(crate) queue: u64,
}

/// A payload on its way to the journal, and the number of its item.
pub(crate) type Pending = (Seq, Bytes);

/// The read half of the seam.
pub(crate) struct Reading<'a> {
    pub(crate) view: View<'a>,
    pub(crate) journal: &'a Journals,
    /// Payloads that cannot be read from the journal yet.
    pub(crate) pending: &'a [Pending],
}

impl<'a> QueueRows<'a> {
    pub(crate) fn read_row(&self) -> Result<Option<QueueRow>, StoreError> {
        self.view.queue_row(self.queue)
    }

    pub(crate) fn read_item(&self, seq: Seq) -> Result<Option<ItemRow>, StoreError> {
        match self.memo_item(|item| item.seq == seq) {
            Some(found) => Ok(found),
            None => self.read(&Key::item(self.queue, seq), |row| ItemRow::decode(seq, row)),
        }
    }

    /// What `look` finds in all items of the queue, if the memo knows them.
    fn memo_items<T>(&self, look: impl FnOnce(&[ItemRow]) -> T) -> Option<T> {
        self.view.memo?.items(self.queue, look)
    }

    /// The first item that is so, or that there is none, if the memo knows.
    fn memo_item(&self, is_it: impl Fn(&ItemRow) -> bool) -> Option<Option<ItemRow>> {
        self.memo_items(|items| items.iter().find(|item| is_it(item)).cloned())
    }

    /// Has the memo know the items of a queue that holds few.
    pub(crate) fn recall(&self, row: &QueueRow) -> Result<(), StoreError> {
        let Some(memo) = self.view.memo.filter(|_| !row.is_named && self.memo_items(|_| ()).is_none()) else {
            return Ok(());
        };
        let mut items = Vec::new();
        if let Some(ends) = row.ends {
            self.scan(ends.first.seq, &mut |item| {
                items.push(item);
                ControlFlow::Continue(())
            })?;
        }
        memo.keep_items(self.queue, items);
        Ok(())
    }

    /// The arrival number of the item of this name that lies in the queue.
    pub(crate) fn read_trace(&self, id: ItemId) -> Result<Option<Seq>, StoreError> {
        self.read(&Key::trace(self.queue, id), schema::decode_seq)
    }

    /// Where an acked name is remembered, and until when; also when that is over and no sweep has come by yet.
    pub(crate) fn read_acked(&self, id: ItemId) -> Result<Option<(Key, Timestamp)>, StoreError> {
        for slot in self.view.acked.slots_of(self.queue, id) {
            let key = Key::acked(slot, self.queue, id);
            if let Some(until) = self.read(&key, schema::decode_until)? {
                return Ok(Some((key, until)));
            }
        }
        Ok(None)
    }

    pub(crate) fn read_block(&self, block: u64) -> Result<Option<Usage>, StoreError> {
        self.read(&Key::block(self.queue, block), schema::decode_usage)
    }

    fn read<T>(
        &self,
        key: &Key,
        decode: impl FnOnce(&[u8]) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.view.get(key)?.map(|value| decode(value.bytes()?)).transpose()
    }

    /// The item of this name, if it lies in the queue.
    pub(crate) fn find(&self, row: &QueueRow, id: ItemId) -> Result<Option<ItemRow>, StoreError> {
        if row.is_named {
            let Some(seq) = self.read_trace(id)? else { return Ok(None) };
            return self.read_item(seq)?.ok_or(StoreError::Damaged("a name leads to no item")).map(Some);
        }
        self.recall(row)?;
        if let Some(found) = self.memo_item(|item| item.id == id) {
            return Ok(found);
        }
        let mut found = None;
        let Some(ends) = row.ends else { return Ok(None) };
        self.scan(ends.first.seq, &mut |item| {
            found = (item.id == id).then_some(item);
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }

    /// Shows the items from `from` on. One whose row is damaged is passed over: it must not hide those behind it.
    pub(crate) fn scan(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(ItemRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let known = self.memo_items(|items| items.iter().filter(|item| item.seq >= from).cloned().collect());
        match known {
            Some(known) => {
                let known: Vec<_> = known;
                // Who visits may ask for the items of the memo as well.
                let _ = known.into_iter().try_for_each(visit);
                Ok(())
            }
            None => self.scan_with(from, ItemRow::decode, visit),
        }
    }

    /// As [`QueueRows::scan`], over as much of each row as `decode` reads.
    fn scan_with<T>(
        &self,
        from: Seq,
        mut decode: impl FnMut(Seq, &[u8]) -> Result<T, StoreError>,
        visit: &mut dyn FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        for row in self.items(from)? {
            let flow = match row.and_then(|(key, value)| decode(item_seq(&key)?, value.bytes()?)) {
                Ok(row) => visit(row),
                Err(StoreError::Damaged(what)) => {
                    tracing::error!(what, "an item's row is passed over");
                    self.view.memo.inspect(|memo| memo.note_passed_over());
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

    /// The first item from `from` on.
    pub(crate) fn first_from(&self, from: Seq) -> Result<Option<End>, StoreError> {
        match self.memo_items(|items| items.iter().find(|item| item.seq >= from).map(ItemRow::as_end)) {
            Some(first) => Ok(first),
            None => first_end(self.items(from)?),
        }
    }

    /// The last item before `end`.
    pub(crate) fn last_before(&self, end: Seq) -> Result<Option<End>, StoreError> {
        match self.memo_items(|items| items.iter().rfind(|item| item.seq < end).map(ItemRow::as_end)) {
            Some(last) => Ok(last),
            None => {
                first_end(self.view.range_back(&Key::items_start(self.queue), &Key::item(self.queue, end))?)
            }
        }
    }

    /// How many items lie in the queue from `from` on.
    fn items_from(&self, row: &QueueRow, from: Seq) -> Result<u64, StoreError> {
        // A row that cannot be read is no reason to show nothing; what is wrong with it is told elsewhere.
        let place = |seq| self.read_item(seq).ok().flatten().map(|item| item.place);
        let places = row.ends.and_then(|ends| Some((place(ends.first.seq)?, place(from)?)));
        match places
            .map(|(first, here)| (row.next_place.checked_sub(first), row.next_place.checked_sub(here)))
        {
            Some((Some(places), Some(behind))) if places == row.usage.items => Ok(behind),
            _ => Ok(self.usage_from(row, from)?.items),
        }
    }

    /// What lies in the queue from `from` on.
    fn usage_from(&self, row: &QueueRow, from: Seq) -> Result<Usage, StoreError> {
        let mut usage = Usage::ZERO;
        let mut block = None;
        self.scan_with(from, ItemRow::decode_weight, &mut |(place, payload_bytes)| {
            let item_block = place / BLOCK_ITEMS;
            if *block.get_or_insert(item_block) != item_block {
                return ControlFlow::Break(());
            }
            usage = usage.plus(Usage::of(payload_bytes));
            ControlFlow::Continue(())
        })?;
        let open = row.next_place / BLOCK_ITEMS;
        let Some(block) = block.filter(|block| *block < open) else { return Ok(usage) };
        let later = Key::block(self.queue, block.saturating_add(1));
        for row in self.view.range(&later, &Key::block(self.queue, u64::MAX))? {
            usage = usage.plus(schema::decode_usage(row?.1.bytes()?)?);
        }
        Ok(usage.plus(row.open_block))
    }

    /// Where the live part begins at `now`.
    pub(crate) fn front(&self, row: &QueueRow, now: Timestamp) -> Result<Front, StoreError> {
        let Some(ends) = row.ends.filter(|ends| ends.first.deadline <= now) else {
            return Ok(Front {
                live_from: row.ends.map_or(Seq::ZERO, |ends| ends.first.seq),
                expired: Usage::ZERO,
            });
        };
        if ends.last.deadline <= now {
            return Ok(Front { live_from: ends.last.seq.next(), expired: row.usage });
        }
        let in_memo = self.memo_items(|items| {
            let (expired, live) = items.split_at(items.partition_point(|item| !item.is_live(now)));
            let live_from = live.first().map_or(ends.last.seq.next(), |item| item.seq);
            let expired = expired.iter().map(|item| Usage::of(item.payload_bytes));
            Front { live_from, expired: expired.fold(Usage::ZERO, Usage::plus) }
        });
        if let Some(front) = in_memo {
            return Ok(front);
        }
        let live_from = self.first_live(ends.first.seq, ends.last.seq, now)?;
        Ok(Front { live_from, expired: row.usage.minus(self.usage_from(row, live_from)?) })
    }

    /// Finds the first live item between one that is expired and one that is live.
    fn first_live(&self, mut expired: Seq, mut live: Seq, now: Timestamp) -> Result<Seq, StoreError> {
        while expired.next() < live {
            let middle = Seq::new(u64::midpoint(expired.as_u64(), live.as_u64()));
            let found = first_end(self.items(middle)?)?;
            let found = found.ok_or(StoreError::Damaged("a queue lost its last item"))?;
            if now < found.deadline {
                live = middle;
            } else {
                expired = found.seq;
            }
        }
        Ok(live)
    }

    fn items(&self, from: Seq) -> Result<Merge<'a>, StoreError> {
        self.view.range(&Key::item(self.queue, from), &Key::items_end(self.queue))
    }
}

/// The first of these items whose row can be read.
fn first_end(items: Merge<'_>) -> Result<Option<End>, StoreError> {
    for row in items {
        match row.and_then(read_end) {
            Ok(end) => return Ok(Some(end)),
            Err(StoreError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn read_end((key, value): (Key, Value<'_>)) -> Result<End, StoreError> {
    Ok(End { seq: item_seq(&key)?, deadline: ItemRow::decode_deadline(value.bytes()?)? })
}

fn item_seq(key: &Key) -> Result<Seq, StoreError> {
    key.item_seq().ok_or(StoreError::Damaged("a row among the items is none"))
}

impl Reading<'_> {
    fn find(&self, recipient: &Recipient) -> Result<Option<(QueueRows<'_>, QueueRow)>, StoreError> {
        let found = self.view.queue(recipient)?;
        Ok(found.map(|(queue, row)| (QueueRows { view: self.view, queue }, row)))
    }

    fn payload(&self, item: &ItemRow) -> Result<Bytes, StoreError> {
        // The last one counts: a request that was taken back has used the number before.
        if let Some((_, payload)) = self.pending.iter().rev().find(|(seq, _)| *seq == item.seq) {
            return Ok(payload.clone());
        }
        let frame =
            self.journal.read(&[item.location]).pop().ok_or(StoreError::Damaged("nothing was read"))??;
        payload::of_frame(frame, item.seq, item.id)
    }
}

impl ReadTx for Reading<'_> {
    type Error = StoreError;
    type Item = ItemRow;

    fn usage(&self, recipient: &Recipient) -> Result<Usage, StoreError> {
        Ok(self.view.queue(recipient)?.map_or(Usage::ZERO, |(_, row)| row.usage))
    }

    fn locate(&self, recipient: &Recipient, id: ItemId) -> Result<Option<Trace>, StoreError> {
        let Some((rows, row)) = self.find(recipient)? else { return Ok(None) };
        if let Some(ItemRow { seq, deadline, payload_bytes, .. }) = rows.find(&row, id)? {
            return Ok(Some(Trace::Queued { seq, deadline, payload_bytes }));
        }
        if row.acked == 0 {
            return Ok(None);
        }
        Ok(rows.read_acked(id)?.map(|(_, until)| Trace::Acked { until }))
    }

    fn scan(
        &self,
        recipient: &Recipient,
        from: Seq,
        visit: &mut dyn FnMut(ItemRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some((rows, _)) = self.find(recipient)? else { return Ok(()) };
        rows.scan(from, visit)
    }

    fn last_deadline(&self, recipient: &Recipient) -> Result<Option<Timestamp>, StoreError> {
        let found = self.find(recipient)?;
        Ok(found.and_then(|(_, row)| row.ends).map(|ends| ends.last.deadline))
    }

    fn has_payload(&self, recipient: &Recipient, seq: Seq, payload: &[u8]) -> Result<bool, StoreError> {
        let item = self.find(recipient)?.map(|(rows, _)| rows.read_item(seq)).transpose()?.flatten();
        let item = item.ok_or(StoreError::Damaged("a name leads to no item"))?;
        // What has another length need not be read.
        Ok(item.payload_bytes == payload.len() as u64 && self.payload(&item)? == payload)
    }

    fn items_from(&self, recipient: &Recipient, from: Seq) -> Result<u64, StoreError> {
        let Some((rows, row)) = self.find(recipient)? else { return Ok(0) };
        rows.items_from(&row, from)
    }

    fn front(&self, recipient: &Recipient, now: Timestamp) -> Result<Front, StoreError> {
        let Some((rows, row)) = self.find(recipient)? else { return Ok(Front::default()) };
        rows.front(&row, now)
    }
}
