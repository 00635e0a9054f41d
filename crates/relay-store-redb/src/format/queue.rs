//! The row of a queue: its counts, its ends, and its items while they are inline.

use relay_core::{Timestamp, Usage};

use super::fields::{Fields, put_number, put_numbers};
use super::item::{End, Ends};
use super::packed_items::PackedItems;
use crate::error::StoreError;

/// The number of consecutive positions that one block counts.
pub(crate) const BLOCK_ITEMS: u64 = 512;

/// With the next item, a queue of this many items is spilled: each item gets rows of its own. Until
/// then its items are inline. Most queues have few items, and each push, ack or expiry then changes
/// only one row. Two rows of this size take a page, and a checkpoint writes at least a page for any
/// change of a queue.
pub(crate) const SPILL_FROM_ITEMS: usize = 48;

/// At this many items, the items of a spilled queue become inline again.
pub(crate) const INLINE_AGAIN_ITEMS: u64 = 12;

/// The layouts of [`Items`] in a row.
const LAYOUT_INLINE: u64 = 0;
const LAYOUT_SPILLED: u64 = 1;

/// The totals of a queue, and its items while they are inline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueRow {
    /// Its items and their bytes, including expired items that are not removed yet.
    pub(crate) usage: Usage,
    /// The end of the last dedup window of its acked item ids; 0 if there never was one.
    pub(crate) remembers_until: Timestamp,
    /// Its first and its last item; `None` when it is empty.
    pub(crate) ends: Option<Ends>,
    pub(crate) items: Items,
}

/// Where the items of a queue are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Items {
    /// All of them in its row, in order.
    Inline(PackedItems),
    /// In rows of their own: see [`SPILL_FROM_ITEMS`].
    Spilled(Positions),
}

/// The positions of a spilled queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    /// The position of the next item. The first spilled item has position 0.
    pub(crate) next: u64,
    /// The remaining items of the last block, which contains `next`.
    pub(crate) open_block: Usage,
}

impl QueueRow {
    /// Whether the queue is empty, and all dedup windows have ended.
    pub(crate) fn is_forgettable(&self, now: Timestamp) -> bool {
        self.usage.is_empty() && self.remembers_until <= now
    }

    /// When the sweep visits it: at the deadline of its first item, or, when it is empty, at the
    /// end of the last dedup window.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let remembers_until = Some(self.remembers_until).filter(|until| *until > Timestamp::default());
        self.ends.map(|ends| ends.first.deadline).or(remembers_until)
    }

    /// The items, if they are inline.
    pub(crate) const fn inline(&self) -> Option<&PackedItems> {
        match &self.items {
            Items::Inline(items) => Some(items),
            Items::Spilled(_) => None,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(48 + self.inline().map_or(0, |items| items.bytes().len()));
        put_number(&mut bytes, self.remembers_until.as_ms());
        match &self.items {
            Items::Inline(items) => {
                put_number(&mut bytes, LAYOUT_INLINE);
                bytes.extend_from_slice(items.bytes());
            }
            Items::Spilled(Positions { next, open_block }) => {
                let usage = self.usage;
                put_numbers(&mut bytes, [LAYOUT_SPILLED, usage.items, usage.bytes]);
                put_numbers(&mut bytes, [*next, open_block.items, open_block.bytes]);
                for End { seq, deadline } in self.ends.iter().flat_map(|ends| [ends.first, ends.last]) {
                    put_numbers(&mut bytes, [seq.as_u64(), deadline.as_ms()]);
                }
            }
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut row = Fields::new(bytes, "queue");
        let remembers_until = row.timestamp()?;
        let decoded = match row.number()? {
            LAYOUT_INLINE => Self { remembers_until, ..Self::holding(PackedItems::decode(&mut row)?) },
            LAYOUT_SPILLED => {
                let (usage, next, open_block) = (row.usage()?, row.number()?, row.usage()?);
                let ends = Some(Ends { first: end(&mut row)?, last: end(&mut row)? });
                Self { usage, remembers_until, ends, items: Items::Spilled(Positions { next, open_block }) }
            }
            _ => return Err(StoreError::Corrupted("queue: layout")),
        };
        row.end(decoded)
    }

    /// A queue with these inline items.
    pub(crate) fn holding(items: PackedItems) -> Self {
        let usage = items.iter().map(|item| Usage::of(item.payload_bytes)).sum();
        let ends = items.ends();
        Self { usage, remembers_until: Timestamp::default(), ends, items: Items::Inline(items) }
    }
}

impl Default for Items {
    fn default() -> Self {
        Self::Inline(PackedItems::default())
    }
}

fn end(row: &mut Fields<'_>) -> Result<End, StoreError> {
    Ok(End { seq: row.seq()?, deadline: row.timestamp()? })
}
