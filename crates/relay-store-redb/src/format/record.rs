//! The records of the journal: all changes, in the order in which the writer decided them. A replay
//! applies them and decides nothing. The record of an item contains the number and the recipient of
//! its queue, so it can be understood alone. Numbers are LEB128.

use std::collections::BTreeMap;

use bytes::{Buf as _, Bytes};
use relay_core::{Chunk, Item, ItemId, Kind, MessageId, Recipient, Seq, Timestamp, Usage};
use relay_journal::Location;

use super::segments::{LiveChange, is_blob};
use crate::error::StoreError;
use crate::format::fields::{Fields, put_numbers, put_text};
use crate::format::meta::decode_number;
use crate::format::queue::{floor as read_floor, put_floor};
use crate::format::{BLOCK_ITEMS, Floor, ItemRow, LiveCount, encode_number};

/// The kinds of frames.
pub(crate) mod kind {
    /// An item was appended to a queue: see [`ItemRecord`](super::ItemRecord).
    pub(crate) const PUSHED: u8 = 1;
    /// The same item, copied out of an older segment.
    pub(crate) const MOVED: u8 = 2;
    /// Items were removed from a queue: see [`Removed`](super::Removed).
    pub(crate) const REMOVED: u8 = 3;
    /// Expired items were removed from a queue: see [`Trimmed`](super::Trimmed).
    pub(crate) const TRIMMED: u8 = 4;
    /// An empty queue was forgotten. The record is its number.
    pub(crate) const DROPPED: u8 = 5;
    /// As `PUSHED`, with the location of a blob instead of a payload: see
    /// [`payload`](crate::io::payload).
    pub(crate) const PUSHED_BLOB: u8 = 6;
    /// A payload. Only in blob files, never in the main journal.
    pub(crate) const BLOB: u8 = 7;
    /// Fills the last page of a batch, without a meaning.
    pub(crate) const FILL: u8 = 8;
    /// Items that have expired before one in front of them were removed from a queue: see
    /// [`ExpiredEarly`](super::ExpiredEarly).
    pub(crate) const EXPIRED_EARLY: u8 = 9;
    /// A queue has another floor, or none any more: see [`Floored`](super::Floored).
    pub(crate) const FLOORED: u8 = 10;
}

/// An item with its payload, borrowed from its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemRecord<'a> {
    pub(crate) queue: u64,
    pub(crate) seq: Seq,
    pub(crate) deadline: Timestamp,
    pub(crate) arrival: Timestamp,
    total_len: u64,
    sent_ms: u64,
    chunk_index: u32,
    chunk_count: u32,
    message_id: MessageId,
    kind: &'a str,
    recipient: &'a str,
    pub(crate) payload_bytes: usize,
}

/// The owner of an item that is read by its location. The record must name the same owner, so that
/// a wrong row never gives away another recipient's item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    /// The queue that the item's row belongs to.
    pub(crate) queue: u64,
    /// The recipient who asks, or who owns that queue.
    pub(crate) recipient: &'a Recipient,
}

/// Items that were removed from a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) queue: u64,
    /// The length of the slots for acked item ids.
    pub(crate) slot_ms: u64,
    /// The seq of each, and the end of its dedup window; `None` if its item id is not remembered.
    pub(crate) items: Vec<(Seq, Option<Timestamp>)>,
}

/// Expired items that were removed from the front of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub(crate) queue: u64,
    /// The time of the removal.
    pub(crate) now: Timestamp,
    /// The last removed item.
    pub(crate) through: Seq,
    /// The totals of the items, if they were spilled, so that nobody reads their rows again.
    pub(crate) sum: Option<FrontSum>,
}

/// Items that have expired before one in front of them, and were removed from a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExpiredEarly {
    pub(crate) queue: u64,
    /// The time of the removal.
    pub(crate) now: Timestamp,
    /// The earliest deadline of the others; `None` if there are none.
    pub(crate) next: Option<Timestamp>,
    pub(crate) items: Vec<Seq>,
}

/// The floor of a queue. If nothing of it is left, the queue has none any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floored {
    pub(crate) queue: u64,
    pub(crate) floor: Floor,
}

/// The totals of items at the front of a spilled queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrontSum {
    /// The first item.
    pub(crate) first: Seq,
    /// The items in each block.
    pub(crate) blocks: BTreeMap<u64, Usage>,
    /// The live frames of the items in each segment.
    pub(crate) segments: BTreeMap<u32, LiveCount>,
}

/// The record of an item up to its payload, which follows.
pub(crate) fn item_head<B>(queue: u64, recipient: &Recipient, item: &Item<B>) -> Vec<u8> {
    let (kind, recipient) = (item.kind.as_str(), recipient.as_str());
    let mut bytes = Vec::with_capacity(64 + kind.len() + recipient.len());
    put_numbers(
        &mut bytes,
        [
            queue,
            item.seq.as_u64(),
            item.deadline.as_ms(),
            item.arrival.as_ms(),
            item.total_len,
            item.sent_ms,
            u64::from(item.chunk.index()),
            u64::from(item.chunk.count()),
        ],
    );
    bytes.extend_from_slice(item.message_id.as_bytes());
    put_text(&mut bytes, kind);
    put_text(&mut bytes, recipient);
    bytes
}

impl<'a> ItemRecord<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, StoreError> {
        let mut record = Fields::new(body, "record of an item");
        let found = Self::parse_head(&mut record)?;
        Ok(Self { payload_bytes: record.rest_bytes(), ..found })
    }

    /// Parses what [`item_head`] wrote, at the front of a record.
    pub(crate) fn parse_head(record: &mut Fields<'a>) -> Result<Self, StoreError> {
        // Fields are read in this order.
        Ok(Self {
            queue: record.number()?,
            seq: record.seq()?,
            deadline: record.timestamp()?,
            arrival: record.timestamp()?,
            total_len: record.number()?,
            sent_ms: record.number()?,
            chunk_index: record.small()?,
            chunk_count: record.small()?,
            message_id: MessageId::from_bytes(record.take()?),
            kind: record.text()?,
            recipient: record.text()?,
            payload_bytes: 0,
        })
    }

    pub(crate) fn recipient(&self) -> Result<Recipient, StoreError> {
        Recipient::parse(self.recipient).map_err(|_| StoreError::Corrupted("record of an item: recipient"))
    }

    /// The row of the item, if its record or its blob is at `location`.
    pub(crate) fn row(&self, location: Location) -> Result<ItemRow, StoreError> {
        // Only the row of a blob needs the other fields, which take time to parse.
        if is_blob(location.segment) {
            return Ok(ItemRow::new(&self.item(&mut None)?, location));
        }
        let id = self.id();
        let (seq, deadline, payload_bytes) = (self.seq, self.deadline, self.payload_bytes as u64);
        Ok(ItemRow { seq, id, deadline, raised: None, payload_bytes, position: 0, location, blob: None })
    }

    /// The item without its payload. `last_kind` is the kind of the item before, which most items
    /// share.
    pub(crate) fn item(&self, last_kind: &mut Option<Kind>) -> Result<Item<()>, StoreError> {
        let chunk = Chunk::new(self.chunk_index, self.chunk_count);
        let kind = match last_kind {
            Some(kind) if kind.as_str() == self.kind => kind.clone(),
            _ => {
                let kind = Kind::parse(self.kind);
                last_kind.insert(kind.map_err(|_| StoreError::Corrupted("record of an item: kind"))?).clone()
            }
        };
        Ok(Item {
            seq: self.seq,
            message_id: self.message_id,
            chunk: chunk.map_err(|_| StoreError::Corrupted("record of an item: chunk"))?,
            kind,
            total_len: self.total_len,
            sent_ms: self.sent_ms,
            arrival: self.arrival,
            deadline: self.deadline,
            payload_bytes: self.payload_bytes as u64,
            body: (),
        })
    }

    fn id(&self) -> ItemId {
        ItemId { message_id: self.message_id, chunk_index: self.chunk_index }
    }

    /// Whether this is the record of the owner's item with this seq and id.
    pub(crate) fn is_of(&self, owner: Owner<'_>, seq: Seq, id: ItemId) -> bool {
        self.is_owned_by(owner) && self.seq == seq && self.id() == id
    }

    fn is_owned_by(&self, owner: Owner<'_>) -> bool {
        self.queue == owner.queue && self.recipient == owner.recipient.as_str()
    }

    /// Parses the record of the owner's item with this seq and id.
    ///
    /// # Errors
    /// When `body` is not a record of this item.
    pub(crate) fn parse_of(
        body: &'a [u8],
        owner: Owner<'_>,
        seq: Seq,
        id: ItemId,
    ) -> Result<Self, StoreError> {
        let record = Self::parse(body)?;
        if !record.is_owned_by(owner) {
            return Err(StoreError::Corrupted("the index leads to the record of another queue's item"));
        }
        if !record.is_of(owner, seq, id) {
            return Err(StoreError::Corrupted("the index leads to another item's record"));
        }
        Ok(record)
    }
}

/// The payload, which is the last part of `body`.
pub(crate) fn payload_of(mut body: Bytes, payload_bytes: usize) -> Bytes {
    let head_bytes = body.len().saturating_sub(payload_bytes);
    body.advance(head_bytes);
    body
}

impl Removed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + 12 * self.items.len());
        put_numbers(&mut bytes, [self.queue, self.slot_ms]);
        for (seq, until) in &self.items {
            // 0 means none: no dedup window ends at 0.
            put_numbers(&mut bytes, [seq.as_u64(), until.map_or(0, Timestamp::as_ms)]);
        }
        bytes
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, StoreError> {
        let mut record = Fields::new(body, "record of a removal");
        let (queue, slot_ms) = (record.number()?, record.number()?);
        let mut removed = Self { queue, slot_ms, items: Vec::new() };
        while record.rest_bytes() > 0 {
            let (seq, until) = (record.seq()?, record.timestamp()?);
            removed.items.push((seq, Some(until).filter(|until| until.as_ms() != 0)));
        }
        Ok(removed)
    }
}

impl Trimmed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        put_numbers(&mut bytes, [self.queue, self.now.as_ms(), self.through.as_u64()]);
        let Some(FrontSum { first, blocks, segments }) = &self.sum else { return bytes };
        put_numbers(&mut bytes, [first.as_u64(), blocks.len() as u64]);
        for (block, usage) in blocks {
            put_numbers(&mut bytes, [*block, usage.items, usage.bytes]);
        }
        for (segment, live) in segments {
            put_numbers(&mut bytes, [u64::from(*segment), live.items, live.bytes]);
        }
        bytes
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, StoreError> {
        let mut record = Fields::new(body, "record of expired items");
        let (queue, now, through) = (record.number()?, record.timestamp()?, record.seq()?);
        let mut trimmed = Self { queue, now, through, sum: None };
        if record.rest_bytes() == 0 {
            return Ok(trimmed);
        }
        let mut sum = FrontSum { first: record.seq()?, ..FrontSum::default() };
        for _ in 0..record.number()? {
            sum.blocks.insert(record.number()?, record.usage()?);
        }
        while record.rest_bytes() > 0 {
            let segment = record.small()?;
            sum.segments.insert(segment, LiveCount { items: record.number()?, bytes: record.number()? });
        }
        trimmed.sum = Some(sum);
        Ok(trimmed)
    }
}

impl ExpiredEarly {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24 + 6 * self.items.len());
        // 0 means none: no deadline is 0.
        let next = self.next.map_or(0, Timestamp::as_ms);
        put_numbers(&mut bytes, [self.queue, self.now.as_ms(), next]);
        put_numbers(&mut bytes, self.items.iter().map(|seq| seq.as_u64()));
        bytes
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, StoreError> {
        let mut record = Fields::new(body, "record of items that expired early");
        let (queue, now, next) = (record.number()?, record.timestamp()?, record.timestamp()?);
        let next = Some(next).filter(|next| next.as_ms() != 0);
        let mut expired = Self { queue, now, next, items: Vec::new() };
        while record.rest_bytes() > 0 {
            expired.items.push(record.seq()?);
        }
        Ok(expired)
    }
}

impl Floored {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = encode_number(self.queue);
        put_floor(&mut bytes, &self.floor);
        bytes
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, StoreError> {
        let mut record = Fields::new(body, "record of a floor");
        let floored = Self { queue: record.number()?, floor: read_floor(&mut record)? };
        record.end(floored)
    }
}

impl FrontSum {
    /// Adds the next item.
    pub(crate) fn add(&mut self, item: &ItemRow) {
        if self.blocks.is_empty() {
            self.first = item.seq;
        }
        let usage = self.blocks.entry(item.position / BLOCK_ITEMS).or_default();
        *usage = usage.plus(Usage::of(item.payload_bytes));
        let live = self.segments.entry(item.location.segment).or_default();
        *live = live.changed(LiveChange::added(item.location));
    }

    pub(crate) fn usage(&self) -> Usage {
        self.blocks.values().copied().sum()
    }
}

/// The record of a forgotten queue.
pub(crate) fn dropped(queue: u64) -> Vec<u8> {
    encode_number(queue)
}

/// Parses what [`dropped`] wrote.
pub(crate) fn parse_dropped(body: &[u8]) -> Result<u64, StoreError> {
    decode_number(body, "record of a forgotten queue")
}

#[cfg(test)]
#[path = "../tests/record.rs"]
mod tests;
