//! The row of a queue: its counts, its ends, and its items while they are few.

use relay_core::{Seq, Timestamp, Usage};

use super::fields::{Fields, put_number};
use super::item::{End, Ends};
use super::packed_items::PackedItems;
use crate::error::StoreError;

/// How many consecutive items of a queue are counted together.
pub(crate) const BLOCK_ITEMS: u64 = 512;

/// A queue that holds so many items gets rows for each of them, and their names, with the next one.
/// Until then they lie in its own row: most queues hold few, and each push, ack or expiry of theirs
/// changes that one row. Two rows of so many take a page, and a checkpoint writes a page for
/// whatever it changes of a queue.
pub(crate) const APART_FROM_ITEMS: usize = 48;

/// And so few that they are taken back into its row.
pub(crate) const SPILLED_UNTIL_ITEMS: u64 = 12;

/// How the items of a queue lie, in its row: see [`Items`].
const LAYOUT_HERE: u64 = 0;
const LAYOUT_APART: u64 = 1;

/// A queue at a glance, and its items while they are few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueRow {
    /// What it holds, expired items that are not reclaimed yet included.
    pub(crate) usage: Usage,
    /// When the last acked name is over that it remembers; 0 if it never remembered one.
    pub(crate) remembers_until: Timestamp,
    /// Its first and its last item; none when it holds nothing.
    pub(crate) ends: Option<Ends>,
    pub(crate) items: Items,
}

/// Where the items of a queue are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Items {
    /// In its row, in order: all of them.
    Inline(PackedItems),
    /// In rows of their own: see [`APART_FROM_ITEMS`].
    Spilled(Positions),
}

/// Where the items of a queue that holds many come to lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    /// The place that the next item gets. They are counted from the first item that got a row of
    /// its own.
    pub(crate) next: u64,
    /// What is still there of the last block, the one that `next` lies in.
    pub(crate) open_block: Usage,
}

impl QueueRow {
    /// Whether there is nothing at `now` that has to be remembered.
    pub(crate) fn is_forgettable(&self, now: Timestamp) -> bool {
        self.usage.is_empty() && self.remembers_until <= now
    }

    /// When the sweep looks at it: as its first item goes, or, when it holds nothing, as the last
    /// acked name is over.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let remembers_until = Some(self.remembers_until).filter(|until| *until > Timestamp::default());
        self.ends.map(|ends| ends.first.deadline).or(remembers_until)
    }

    /// The items, if they are in the row.
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
                put_number(&mut bytes, LAYOUT_HERE);
                bytes.extend_from_slice(items.bytes());
            }
            Items::Spilled(positions) => {
                put_number(&mut bytes, LAYOUT_APART);
                let (usage, block) = (self.usage, positions.open_block);
                for number in [usage.items, usage.bytes, positions.next, block.items, block.bytes] {
                    put_number(&mut bytes, number);
                }
                for End { seq, deadline } in self.ends.iter().flat_map(|ends| [ends.first, ends.last]) {
                    put_number(&mut bytes, seq.as_u64());
                    put_number(&mut bytes, deadline.as_ms());
                }
            }
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut row = Fields::new(bytes, "queue");
        let remembers_until = Timestamp::from_ms(row.number()?);
        let decoded = match row.number()? {
            LAYOUT_HERE => Self { remembers_until, ..Self::holding(PackedItems::decode(&mut row)?) },
            LAYOUT_APART => {
                let (usage, next, open_block) = (row.usage()?, row.number()?, row.usage()?);
                let ends = Some(Ends { first: end(&mut row)?, last: end(&mut row)? });
                Self { usage, remembers_until, ends, items: Items::Spilled(Positions { next, open_block }) }
            }
            _ => return Err(StoreError::Corrupted("queue: layout")),
        };
        row.end(decoded)
    }

    /// A queue of these items, in order, in its row.
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
    Ok(End { seq: Seq::new(row.number()?), deadline: Timestamp::from_ms(row.number()?) })
}
