//! The rows of the store to the byte: how keys are built, how values are written and read. Knows nothing of transactions.
//!
//! All numbers are big-endian, so that the order of bytes is the order of numbers. Recipients appear in two places only: as key
//! of [`QUEUES`], and in the queue's [`Tag::Name`] row. Everything else goes by queue number, and a queue's rows are
//! neighbours in [`INDEX`].

use redb::TableDefinition;
use relay_core::{Chunk, Item, ItemId, Kind, MessageId, Seq, Timestamp, Usage};

use crate::error::StoreError;

/// The format of what is written here; another one is not read.
pub(crate) const FORMAT: u64 = 1;

/// Single numbers: see the `META_` names.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// From recipient to queue number.
pub(crate) const QUEUES: TableDefinition<'_, &str, u64> = TableDefinition::new("queues");
/// The rows of all queues: queue number, [`Tag`], rest.
pub(crate) const INDEX: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("index");
/// From arrival number to payload.
pub(crate) const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");
/// When the sweep looks at a queue: (not later than its first deadline, queue number).
pub(crate) const DUE: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("due");
/// When an acked name is forgotten: end of its time, queue number, item.
pub(crate) const ACKED: TableDefinition<'_, &[u8], ()> = TableDefinition::new("acked");

/// The format of the store.
pub(crate) const META_FORMAT: &str = "format";
/// The last arrival number given away.
pub(crate) const META_LAST_SEQ: &str = "last_seq";
/// The last queue number given away.
pub(crate) const META_LAST_QUEUE: &str = "last_queue";

/// How many consecutive items of a queue are counted together.
pub(crate) const BLOCK_ITEMS: u64 = 512;

/// What a row of [`INDEX`] tells of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// The queue itself: a [`QueueRow`].
    Queue = 0,
    /// Whose it is.
    Name = 1,
    /// An item, by arrival number: an [`ItemRow`].
    Item = 2,
    /// What is known of an item's name: a [`TraceRow`].
    Trace = 3,
    /// How much of a full block of items is still there: a [`Usage`].
    Block = 4,
}

/// A queue at a glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueRow {
    /// What it holds, expired items that are not reclaimed yet included.
    pub(crate) usage: Usage,
    /// How many acked names it remembers.
    pub(crate) acked: u64,
    /// The place that the next item gets. Places count a queue's items from 0, and start anew with the queue.
    pub(crate) next_place: u64,
    /// What is still there of the last block, the one that `next_place` lies in.
    pub(crate) open_block: Usage,
    /// The queue's row in [`DUE`], not later than its first deadline; none when it holds nothing.
    pub(crate) due: Option<Timestamp>,
}

/// An item without its payload and its recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ItemRow {
    /// The item; its arrival number stands in the key.
    pub(crate) item: Item<()>,
    /// Its place in the queue.
    pub(crate) place: u64,
}

/// What is known of an item's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TraceRow {
    /// It lies in the queue.
    Queued(Seq),
    /// It was acked.
    Acked {
        /// The end of the dedup window.
        until: Timestamp,
    },
}

impl QueueRow {
    /// Whether there is nothing that has to be remembered.
    pub(crate) const fn is_forgettable(&self) -> bool {
        self.usage.is_empty() && self.acked == 0
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // A deadline of 0 cannot be told from none; nothing is stored with one, since a TTL is never 0.
        let due = self.due.map_or(0, Timestamp::as_ms);
        let block = self.open_block;
        let numbers =
            [self.usage.items, self.usage.bytes, self.acked, self.next_place, block.items, block.bytes, due];
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut row = Fields { rest: bytes, what: "queue" };
        let decoded = Self {
            usage: row.usage()?,
            acked: row.u64()?,
            next_place: row.u64()?,
            open_block: row.usage()?,
            due: Some(row.u64()?).filter(|due| *due != 0).map(Timestamp::from_ms),
        };
        row.end(decoded)
    }
}

impl ItemRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let item = &self.item;
        let mut bytes = Vec::with_capacity(96);
        for number in [
            item.deadline.as_ms(),
            self.place,
            item.arrival.as_ms(),
            item.payload_bytes,
            item.total_len,
            item.sent_ms,
        ] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&item.chunk.count().to_be_bytes());
        bytes.extend_from_slice(&encode_id(item.id()));
        bytes.extend_from_slice(item.kind.as_str().as_bytes());
        bytes
    }

    pub(crate) fn decode(seq: Seq, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut row = Fields { rest: bytes, what: "item" };
        let deadline = Timestamp::from_ms(row.u64()?);
        let place = row.u64()?;
        let arrival = Timestamp::from_ms(row.u64()?);
        let (payload_bytes, total_len, sent_ms) = (row.u64()?, row.u64()?, row.u64()?);
        let count = row.u32()?;
        let id = row.id()?;
        let kind = std::str::from_utf8(row.rest).ok().and_then(|kind| Kind::parse(kind).ok());
        let kind = kind.ok_or(StoreError::Damaged("item: kind"))?;
        let chunk = Chunk::new(id.chunk_index, count).map_err(|_| StoreError::Damaged("item: chunk"))?;
        let message_id = id.message_id;
        let item = Item {
            seq,
            message_id,
            chunk,
            kind,
            total_len,
            sent_ms,
            arrival,
            deadline,
            payload_bytes,
            body: (),
        };
        Ok(Self { item, place })
    }

    /// The deadline alone, of a row whose rest is not needed.
    pub(crate) fn decode_deadline(bytes: &[u8]) -> Result<Timestamp, StoreError> {
        Fields { rest: bytes, what: "item" }.u64().map(Timestamp::from_ms)
    }
}

impl TraceRow {
    pub(crate) fn encode(self) -> [u8; 9] {
        let (tag, number) = match self {
            Self::Queued(seq) => (1, seq.as_u64()),
            Self::Acked { until } => (2, until.as_ms()),
        };
        let mut bytes = [tag; 9];
        if let Some(rest) = bytes.last_chunk_mut() {
            *rest = number.to_be_bytes();
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut row = Fields { rest: bytes, what: "trace" };
        let decoded = match row.take()? {
            [1] => Self::Queued(Seq::new(row.u64()?)),
            [2] => Self::Acked { until: Timestamp::from_ms(row.u64()?) },
            _ => return Err(StoreError::Damaged("trace: kind")),
        };
        row.end(decoded)
    }
}

pub(crate) fn encode_usage(usage: Usage) -> [u8; 16] {
    (u128::from(usage.items) << 64 | u128::from(usage.bytes)).to_be_bytes()
}

pub(crate) fn decode_usage(bytes: &[u8]) -> Result<Usage, StoreError> {
    let mut row = Fields { rest: bytes, what: "block" };
    let usage = row.usage()?;
    row.end(usage)
}

/// The key of a queue's row: the number of the queue, the tag, the rest.
pub(crate) fn key(queue: u64, tag: Tag, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + rest.len());
    key.extend_from_slice(&queue.to_be_bytes());
    key.push(tag as u8);
    key.extend_from_slice(rest);
    key
}

/// The key of an item by its arrival number.
pub(crate) fn item_key(queue: u64, seq: Seq) -> Vec<u8> {
    key(queue, Tag::Item, &seq.as_u64().to_be_bytes())
}

/// The key of an item's name.
pub(crate) fn trace_key(queue: u64, id: ItemId) -> Vec<u8> {
    key(queue, Tag::Trace, &encode_id(id))
}

/// The key of the count of a block.
pub(crate) fn block_key(queue: u64, block: u64) -> Vec<u8> {
    key(queue, Tag::Block, &block.to_be_bytes())
}

/// The key of an acked name in [`ACKED`].
pub(crate) fn acked_key(until: Timestamp, queue: u64, id: ItemId) -> Vec<u8> {
    let mut key = Vec::with_capacity(36);
    key.extend_from_slice(&until.as_ms().to_be_bytes());
    key.extend_from_slice(&queue.to_be_bytes());
    key.extend_from_slice(&encode_id(id));
    key
}

/// Reads back what [`acked_key`] made.
pub(crate) fn decode_acked_key(key: &[u8]) -> Result<(Timestamp, u64, ItemId), StoreError> {
    let mut row = Fields { rest: key, what: "acked" };
    let decoded = (Timestamp::from_ms(row.u64()?), row.u64()?, row.id()?);
    row.end(decoded)
}

/// Reads the arrival number back from what [`item_key`] made.
pub(crate) fn decode_item_key(key: &[u8]) -> Result<Seq, StoreError> {
    let mut row = Fields { rest: key, what: "item key" };
    let [_, _, _, _, _, _, _, _, _] = row.take()?;
    let seq = Seq::new(row.u64()?);
    row.end(seq)
}

/// Reads the item's name back from what [`trace_key`] made.
pub(crate) fn decode_trace_key(key: &[u8]) -> Result<ItemId, StoreError> {
    let mut row = Fields { rest: key, what: "trace key" };
    let [_, _, _, _, _, _, _, _, _] = row.take()?;
    let id = row.id()?;
    row.end(id)
}

fn encode_id(id: ItemId) -> [u8; 20] {
    let mut bytes = [0; 20];
    if let Some(head) = bytes.first_chunk_mut() {
        *head = *id.message_id.as_bytes();
    }
    if let Some(tail) = bytes.last_chunk_mut() {
        *tail = id.chunk_index.to_be_bytes();
    }
    bytes
}

/// Takes fields off the front of a row, and reports one that is too short or too long.
struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (field, rest) = self.rest.split_first_chunk().ok_or(StoreError::Damaged(self.what))?;
        self.rest = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, StoreError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, StoreError> {
        self.take().map(u64::from_be_bytes)
    }

    fn usage(&mut self) -> Result<Usage, StoreError> {
        Ok(Usage { items: self.u64()?, bytes: self.u64()? })
    }

    fn id(&mut self) -> Result<ItemId, StoreError> {
        let message_id = MessageId::from_bytes(self.take()?);
        Ok(ItemId { message_id, chunk_index: self.u32()? })
    }

    fn end<T>(&self, decoded: T) -> Result<T, StoreError> {
        if self.rest.is_empty() { Ok(decoded) } else { Err(StoreError::Damaged(self.what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn id() -> ItemId {
        ItemId { message_id: MessageId::from_bytes([0xab; 16]), chunk_index: 1 }
    }

    #[test]
    fn queue_row_bytes() {
        let row = QueueRow {
            usage: Usage { items: 1, bytes: 2 },
            acked: 3,
            next_place: 4,
            open_block: Usage { items: 5, bytes: 6 },
            due: Some(Timestamp::from_ms(7)),
        };
        let expected: String = (1..=7).map(|number| format!("{number:016x}")).collect();
        assert_eq!(hex(&row.encode()), expected);
        assert_eq!(QueueRow::decode(&row.encode()).unwrap(), row);
    }

    #[test]
    fn item_row_bytes() {
        let item = Item {
            seq: Seq::new(9),
            message_id: id().message_id,
            chunk: Chunk::new(1, 3).unwrap(),
            kind: Kind::parse("opaque").unwrap(),
            total_len: 5,
            sent_ms: 6,
            arrival: Timestamp::from_ms(3),
            deadline: Timestamp::from_ms(1),
            payload_bytes: 4,
            body: (),
        };
        let row = ItemRow { item, place: 2 };
        let numbers: String = (1..=6).map(|number| format!("{number:016x}")).collect();
        let expected = numbers + "00000003" + &"ab".repeat(16) + "00000001" + "6f7061717565";
        assert_eq!(hex(&row.encode()), expected);
        assert_eq!(ItemRow::decode(Seq::new(9), &row.encode()).unwrap(), row);
        assert_eq!(ItemRow::decode_deadline(&row.encode()).unwrap(), Timestamp::from_ms(1));
    }

    #[test]
    fn trace_and_block_bytes() {
        let queued = TraceRow::Queued(Seq::new(0x0102));
        assert_eq!(hex(&queued.encode()), "010000000000000102");
        assert_eq!(TraceRow::decode(&queued.encode()).unwrap(), queued);
        let acked = TraceRow::Acked { until: Timestamp::from_ms(0x0102) };
        assert_eq!(hex(&acked.encode()), "020000000000000102");
        assert_eq!(TraceRow::decode(&acked.encode()).unwrap(), acked);
        let usage = Usage { items: 1, bytes: 2 };
        assert_eq!(hex(&encode_usage(usage)), "00000000000000010000000000000002");
        assert_eq!(decode_usage(&encode_usage(usage)).unwrap(), usage);
    }

    #[test]
    fn key_bytes() {
        let id_hex = "ab".repeat(16) + "00000001";
        let item = item_key(1, Seq::new(2));
        assert_eq!(hex(&item), "0000000000000001020000000000000002");
        assert_eq!(decode_item_key(&item).unwrap(), Seq::new(2));
        let trace = trace_key(1, id());
        assert_eq!(hex(&trace), "000000000000000103".to_owned() + &id_hex);
        assert_eq!(decode_trace_key(&trace).unwrap(), id());
        assert_eq!(hex(&block_key(1, 2)), "0000000000000001040000000000000002");
        let acked = acked_key(Timestamp::from_ms(3), 1, id());
        assert_eq!(hex(&acked), "00000000000000030000000000000001".to_owned() + &id_hex);
        assert_eq!(decode_acked_key(&acked).unwrap(), (Timestamp::from_ms(3), 1, id()));
    }

    #[test]
    fn a_row_of_the_wrong_length_is_reported() {
        let row = QueueRow::default().encode();
        for length in 0..row.len() {
            assert!(QueueRow::decode(&row[..length]).is_err());
        }
        assert!(QueueRow::decode(&[row.as_slice(), &[0]].concat()).is_err());
        assert!(TraceRow::decode(&[3; 9]).is_err());
        assert!(ItemRow::decode(Seq::ZERO, &[0; 72]).is_err());
    }
}
