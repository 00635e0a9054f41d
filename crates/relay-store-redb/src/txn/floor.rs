//! The floor of a queue: a long front that was acked at once. It takes little work to set, and
//! hides its items from requests. The writer then removes them step by step, as acks do.

use std::ops::ControlFlow;
use std::sync::Arc;

use relay_core::{Seq, Timestamp, Usage};

use crate::error::StoreError;
use crate::format::{Floor, ItemRow, Key, difference};
use crate::txn::queue_handle::OpenQueue;
use crate::txn::write::WriteTxn;
use crate::version::queue_reader::QueueRows;

impl WriteTxn<'_> {
    /// Sets the floor of a queue, or removes it if nothing of it is left.
    pub(crate) fn set_floor(&mut self, open: &mut OpenQueue, floor: Floor) {
        let is_new = open.row.floor.is_none();
        let floor = Some(floor).filter(|floor| !floor.left.is_empty());
        if is_new != floor.is_none() {
            self.put(Key::floor(open.number), floor.map(|_| Vec::new()));
        }
        let row = Arc::make_mut(&mut open.row);
        row.floor = floor;
        let until = floor.and_then(|floor| floor.until).unwrap_or_default();
        row.remembers_until = row.remembers_until.max(until);
    }
}

impl QueueRows<'_> {
    /// The first items of the queue up to `through`, at most `max`.
    pub(crate) fn first_items(&self, through: Seq, max: usize) -> Result<Vec<ItemRow>, StoreError> {
        let mut items = Vec::new();
        self.scan(Seq::ZERO, &mut |item| {
            if item.seq > through || items.len() == max {
                return ControlFlow::Break(());
            }
            items.push(item);
            ControlFlow::Continue(())
        })?;
        Ok(items)
    }

    /// The usage of all items up to `through`, and of those among them that have expired at `now`.
    /// The queue has no floor.
    pub(crate) fn front_usage(&self, through: Seq, now: Timestamp) -> Result<(Usage, Usage), StoreError> {
        let all = match self.usage_from(through.next()) {
            // A count that is wrong must not keep items in the queue.
            Err(StoreError::Corrupted(_)) => self.counted_through(through)?,
            rest => difference(self.row.usage, rest?),
        };
        let front = self.front_by_bounds(now)?;
        if front.live_from > through {
            return Ok((all, all));
        }
        let expired = front.expired.plus(self.expired_early(front.live_from..=through, now)?);
        let expired = Usage { items: expired.items.min(all.items), bytes: expired.bytes.min(all.bytes) };
        Ok((all, expired))
    }

    /// The usage of all items up to `through`, counted one by one.
    pub(crate) fn counted_through(&self, through: Seq) -> Result<Usage, StoreError> {
        let mut usage = Usage::ZERO;
        self.scan(Seq::ZERO, &mut |item| {
            if item.seq > through {
                return ControlFlow::Break(());
            }
            usage = usage.plus(Usage::of(item.payload_bytes));
            ControlFlow::Continue(())
        })?;
        Ok(usage)
    }
}
