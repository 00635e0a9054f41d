//! Reading queues: the same code over a snapshot and over a transaction that is being written.
//!
//! Nothing here walks a queue. A page is a range scan. What lies behind an item is counted by blocks of
//! [`BLOCK_ITEMS`]: the rest of its own block row by row, every later block by one row, a five-hundredth of the queue's depth. The live part begins where a binary
//! search over deadlines says, since they never decrease along a queue.

use std::ops::ControlFlow;

use redb::{AccessGuard, ReadableTable};
use relay_core::{Front, Item, ItemId, Recipient, Seq, Timestamp, Trace, Usage};

use crate::error::StoreError;
use crate::schema::{self, BLOCK_ITEMS, ItemRow, QueueRow, TraceRow};

/// One queue's rows in the index table.
pub(crate) struct QueueRows<'a, T> {
    pub(crate) index: &'a T,
    pub(crate) queue: u64,
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> QueueRows<'_, T> {
    pub(crate) fn read_row(&self) -> Result<Option<QueueRow>, StoreError> {
        let key = schema::key(self.queue, schema::Tag::Queue, &[]);
        self.index.get(key.as_slice())?.map(|row| QueueRow::decode(row.value())).transpose()
    }

    pub(crate) fn read_name(&self) -> Result<Recipient, StoreError> {
        let name = self.index.get(schema::key(self.queue, schema::Tag::Name, &[]).as_slice())?;
        let name = name.ok_or(StoreError::Damaged("a queue has no name"))?;
        let name = std::str::from_utf8(name.value()).ok().and_then(|name| Recipient::parse(name).ok());
        name.ok_or(StoreError::Damaged("a queue's name is no recipient"))
    }

    pub(crate) fn read_trace(&self, id: ItemId) -> Result<Option<TraceRow>, StoreError> {
        let key = schema::trace_key(self.queue, id);
        self.index.get(key.as_slice())?.map(|row| TraceRow::decode(row.value())).transpose()
    }

    pub(crate) fn locate(&self, id: ItemId) -> Result<Option<Trace>, StoreError> {
        match self.read_trace(id)? {
            None => Ok(None),
            Some(TraceRow::Acked { until }) => Ok(Some(Trace::Acked { until })),
            Some(TraceRow::Queued(seq)) => {
                let row = self.index.get(schema::item_key(self.queue, seq).as_slice())?;
                let row = row.ok_or(StoreError::Damaged("a name leads to no item"))?;
                let item = ItemRow::decode(seq, row.value())?.item;
                let (deadline, payload_bytes) = (item.deadline, item.payload_bytes);
                Ok(Some(Trace::Queued { seq, deadline, payload_bytes }))
            }
        }
    }

    pub(crate) fn scan(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(ItemRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        for row in self.items(from)? {
            let (key, value) = row?;
            let row = ItemRow::decode(schema::decode_item_key(key.value())?, value.value())?;
            if visit(row).is_break() {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn first(&self, from: Seq) -> Result<Option<Item<()>>, StoreError> {
        let mut first = None;
        self.scan(from, &mut |row| {
            first = Some(row.item);
            ControlFlow::Break(())
        })?;
        Ok(first)
    }

    /// The last item's arrival number and deadline.
    pub(crate) fn last(&self) -> Result<Option<(Seq, Timestamp)>, StoreError> {
        self.items(Seq::ZERO)?.next_back().map(|row| seq_and_deadline(row?)).transpose()
    }

    /// What lies in the queue from `from` on.
    pub(crate) fn usage_from(&self, row: &QueueRow, from: Seq) -> Result<Usage, StoreError> {
        let mut usage = Usage::ZERO;
        let mut block = None;
        self.scan(from, &mut |item| {
            let item_block = item.place / BLOCK_ITEMS;
            if *block.get_or_insert(item_block) != item_block {
                return ControlFlow::Break(());
            }
            usage = usage.plus(Usage::of(item.item.payload_bytes));
            ControlFlow::Continue(())
        })?;
        let open = row.next_place / BLOCK_ITEMS;
        let Some(block) = block.filter(|block| *block < open) else { return Ok(usage) };
        let later =
            schema::block_key(self.queue, block.saturating_add(1))..schema::block_key(self.queue, u64::MAX);
        for row in self.index.range::<&[u8]>(later.start.as_slice()..later.end.as_slice())? {
            usage = usage.plus(schema::decode_usage(row?.1.value())?);
        }
        Ok(usage.plus(row.open_block))
    }

    /// Where the live part begins at `now`.
    pub(crate) fn front(&self, row: &QueueRow, now: Timestamp) -> Result<Front, StoreError> {
        if row.due.is_none_or(|due| now < due) {
            return Ok(Front::default());
        }
        let Some(first) = self.first(Seq::ZERO)?.filter(|item| !item.is_live(now)) else {
            return Ok(Front::default());
        };
        let (last, last_deadline) = self.last()?.ok_or(StoreError::Damaged("a queue lost its last item"))?;
        if last_deadline <= now {
            return Ok(Front { live_from: last.next(), expired: row.usage });
        }
        let live_from = self.first_live(first.seq, last, now)?;
        Ok(Front { live_from, expired: row.usage.minus(self.usage_from(row, live_from)?) })
    }

    /// Finds the first live item between one that is expired and one that is live.
    fn first_live(&self, mut expired: Seq, mut live: Seq, now: Timestamp) -> Result<Seq, StoreError> {
        while expired.next() < live {
            let middle = Seq::new(u64::midpoint(expired.as_u64(), live.as_u64()));
            let probe = self.items(middle)?.next();
            let (seq, deadline) =
                seq_and_deadline(probe.ok_or(StoreError::Damaged("a queue lost its last item"))??)?;
            if now < deadline {
                live = middle;
            } else {
                expired = seq;
            }
        }
        Ok(live)
    }

    fn items(&self, from: Seq) -> Result<redb::Range<'_, &'static [u8], &'static [u8]>, StoreError> {
        let start = schema::item_key(self.queue, from);
        let end = schema::key(self.queue, schema::Tag::Trace, &[]);
        Ok(self.index.range::<&[u8]>(start.as_slice()..end.as_slice())?)
    }
}

/// The read half of the seam, over whatever has `find` and `rows` for queues and a table of `bodies`: the two views of
/// the store cannot disagree. (A trait of ours could not be given relay-core's for all its implementors.)
macro_rules! impl_read_tx {
    ($view:ty) => {
        impl relay_core::ReadTx for $view {
            type Error = StoreError;
            type Body = ();

            fn usage(&self, recipient: &Recipient) -> Result<Usage, StoreError> {
                Ok(self.find(recipient)?.map_or(Usage::ZERO, |(_, row)| row.usage))
            }

            fn locate(&self, recipient: &Recipient, id: ItemId) -> Result<Option<Trace>, StoreError> {
                let Some((queue, _)) = self.find(recipient)? else { return Ok(None) };
                self.rows(queue).locate(id)
            }

            fn scan(
                &self,
                recipient: &Recipient,
                from: Seq,
                visit: &mut dyn FnMut(Item<()>) -> ControlFlow<()>,
            ) -> Result<(), StoreError> {
                let Some((queue, _)) = self.find(recipient)? else { return Ok(()) };
                self.rows(queue).scan(from, &mut |row| visit(row.item))
            }

            fn last_deadline(&self, recipient: &Recipient) -> Result<Option<Timestamp>, StoreError> {
                let Some((queue, _)) = self.find(recipient)? else { return Ok(None) };
                Ok(self.rows(queue).last()?.map(|(_, deadline)| deadline))
            }

            fn has_payload(&self, _: &Recipient, seq: Seq, payload: &[u8]) -> Result<bool, StoreError> {
                let body =
                    self.bodies.get(seq.as_u64())?.ok_or(StoreError::Damaged("an item has no body"))?;
                Ok(body.value() == payload)
            }

            fn usage_from(&self, recipient: &Recipient, from: Seq) -> Result<Usage, StoreError> {
                let Some((queue, row)) = self.find(recipient)? else { return Ok(Usage::ZERO) };
                self.rows(queue).usage_from(&row, from)
            }

            fn front(&self, recipient: &Recipient, now: Timestamp) -> Result<Front, StoreError> {
                let Some((queue, row)) = self.find(recipient)? else { return Ok(Front::default()) };
                self.rows(queue).front(&row, now)
            }
        }
    };
}

pub(crate) use impl_read_tx;

type Row<'a> = (AccessGuard<'a, &'static [u8]>, AccessGuard<'a, &'static [u8]>);

fn seq_and_deadline((key, value): Row<'_>) -> Result<(Seq, Timestamp), StoreError> {
    Ok((schema::decode_item_key(key.value())?, ItemRow::decode_deadline(value.value())?))
}
