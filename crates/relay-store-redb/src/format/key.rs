//! Keys of the index. Numbers in keys are big-endian, so byte order is number order. No key
//! contains a recipient.

use std::fmt;

use relay_core::{ItemId, MessageId, Seq, Timestamp};

use super::fields::Fields;
use crate::error::StoreError;

/// The first byte of a key: the kind of row. Rows of queues are neighbours, so those of a hundred
/// thousand queues fit into the cache, however many items they contain.
const OWNERS: u8 = 0;
const DEAD: u8 = 1;
const QUEUES: u8 = 2;
const ITEMS: u8 = 3;
const DUE: u8 = 4;
const ACKED: u8 = 5;
const FLOORS: u8 = 6;

/// The byte after the queue number, in a row about the items of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Tag {
    /// An item of a spilled queue by seq; the value is an `ItemRow`.
    Item = 1,
    /// The same item by its item id; the value is its seq.
    ById = 2,
    /// A full block of a spilled queue; the value is the `Usage` of its remaining items.
    Block = 3,
    /// An item of a spilled queue that expires before one in front of it, by deadline; the value is
    /// the length of its payload.
    Early = 4,
}

/// The longest key, that of an acked item id: the first byte, a slot, a queue number, an item id.
const KEY_BYTES_MAX: usize = 1 + 8 + 8 + ID_BYTES;
const ID_BYTES: usize = 20;
/// The first byte, a queue number, a tag, a seq.
const ITEM_KEY_BYTES: usize = 1 + 8 + 1 + 8;
/// The first byte, a queue number, a tag, a deadline, a seq.
const EARLY_KEY_BYTES: usize = ITEM_KEY_BYTES + 8;
const KEY_WORDS: usize = KEY_BYTES_MAX.div_ceil(8);

/// The bytes of a key.
pub(crate) struct KeyBytes([u8; KEY_WORDS * 8]);

/// A key of `ROWS`, as big-endian words, which compare as its bytes do. It needs no allocation:
/// memtables hold hundreds of thousands of keys, and spend most of their time comparing them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Zeros after the end. The very last byte, which no key reaches, is the length.
    words: [u64; KEY_WORDS],
}

/// The kinds of rows that memtables keep in separate collections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// The row of a queue.
    Queue(u64),
    /// When the sweep visits a queue, and the queue.
    Due(Timestamp, u64),
    Other,
}

/// A decoded key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParsedKey {
    /// The recipient of a queue.
    Owner(u64),
    /// A queue that may have rows of removed items before its first item.
    Dead(u64),
    /// The row of a queue.
    Queue(u64),
    Item(u64, Seq),
    /// The item id of an item.
    ById(u64, ItemId),
    /// The count of a block, by its number.
    Block(u64, u64),
    /// An item that expires before one in front of it.
    Early(u64, Timestamp, Seq),
    /// When the sweep visits a queue, and the queue.
    Due(Timestamp, u64),
    /// The beginning of an acked item id's slot, its queue, and the item id.
    Acked(Timestamp, u64, ItemId),
    /// A queue with a floor.
    Floor(u64),
}

impl Key {
    fn new(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; KEY_WORDS * 8];
        let mut length = 0;
        for part in parts {
            if let Some(target) = bytes.get_mut(length..length + part.len()) {
                target.copy_from_slice(part);
                length += part.len();
            }
        }
        let mut words = [0; KEY_WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_be_bytes(*bytes);
        }
        let [.., last] = &mut words;
        *last |= length as u64;
        Self { words }
    }

    fn of_items(queue: u64, tag: Tag, rest: &[u8]) -> Self {
        Self::new(&[&[ITEMS], &queue.to_be_bytes(), &[tag as u8], rest])
    }

    pub(crate) fn owner(queue: u64) -> Self {
        Self::new(&[&[OWNERS], &queue.to_be_bytes()])
    }

    pub(crate) fn dead(queue: u64) -> Self {
        Self::new(&[&[DEAD], &queue.to_be_bytes()])
    }

    pub(crate) fn queue(queue: u64) -> Self {
        Self::new(&[&[QUEUES], &queue.to_be_bytes()])
    }

    pub(crate) fn item(queue: u64, seq: Seq) -> Self {
        Self::of_items(queue, Tag::Item, &seq.as_u64().to_be_bytes())
    }

    pub(crate) fn by_id(queue: u64, id: ItemId) -> Self {
        Self::of_items(queue, Tag::ById, &encode_id(id))
    }

    pub(crate) fn block(queue: u64, block: u64) -> Self {
        Self::of_items(queue, Tag::Block, &block.to_be_bytes())
    }

    pub(crate) fn early(queue: u64, deadline: Timestamp, seq: Seq) -> Self {
        Self::new(&[
            &[ITEMS],
            &queue.to_be_bytes(),
            &[Tag::Early as u8],
            &deadline.as_ms().to_be_bytes(),
            &seq.as_u64().to_be_bytes(),
        ])
    }

    pub(crate) fn due(at: Timestamp, queue: u64) -> Self {
        Self::new(&[&[DUE], &at.as_ms().to_be_bytes(), &queue.to_be_bytes()])
    }

    pub(crate) fn acked(slot: Timestamp, queue: u64, id: ItemId) -> Self {
        Self::new(&[&[ACKED], &slot.as_ms().to_be_bytes(), &queue.to_be_bytes(), &encode_id(id)])
    }

    pub(crate) fn floor(queue: u64) -> Self {
        Self::new(&[&[FLOORS], &queue.to_be_bytes()])
    }

    /// Before every item of the queue.
    pub(crate) fn items_start(queue: u64) -> Self {
        Self::of_items(queue, Tag::Item, &[])
    }

    /// After every item of the queue, and before every item id.
    pub(crate) fn items_end(queue: u64) -> Self {
        Self::of_items(queue, Tag::ById, &[])
    }

    /// After every item id of the queue, and before every block.
    pub(crate) fn by_id_end(queue: u64) -> Self {
        Self::of_items(queue, Tag::Block, &[])
    }

    /// After every block of the queue, and before every item that expires early.
    pub(crate) fn early_start(queue: u64) -> Self {
        Self::of_items(queue, Tag::Early, &[])
    }

    /// After every item of the queue that expires early and has expired at `now`.
    pub(crate) fn early_end(queue: u64, now: Timestamp) -> Self {
        Self::early(queue, now.plus_ms(1), Seq::ZERO)
    }

    /// After every row of the queue's items.
    pub(crate) fn rows_end(queue: u64) -> Self {
        Self::items_start(queue.saturating_add(1))
    }

    /// After every owner row, and before every mark of dead rows.
    pub(crate) fn dead_start() -> Self {
        Self::new(&[&[DEAD]])
    }

    /// After every mark of dead rows, and before the row of every queue.
    pub(crate) fn queues_start() -> Self {
        Self::new(&[&[QUEUES]])
    }

    /// After the row of every queue, and before the rows of items.
    pub(crate) fn queues_end() -> Self {
        Self::new(&[&[ITEMS]])
    }

    /// After the rows of items, and before the first due row.
    pub(crate) fn due_start() -> Self {
        Self::new(&[&[DUE]])
    }

    /// After every row that is due at `now`; [`Key::due_start`] is before them.
    pub(crate) fn due_end(now: Timestamp) -> Self {
        Self::due(now.plus_ms(1), 0)
    }

    /// Before every acked item id.
    pub(crate) fn acked_start() -> Self {
        Self::new(&[&[ACKED]])
    }

    /// After every acked item id in the slot that begins at `slot`, and in earlier slots.
    pub(crate) fn acked_end(slot: Timestamp) -> Self {
        Self::acked_in(slot.plus_ms(1))
    }

    /// Before every acked item id in the slot.
    pub(crate) fn acked_in(slot: Timestamp) -> Self {
        Self::new(&[&[ACKED], &slot.as_ms().to_be_bytes()])
    }

    /// Before every acked item id of the queue in the slot, and after those of smaller queue
    /// numbers.
    pub(crate) fn acked_of(slot: Timestamp, queue: u64) -> Self {
        Self::new(&[&[ACKED], &slot.as_ms().to_be_bytes(), &queue.to_be_bytes()])
    }

    /// After every acked item id, and before every mark of a floor.
    pub(crate) fn floors_start() -> Self {
        Self::new(&[&[FLOORS]])
    }

    /// Before every key.
    pub(crate) fn start() -> Self {
        Self::new(&[])
    }

    /// After every key.
    pub(crate) fn end() -> Self {
        Self::new(&[&[FLOORS + 1]])
    }

    /// The key as it is stored.
    pub(crate) fn bytes(&self) -> KeyBytes {
        let mut bytes = [0; KEY_WORDS * 8];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(self.words) {
            *bytes = word.to_be_bytes();
        }
        KeyBytes(bytes)
    }

    /// Reads a stored key.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(StoreError::Corrupted("a key is too long"));
        }
        Ok(Self::new(&[bytes]))
    }

    /// The seq of the item, if this is the key of an item or of its row by deadline.
    pub(crate) const fn seq(&self) -> Option<Seq> {
        let [first, second, third, fourth, last] = self.words;
        let (kind, tag, bytes) = (first >> 56, (second >> 48) & 0xff, last & 0xff);
        if kind != ITEMS as u64 {
            None
        } else if tag == Tag::Item as u64 && bytes == ITEM_KEY_BYTES as u64 {
            Some(Seq::new(second << 16 | third >> 48))
        } else if tag == Tag::Early as u64 && bytes == EARLY_KEY_BYTES as u64 {
            Some(Seq::new(third << 16 | fourth >> 48))
        } else {
            None
        }
    }

    /// The queue of the row.
    pub(crate) const fn queue_number(&self) -> u64 {
        let [first, second, third, ..] = self.words;
        match (first >> 56) as u8 {
            DUE | ACKED => second << 8 | third >> 56,
            _ => first << 8 | second >> 56,
        }
    }

    /// Where memtables keep the row.
    pub(crate) const fn section(&self) -> Section {
        let [first, ..] = self.words;
        match (first >> 56) as u8 {
            QUEUES => Section::Queue(self.queue_number()),
            DUE => {
                let (at, queue) = self.due_parts();
                Section::Due(at, queue)
            }
            _ => Section::Other,
        }
    }

    /// The time and the queue in the key of a due row.
    pub(crate) const fn due_parts(&self) -> (Timestamp, u64) {
        (self.slot(), self.queue_number())
    }

    /// The beginning of the slot in the key of an acked item id.
    pub(crate) const fn slot(&self) -> Timestamp {
        let [first, second, ..] = self.words;
        Timestamp::from_ms(first << 8 | second >> 56)
    }

    pub(crate) fn parse(&self) -> Result<ParsedKey, StoreError> {
        let bytes = self.bytes();
        let mut key = Fields::new(&bytes, "key");
        let [kind] = key.take()?;
        let parsed = match kind {
            OWNERS => ParsedKey::Owner(key.be()?),
            DEAD => ParsedKey::Dead(key.be()?),
            QUEUES => ParsedKey::Queue(key.be()?),
            ITEMS => {
                let queue = key.be()?;
                match key.take()? {
                    [1] => ParsedKey::Item(queue, Seq::new(key.be()?)),
                    [2] => ParsedKey::ById(queue, decode_id(key.take()?)),
                    [3] => ParsedKey::Block(queue, key.be()?),
                    [4] => ParsedKey::Early(queue, Timestamp::from_ms(key.be()?), Seq::new(key.be()?)),
                    _ => return Err(StoreError::Corrupted("key: tag")),
                }
            }
            DUE => ParsedKey::Due(Timestamp::from_ms(key.be()?), key.be()?),
            ACKED => ParsedKey::Acked(Timestamp::from_ms(key.be()?), key.be()?, decode_id(key.take()?)),
            FLOORS => ParsedKey::Floor(key.be()?),
            _ => return Err(StoreError::Corrupted("key: first byte")),
        };
        key.end(parsed)
    }
}

impl std::ops::Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let [bytes @ .., length] = &self.0;
        bytes.get(..usize::from(*length)).unwrap_or_default()
    }
}

/// The stored key in hex.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn encode_id(id: ItemId) -> [u8; ID_BYTES] {
    let mut bytes = [0; ID_BYTES];
    if let Some(head) = bytes.first_chunk_mut() {
        *head = *id.message_id.as_bytes();
    }
    if let Some(tail) = bytes.last_chunk_mut() {
        *tail = id.chunk_index.to_be_bytes();
    }
    bytes
}

fn decode_id(bytes: [u8; ID_BYTES]) -> ItemId {
    let message_id = bytes.first_chunk().copied().unwrap_or_default();
    let chunk_index = bytes.last_chunk().copied().unwrap_or_default();
    ItemId { message_id: MessageId::from_bytes(message_id), chunk_index: u32::from_be_bytes(chunk_index) }
}
