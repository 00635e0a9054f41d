//! The records of the journal: what changed, in the order in which it was decided. A replay applies
//! them and decides nothing.
//!
//! The record of an item names its queue by number and by recipient, so that it can be understood
//! alone. Counters are LEB128.

use std::collections::BTreeMap;

use bytes::{Buf as _, Bytes};
use relay_core::{Chunk, Item, ItemId, Kind, MessageId, Recipient, Seq, Timestamp, Usage};
use relay_journal::Location;

use super::segments::{Change, is_payload};
use crate::error::StoreError;
use crate::format::fields::{Fields, put_number};
use crate::format::{BLOCK_ITEMS, ItemRow, LiveCount};

/// The kinds of frames.
pub(crate) mod kind {
    /// An item was put at the end of a queue: see [`ItemRecord`](super::ItemRecord).
    pub(crate) const PUSHED: u8 = 1;
    /// The same item, copied out of an older segment.
    pub(crate) const MOVED: u8 = 2;
    /// Items were taken out of a queue: see [`Removed`](super::Removed).
    pub(crate) const REMOVED: u8 = 3;
    /// What had expired was taken out of a queue: see [`Trimmed`](super::Trimmed).
    pub(crate) const TRIMMED: u8 = 4;
    /// A queue that held nothing was forgotten: its number.
    pub(crate) const DROPPED: u8 = 5;
    /// As `PUSHED`, of an item whose payload lies aside: see [`payload`](crate::io::payload).
    pub(crate) const PUSHED_ASIDE: u8 = 6;
    /// A payload, in a file of its own and not in the journal.
    pub(crate) const PAYLOAD: u8 = 7;
    /// Nothing: it fills the page that a batch ends in.
    pub(crate) const FILL: u8 = 8;
}

/// An item with its payload, as it lies in the journal. Borrows from the frame.
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

/// Whose item it is that is read by its place. Its record must say the same: a row that leads to
/// the record of somebody else must not give his mail away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    /// The queue that the row of the item is about.
    pub(crate) queue: u64,
    /// Who asks, or who that queue belongs to.
    pub(crate) recipient: &'a Recipient,
}

/// Items that were taken out of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) queue: u64,
    /// How long the slots are that names are put in.
    pub(crate) slot_ms: u64,
    /// Which ones, and until when the name of each is remembered; `None` if it is not.
    pub(crate) items: Vec<(Seq, Option<Timestamp>)>,
}

/// The front of a queue that had expired and was taken out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub(crate) queue: u64,
    /// When that was.
    pub(crate) now: Timestamp,
    /// The last item of it.
    pub(crate) through: Seq,
    /// What it came to, if its items had rows of their own, which nobody reads again.
    pub(crate) sum: Option<FrontSum>,
}

/// What the items at the front of a queue come to, where they have rows of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrontSum {
    /// The first of them.
    pub(crate) first: Seq,
    /// What of it lies in which block of the queue.
    pub(crate) blocks: BTreeMap<u64, Usage>,
    /// How many live frames each segment has of it, and how many bytes these take.
    pub(crate) segments: BTreeMap<u32, LiveCount>,
}

/// The record of an item, but for its payload, which follows.
pub(crate) fn item_head<B>(queue: u64, recipient: &Recipient, item: &Item<B>) -> Vec<u8> {
    let (kind, recipient) = (item.kind.as_str(), recipient.as_str());
    let mut bytes = Vec::with_capacity(64 + kind.len() + recipient.len());
    for number in [
        queue,
        item.seq.as_u64(),
        item.deadline.as_ms(),
        item.arrival.as_ms(),
        item.total_len,
        item.sent_ms,
        u64::from(item.chunk.index()),
        u64::from(item.chunk.count()),
    ] {
        put_number(&mut bytes, number);
    }
    bytes.extend_from_slice(item.message_id.as_bytes());
    for text in [kind, recipient] {
        put_number(&mut bytes, text.len() as u64);
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

impl<'a> ItemRecord<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, StoreError> {
        let mut record = Fields::new(body, "record of an item");
        let found = Self::parse_head(&mut record)?;
        Ok(Self { payload_bytes: record.rest_bytes(), ..found })
    }

    /// What [`item_head`] made, from the front of a record.
    pub(crate) fn parse_head(record: &mut Fields<'a>) -> Result<Self, StoreError> {
        let (queue, seq) = (record.number()?, Seq::new(record.number()?));
        let deadline = Timestamp::from_ms(record.number()?);
        let arrival = Timestamp::from_ms(record.number()?);
        let (total_len, sent_ms) = (record.number()?, record.number()?);
        let (chunk_index, chunk_count) = (record.small()?, record.small()?);
        let message_id = MessageId::from_bytes(record.take()?);
        let (kind, recipient) = (borrowed_text(record)?, borrowed_text(record)?);
        Ok(Self {
            queue,
            seq,
            deadline,
            arrival,
            total_len,
            sent_ms,
            chunk_index,
            chunk_count,
            message_id,
            kind,
            recipient,
            payload_bytes: 0,
        })
    }

    pub(crate) fn recipient(&self) -> Result<Recipient, StoreError> {
        Recipient::parse(self.recipient).map_err(|_| StoreError::Corrupted("record of an item: recipient"))
    }

    /// Its row, if it or its payload lies at `location`.
    pub(crate) fn row(&self, location: Location) -> Result<ItemRow, StoreError> {
        // What it tells beside that is needed only of a payload that lies aside.
        if is_payload(location.segment) {
            return Ok(ItemRow::new(&self.item(&mut None)?, location));
        }
        let id = self.id();
        let (seq, deadline, payload_bytes) = (self.seq, self.deadline, self.payload_bytes as u64);
        Ok(ItemRow { seq, id, deadline, payload_bytes, position: 0, location, blob: None })
    }

    /// The item. Its kind may be the same as that of the item before: most are.
    pub(crate) fn item(&self, kind_before: &mut Option<Kind>) -> Result<Item<()>, StoreError> {
        let chunk = Chunk::new(self.chunk_index, self.chunk_count);
        let kind = match kind_before {
            Some(kind) if kind.as_str() == self.kind => kind.clone(),
            _ => {
                let kind = Kind::parse(self.kind);
                kind_before
                    .insert(kind.map_err(|_| StoreError::Corrupted("record of an item: kind"))?)
                    .clone()
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

    /// Whether it is the record of the owner's item `seq` called `id`.
    pub(crate) fn is_of(&self, owner: Owner<'_>, seq: Seq, id: ItemId) -> bool {
        self.is_owned_by(owner) && self.seq == seq && self.id() == id
    }

    fn is_owned_by(&self, owner: Owner<'_>) -> bool {
        self.queue == owner.queue && self.recipient == owner.recipient.as_str()
    }

    /// The record of the owner's item `seq` called `id`, if `body` is that.
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

/// The payload, which is the end of `body`.
pub(crate) fn payload_of(mut body: Bytes, payload_bytes: usize) -> Bytes {
    let head_bytes = body.len().saturating_sub(payload_bytes);
    body.advance(head_bytes);
    body
}

fn borrowed_text<'a>(record: &mut Fields<'a>) -> Result<&'a str, StoreError> {
    let length = record.number()?;
    let bytes = record.slice(length)?;
    std::str::from_utf8(bytes).map_err(|_| StoreError::Corrupted("record of an item: text"))
}

impl Removed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + 12 * self.items.len());
        put_number(&mut bytes, self.queue);
        put_number(&mut bytes, self.slot_ms);
        for (seq, until) in &self.items {
            put_number(&mut bytes, seq.as_u64());
            // Nothing is remembered until 0: a dedup window ends after it began.
            put_number(&mut bytes, until.map_or(0, Timestamp::as_ms));
        }
        bytes
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, StoreError> {
        let mut record = Fields::new(body, "record of a removal");
        let (queue, slot_ms) = (record.number()?, record.number()?);
        let mut removed = Self { queue, slot_ms, items: Vec::new() };
        while record.rest_bytes() > 0 {
            let seq = Seq::new(record.number()?);
            let until = Some(record.number()?).filter(|until| *until != 0);
            removed.items.push((seq, until.map(Timestamp::from_ms)));
        }
        Ok(removed)
    }
}

impl Trimmed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        put_number(&mut bytes, self.queue);
        put_number(&mut bytes, self.now.as_ms());
        put_number(&mut bytes, self.through.as_u64());
        let Some(FrontSum { first, blocks, segments }) = &self.sum else { return bytes };
        put_number(&mut bytes, first.as_u64());
        put_number(&mut bytes, blocks.len() as u64);
        for (block, usage) in blocks {
            [*block, usage.items, usage.bytes].into_iter().for_each(|number| put_number(&mut bytes, number));
        }
        for (segment, live) in segments {
            let numbers = [u64::from(*segment), live.items, live.bytes];
            numbers.into_iter().for_each(|number| put_number(&mut bytes, number));
        }
        bytes
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, StoreError> {
        let mut record = Fields::new(body, "record of what had expired");
        let (queue, now) = (record.number()?, Timestamp::from_ms(record.number()?));
        let mut trimmed = Self { queue, now, through: Seq::new(record.number()?), sum: None };
        if record.rest_bytes() == 0 {
            return Ok(trimmed);
        }
        let mut sum = FrontSum { first: Seq::new(record.number()?), ..FrontSum::default() };
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

impl FrontSum {
    /// Adds the next item.
    pub(crate) fn add(&mut self, item: &ItemRow) {
        if self.blocks.is_empty() {
            self.first = item.seq;
        }
        let usage = self.blocks.entry(item.position / BLOCK_ITEMS).or_default();
        *usage = usage.plus(Usage::of(item.payload_bytes));
        let live = self.segments.entry(item.location.segment).or_default();
        *live = live.changed(Change::added(item.location));
    }

    pub(crate) fn usage(&self) -> Usage {
        self.blocks.values().copied().sum()
    }
}

/// The record of a queue that was forgotten.
pub(crate) fn dropped(queue: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    put_number(&mut bytes, queue);
    bytes
}

/// The queue of what [`dropped`] made.
pub(crate) fn parse_dropped(body: &[u8]) -> Result<u64, StoreError> {
    let mut record = Fields::new(body, "record of a forgotten queue");
    let queue = record.number()?;
    record.end(queue)
}

#[cfg(test)]
#[path = "../tests/record.rs"]
mod tests;
