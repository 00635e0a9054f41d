//! The row of an item, and parts of it that can be decoded alone.

use relay_core::{Chunk, Item, ItemId, Kind, MessageId, Queued, Seq, Timestamp};
use relay_journal::Location;

use super::fields::{Fields, put_location, put_number, put_numbers, put_text};
use super::segments::is_blob;
use crate::error::StoreError;

/// Marks the chunk index of an item whose own deadline follows, because it is before its bound.
const EARLY: u64 = 1 << 32;

/// Both ends of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The first item. Rows of items before it are dead.
    pub(crate) first: End,
    /// The last item.
    pub(crate) last: End,
}

/// An item at the end of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) seq: Seq,
    /// The item and all before it are expired from here on: see [`ItemRow::bound`].
    pub(crate) bound: Timestamp,
}

/// An item as the rules know it, its position in the queue, and the location of its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ItemRow {
    /// Stored in the key.
    pub(crate) seq: Seq,
    pub(crate) id: ItemId,
    /// The item is expired from here on.
    pub(crate) deadline: Timestamp,
    /// Its bound, if that is later than its deadline: see [`ItemRow::bound`].
    pub(crate) raised: Option<Timestamp>,
    pub(crate) payload_bytes: u64,
    /// Its position in a spilled queue; otherwise 0.
    pub(crate) position: u64,
    /// The frame of its record, or of its blob if it has one.
    pub(crate) location: Location,
    /// The other fields of an item with a blob. Without a blob, the record contains them.
    pub(crate) blob: Option<Box<BlobMeta>>,
}

/// The fields of an item that the rules do not need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobMeta {
    /// When its push was accepted.
    pub(crate) arrival: Timestamp,
    /// The length of the whole message, as the sender gave it.
    pub(crate) total_len: u64,
    /// The time by the sender's clock.
    pub(crate) sent_ms: u64,
    /// The number of chunks of the message.
    pub(crate) chunk_count: u32,
    /// The kind of the payload, as the sender gave it.
    pub(crate) kind: Kind,
}

#[cfg(test)]
impl Ends {
    /// The ends of a queue with these items, which are in order.
    pub(crate) fn of(items: &[ItemRow]) -> Option<Self> {
        let ends = items.first().zip(items.last());
        ends.map(|(first, last)| Self { first: first.as_end(), last: last.as_end() })
    }
}

impl ItemRow {
    /// The row of an item whose record or blob is at `location`, with position 0.
    pub(crate) fn new<B>(item: &Item<B>, location: Location) -> Self {
        let blob = is_blob(location.segment).then(|| BlobMeta::of(item).into());
        let (seq, id, deadline, payload_bytes) = (item.seq, item.id(), item.deadline, item.payload_bytes);
        Self { seq, id, deadline, raised: None, payload_bytes, position: 0, location, blob }
    }

    /// When the item and all before it have expired: its deadline, or the bound of the item before
    /// it if that is later. So bounds never decrease along a queue, and a binary search finds the
    /// end of what has expired.
    pub(crate) fn bound(&self) -> Timestamp {
        self.raised.unwrap_or(self.deadline)
    }

    /// The same item behind one with the bound `before`.
    #[must_use]
    pub(crate) fn behind(self, before: Option<Timestamp>) -> Self {
        let bound = before.map_or(self.bound(), |before| before.max(self.bound()));
        Self { raised: (bound > self.deadline).then_some(bound), ..self }
    }

    /// Whether the item expires before one in front of it.
    pub(crate) const fn is_early(&self) -> bool {
        self.raised.is_some()
    }

    /// Encodes it as the row of a spilled item.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(if self.blob.is_some() { 96 } else { 48 });
        put_numbers(&mut bytes, [self.bound().as_ms(), self.position]);
        self.encode_rest(&mut bytes);
        bytes
    }

    /// Encodes everything except seq, bound and position.
    pub(super) fn encode_rest(&self, bytes: &mut Vec<u8>) {
        put_number(bytes, self.payload_bytes);
        put_location(bytes, self.location);
        let early = if self.is_early() { EARLY } else { 0 };
        put_number(bytes, u64::from(self.id.chunk_index) | early);
        bytes.extend_from_slice(self.id.message_id.as_bytes());
        if self.is_early() {
            put_number(bytes, self.deadline.as_ms());
        }
        if let Some(blob) = &self.blob {
            let BlobMeta { arrival, total_len, sent_ms, chunk_count, kind } = &**blob;
            put_numbers(bytes, [arrival.as_ms(), *total_len, *sent_ms, u64::from(*chunk_count)]);
            put_text(bytes, kind.as_str());
        }
    }

    /// Decodes the row of a spilled item.
    pub(crate) fn decode(seq: Seq, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut row = Fields::new(bytes, "item");
        let (bound, position) = (row.timestamp()?, row.number()?);
        let item = Self::decode_rest(&mut row, seq, bound, position)?;
        row.end(item)
    }

    /// Decodes what [`ItemRow::encode_rest`] wrote.
    pub(super) fn decode_rest(
        row: &mut Fields<'_>,
        seq: Seq,
        bound: Timestamp,
        position: u64,
    ) -> Result<Self, StoreError> {
        let payload_bytes = row.number()?;
        let (location, chunk) = (row.location()?, row.number()?);
        let is_early = chunk & EARLY != 0;
        let chunk_index = u32::try_from(chunk & !EARLY).map_err(|_| StoreError::Corrupted("item: chunk"))?;
        let id = ItemId { message_id: MessageId::from_bytes(row.take()?), chunk_index };
        let deadline = if is_early { row.timestamp()? } else { bound };
        if is_early && deadline >= bound {
            return Err(StoreError::Corrupted("item: deadline"));
        }
        let raised = is_early.then_some(bound);
        let blob = is_blob(location.segment).then(|| BlobMeta::decode(row, chunk_index));
        let blob = blob.transpose()?.map(Box::new);
        Ok(Self { seq, id, deadline, raised, payload_bytes, position, location, blob })
    }

    /// The item as an end of its queue.
    pub(crate) fn as_end(&self) -> End {
        End { seq: self.seq, bound: self.bound() }
    }

    /// Decodes only the position and the length of the payload.
    pub(crate) fn decode_weight(_: Seq, bytes: &[u8]) -> Result<(u64, u64), StoreError> {
        let mut row = Fields::new(bytes, "item");
        let [_bound, position, payload_bytes] = [row.number()?, row.number()?, row.number()?];
        Ok((position, payload_bytes))
    }

    /// Decodes only the item as an end of its queue, and the length of the payload.
    pub(crate) fn decode_end(seq: Seq, bytes: &[u8]) -> Result<(End, u64), StoreError> {
        let mut row = Fields::new(bytes, "item");
        let (bound, _position, payload_bytes) = (row.timestamp()?, row.number()?, row.number()?);
        Ok((End { seq, bound }, payload_bytes))
    }

    /// Decodes only the bound.
    pub(crate) fn decode_bound(bytes: &[u8]) -> Result<Timestamp, StoreError> {
        Fields::new(bytes, "item").timestamp()
    }
}

impl BlobMeta {
    fn of<B>(item: &Item<B>) -> Self {
        Self {
            arrival: item.arrival,
            total_len: item.total_len,
            sent_ms: item.sent_ms,
            chunk_count: item.chunk.count(),
            kind: item.kind.clone(),
        }
    }

    fn decode(row: &mut Fields<'_>, chunk_index: u32) -> Result<Self, StoreError> {
        let (arrival, total_len, sent_ms) = (row.timestamp()?, row.number()?, row.number()?);
        let chunk_count = row.small()?;
        Chunk::new(chunk_index, chunk_count).map_err(|_| StoreError::Corrupted("item: chunk"))?;
        let kind = Kind::parse(row.text()?).map_err(|_| StoreError::Corrupted("item: kind"))?;
        Ok(Self { arrival, total_len, sent_ms, chunk_count, kind })
    }
}

impl Queued for ItemRow {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn id(&self) -> ItemId {
        self.id
    }

    fn deadline(&self) -> Timestamp {
        self.deadline
    }

    fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }
}
