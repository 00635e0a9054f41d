//! The row of an item, and the parts of it that are read alone.

use relay_core::{Chunk, Item, ItemId, Kind, MessageId, Queued, Seq, Timestamp};
use relay_journal::Location;

use super::fields::{Fields, put_number};
use super::segments::is_payload;
use crate::error::StoreError;

/// The two ends of a queue. Deadlines never decrease in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The first item. The sweep looks at the queue by its deadline. Rows of items in front of it
    /// are dead.
    pub(crate) first: End,
    /// The last item.
    pub(crate) last: End,
}

/// An item at the end of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Its arrival number.
    pub(crate) seq: Seq,
    /// From when on it is gone.
    pub(crate) deadline: Timestamp,
}

/// An item as the rules know it, its place in the queue, and where its payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ItemRow {
    /// Its arrival number, which stands in the key.
    pub(crate) seq: Seq,
    /// Its name.
    pub(crate) id: ItemId,
    /// From when on it is gone.
    pub(crate) deadline: Timestamp,
    /// The length of its payload.
    pub(crate) payload_bytes: u64,
    /// Its place in a queue that holds many; otherwise 0.
    pub(crate) position: u64,
    /// Where its record lies, or its payload if that lies aside.
    pub(crate) location: Location,
    /// What else there is to tell, if its payload lies aside. Otherwise the record tells it.
    pub(crate) blob: Option<Box<BlobMeta>>,
}

/// What was told of an item beside what the rules know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobMeta {
    /// When its push was accepted.
    pub(crate) arrival: Timestamp,
    /// The sender's word for the length of the whole message.
    pub(crate) total_len: u64,
    /// The sender's clock.
    pub(crate) sent_ms: u64,
    /// Of how many parts it is one.
    pub(crate) chunk_count: u32,
    /// The sender's word for the payload.
    pub(crate) kind: Kind,
}

#[cfg(test)]
impl Ends {
    /// Of these items, which are in order.
    pub(crate) fn of(items: &[ItemRow]) -> Option<Self> {
        let ends = items.first().zip(items.last());
        ends.map(|(first, last)| Self { first: first.as_end(), last: last.as_end() })
    }
}

impl ItemRow {
    /// The row of an item that lies at `location`, at the end of a queue that gives it its place.
    pub(crate) fn new<B>(item: &Item<B>, location: Location) -> Self {
        let blob = is_payload(location.segment).then(|| BlobMeta::of(item).into());
        let (seq, id, deadline, payload_bytes) = (item.seq, item.id(), item.deadline, item.payload_bytes);
        Self { seq, id, deadline, payload_bytes, position: 0, location, blob }
    }

    /// As a row of its own.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(if self.blob.is_some() { 96 } else { 48 });
        put_number(&mut bytes, self.deadline.as_ms());
        put_number(&mut bytes, self.position);
        self.encode_rest(&mut bytes);
        bytes
    }

    /// All but its number, its deadline and its place.
    pub(crate) fn encode_rest(&self, bytes: &mut Vec<u8>) {
        for number in [
            self.payload_bytes,
            u64::from(self.location.segment),
            u64::from(self.location.offset),
            u64::from(self.location.length),
            u64::from(self.id.chunk_index),
        ] {
            put_number(bytes, number);
        }
        bytes.extend_from_slice(self.id.message_id.as_bytes());
        if let Some(blob) = &self.blob {
            let BlobMeta { arrival, total_len, sent_ms, chunk_count, kind } = &**blob;
            let kind = kind.as_str().as_bytes();
            for number in [arrival.as_ms(), *total_len, *sent_ms, u64::from(*chunk_count), kind.len() as u64]
            {
                put_number(bytes, number);
            }
            bytes.extend_from_slice(kind);
        }
    }

    /// From a row of its own.
    pub(crate) fn decode(seq: Seq, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut row = Fields::new(bytes, "item");
        let (deadline, position) = (Timestamp::from_ms(row.number()?), row.number()?);
        let item = Self::decode_rest(&mut row, seq, deadline, position)?;
        row.end(item)
    }

    /// What [`ItemRow::encode_rest`] wrote.
    pub(crate) fn decode_rest(
        row: &mut Fields<'_>,
        seq: Seq,
        deadline: Timestamp,
        position: u64,
    ) -> Result<Self, StoreError> {
        let payload_bytes = row.number()?;
        let location = Location { segment: row.small()?, offset: row.small()?, length: row.small()? };
        let chunk_index = row.small()?;
        let id = ItemId { message_id: MessageId::from_bytes(row.take()?), chunk_index };
        let blob = is_payload(location.segment).then(|| BlobMeta::decode(row, chunk_index));
        let blob = blob.transpose()?.map(Box::new);
        Ok(Self { seq, id, deadline, payload_bytes, position, location, blob })
    }

    /// The end of a queue that the item may be.
    pub(crate) const fn as_end(&self) -> End {
        End { seq: self.seq, deadline: self.deadline }
    }

    /// The place and the length of the payload, of a row whose rest is not needed.
    pub(crate) fn decode_weight(_: Seq, bytes: &[u8]) -> Result<(u64, u64), StoreError> {
        let mut row = Fields::new(bytes, "item");
        let [_deadline, position, payload_bytes] = [row.number()?, row.number()?, row.number()?];
        Ok((position, payload_bytes))
    }

    /// The end that the item may be and the length of the payload, of a row whose rest is not
    /// needed.
    pub(crate) fn decode_end(seq: Seq, bytes: &[u8]) -> Result<(End, u64), StoreError> {
        let mut row = Fields::new(bytes, "item");
        let [deadline, _place, payload_bytes] = [row.number()?, row.number()?, row.number()?];
        Ok((End { seq, deadline: Timestamp::from_ms(deadline) }, payload_bytes))
    }

    /// The deadline alone, of a row whose rest is not needed.
    pub(crate) fn decode_deadline(bytes: &[u8]) -> Result<Timestamp, StoreError> {
        Fields::new(bytes, "item").number().map(Timestamp::from_ms)
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
        let arrival = Timestamp::from_ms(row.number()?);
        let (total_len, sent_ms, chunk_count) = (row.number()?, row.number()?, row.small()?);
        Chunk::new(chunk_index, chunk_count).map_err(|_| StoreError::Corrupted("item: chunk"))?;
        let length = row.number()?;
        let kind = std::str::from_utf8(row.slice(length)?).ok().and_then(|text| Kind::parse(text).ok());
        let kind = kind.ok_or(StoreError::Corrupted("item: kind"))?;
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
