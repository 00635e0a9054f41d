//! The row of a queue: its counts, its ends, and its items while they are inline.

use relay_core::{Seq, Timestamp, Usage};

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
/// Added to [`LAYOUT_SPILLED`]: [`QueueRow::early_from`] follows.
const WITH_EARLY: u64 = 1;
/// Added to [`LAYOUT_SPILLED`]: then [`QueueRow::floor`] follows.
const WITH_FLOOR: u64 = 2;
const LAYOUT_MAX: u64 = LAYOUT_SPILLED + WITH_EARLY + WITH_FLOOR;

/// The totals of a queue, and its items while they are inline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueRow {
    /// Its items and their bytes, including expired items that are not removed yet.
    pub(crate) usage: Usage,
    /// The end of the last dedup window of its acked item ids; 0 if there never was one.
    pub(crate) remembers_until: Timestamp,
    /// Its first and its last item; `None` when it is empty.
    pub(crate) ends: Option<Ends>,
    /// No item that expires before one in front of it has an earlier deadline. `None` if there is
    /// no such item.
    pub(crate) early_from: Option<Timestamp>,
    /// Only a spilled queue has one.
    pub(crate) floor: Option<Floor>,
    pub(crate) items: Items,
}

/// The front of a queue that was acked at once, and that the writer removes step by step. Requests
/// see none of its items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floor {
    /// Its last item.
    pub(crate) through: Seq,
    /// When it was acked. Items that had expired by then were not.
    pub(crate) at: Timestamp,
    /// The end of the dedup window of its item ids; `None` if they are not remembered.
    pub(crate) until: Option<Timestamp>,
    /// What is left of it.
    pub(crate) left: Usage,
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

impl Floor {
    /// What `all` is without the rest of the floor.
    pub(crate) fn above(&self, all: Usage) -> Usage {
        difference(all, self.left)
    }

    /// The same floor after an item was removed.
    pub(crate) fn without(self, removed: Usage) -> Self {
        Self { left: difference(self.left, removed), ..self }
    }
}

impl QueueRow {
    /// Whether the queue is empty, and has no rows of acked items.
    pub(crate) fn is_unused(&self) -> bool {
        self.usage.is_empty() && self.remembers_until == Timestamp::default()
    }

    /// Whether the queue is empty, and all dedup windows have ended. A sweep may still have to
    /// remove rows of acked items.
    pub(crate) fn is_forgettable(&self, now: Timestamp) -> bool {
        self.usage.is_empty() && self.remembers_until <= now
    }

    /// When the sweep visits it: when its first item or one that expires early may have expired,
    /// or, when it is empty, at the end of the last dedup window.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let remembers_until = Some(self.remembers_until).filter(|until| *until > Timestamp::default());
        let first = self.ends.map(|ends| ends.first.bound);
        first.map(|first| self.early_from.map_or(first, |early| early.min(first))).or(remembers_until)
    }

    /// The items that requests see, including expired ones that are not removed yet.
    pub(crate) fn visible_usage(&self) -> Usage {
        self.floor.map_or(self.usage, |floor| floor.above(self.usage))
    }

    /// No item before this one is visible to requests.
    pub(crate) fn visible_from(&self) -> Seq {
        let first = self.ends.map_or(Seq::ZERO, |ends| ends.first.seq);
        self.floor.map_or(first, |floor| first.max(floor.through.next()))
    }

    /// Whether items may have expired before one in front of them.
    pub(crate) fn is_early_due(&self, now: Timestamp) -> bool {
        self.early_from.is_some_and(|early| early <= now)
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
                let early = if self.early_from.is_some() { WITH_EARLY } else { 0 };
                let floor = if self.floor.is_some() { WITH_FLOOR } else { 0 };
                put_numbers(&mut bytes, [LAYOUT_SPILLED + early + floor, usage.items, usage.bytes]);
                put_numbers(&mut bytes, [*next, open_block.items, open_block.bytes]);
                for End { seq, bound } in self.ends.iter().flat_map(|ends| [ends.first, ends.last]) {
                    put_numbers(&mut bytes, [seq.as_u64(), bound.as_ms()]);
                }
                put_numbers(&mut bytes, self.early_from.map(Timestamp::as_ms));
                if let Some(floor) = &self.floor {
                    put_floor(&mut bytes, floor);
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
            layout @ LAYOUT_SPILLED..=LAYOUT_MAX => {
                let (usage, next, open_block) = (row.usage()?, row.number()?, row.usage()?);
                let ends = Some(Ends { first: end(&mut row)?, last: end(&mut row)? });
                let with = layout - LAYOUT_SPILLED;
                let early_from = (with & WITH_EARLY != 0).then(|| row.timestamp()).transpose()?;
                let floor = (with & WITH_FLOOR != 0).then(|| floor(&mut row)).transpose()?;
                let items = Items::Spilled(Positions { next, open_block });
                Self { usage, remembers_until, ends, early_from, floor, items }
            }
            _ => return Err(StoreError::Corrupted("queue: layout")),
        };
        row.end(decoded)
    }

    /// A queue with these inline items.
    pub(crate) fn holding(items: PackedItems) -> Self {
        let usage = items.iter().map(|item| Usage::of(item.payload_bytes)).sum();
        let (ends, early_from) = (items.ends(), items.early_from());
        let remembers_until = Timestamp::default();
        Self { usage, remembers_until, ends, early_from, floor: None, items: Items::Inline(items) }
    }
}

impl Default for Items {
    fn default() -> Self {
        Self::Inline(PackedItems::default())
    }
}

fn end(row: &mut Fields<'_>) -> Result<End, StoreError> {
    Ok(End { seq: row.seq()?, bound: row.timestamp()? })
}

/// What `all` is without `part`. After corruption, that may not be a part of it.
pub(crate) fn difference(all: Usage, part: Usage) -> Usage {
    Usage { items: all.items.saturating_sub(part.items), bytes: all.bytes.saturating_sub(part.bytes) }
}

pub(super) fn put_floor(bytes: &mut Vec<u8>, floor: &Floor) {
    let Floor { through, at, until, left } = floor;
    // 0 means none: no dedup window ends at 0.
    let until = until.map_or(0, Timestamp::as_ms);
    put_numbers(bytes, [through.as_u64(), at.as_ms(), until, left.items, left.bytes]);
}

pub(super) fn floor(fields: &mut Fields<'_>) -> Result<Floor, StoreError> {
    let (through, at, until) = (fields.seq()?, fields.timestamp()?, fields.timestamp()?);
    Ok(Floor { through, at, until: Some(until).filter(|until| until.as_ms() != 0), left: fields.usage()? })
}
