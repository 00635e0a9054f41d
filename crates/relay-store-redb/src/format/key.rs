//! Keys of the index. Counters in keys are big-endian, so byte order is number order. No key
//! contains a recipient.

use std::fmt;

use relay_core::{ItemId, MessageId, Seq, Timestamp};

use super::fields::Fields;
use crate::error::StoreError;

/// The first byte of a key: what the row is about. Rows of queues are neighbours, so that those of
/// a hundred thousand fit into the cache however many items they hold.
const OWNERS: u8 = 0;
const DEAD: u8 = 1;
const QUEUES: u8 = 2;
const ITEMS: u8 = 3;
const DUE: u8 = 4;
const ACKED: u8 = 5;

/// The byte after the queue number, in a row about the items of a queue: what it tells of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Tag {
    /// An item of a queue that holds many, by arrival number: an `ItemRow`.
    Item = 1,
    /// The name of such an item: its arrival number.
    ById = 2,
    /// How much of a full block of such items is still there: a `Usage`.
    Block = 3,
}

/// The longest key, that of an acked name: the first byte, a slot, a queue number, a name.
const KEY_BYTES_MAX: usize = 1 + 8 + 8 + ID_BYTES;
const ID_BYTES: usize = 20;
/// The first byte, a queue number, a tag, an arrival number.
const ITEM_KEY_BYTES: usize = 1 + 8 + 1 + 8;
const KEY_WORDS: usize = KEY_BYTES_MAX.div_ceil(8);

/// The bytes of a key.
pub(crate) struct KeyBytes([u8; KEY_WORDS * 8]);

/// A key of `ROWS`. It is kept in place, as big-endian words, which compare as its bytes would:
/// the memtables hold hundreds of thousands of keys, and most of what they do is to compare them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Zeros behind the end, and in the very last byte, which no key reaches, the length.
    words: [u64; KEY_WORDS],
}

/// What a row is about, as far as memtables keep it elsewhere for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// The row of a queue.
    Queue(u64),
    /// When the sweep looks at a queue, and the queue.
    Due(Timestamp, u64),
    Other,
}

/// A key, read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParsedKey {
    /// Whose queue it is.
    Owner(u64),
    /// Rows of items that are not in the queue any more may lie in front of its first one.
    Dead(u64),
    /// The row of a queue.
    Queue(u64),
    /// An item.
    Item(u64, Seq),
    /// The name of an item.
    ById(u64, ItemId),
    /// The count of a block.
    Block(u64, u64),
    /// When the sweep looks at a queue, and the queue.
    Due(Timestamp, u64),
    /// The beginning of an acked name's slot, its queue, and the name.
    Acked(Timestamp, u64, ItemId),
}

impl Key {
    fn new(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; KEY_WORDS * 8];
        let mut length = 0;
        for part in parts {
            if let Some(position) = bytes.get_mut(length..length + part.len()) {
                position.copy_from_slice(part);
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

    pub(crate) fn due(at: Timestamp, queue: u64) -> Self {
        Self::new(&[&[DUE], &at.as_ms().to_be_bytes(), &queue.to_be_bytes()])
    }

    pub(crate) fn acked(slot: Timestamp, queue: u64, id: ItemId) -> Self {
        Self::new(&[&[ACKED], &slot.as_ms().to_be_bytes(), &queue.to_be_bytes(), &encode_id(id)])
    }

    /// Before every item of the queue.
    pub(crate) fn items_start(queue: u64) -> Self {
        Self::of_items(queue, Tag::Item, &[])
    }

    /// Behind every item of the queue, and before every name.
    pub(crate) fn items_end(queue: u64) -> Self {
        Self::of_items(queue, Tag::ById, &[])
    }

    /// Behind every name of the queue, and before every block.
    pub(crate) fn by_id_end(queue: u64) -> Self {
        Self::of_items(queue, Tag::Block, &[])
    }

    /// Behind every owner, and before what is said of dead rows.
    pub(crate) fn dead_start() -> Self {
        Self::new(&[&[DEAD]])
    }

    /// Behind that, and before the row of every queue.
    pub(crate) fn queues_start() -> Self {
        Self::new(&[&[QUEUES]])
    }

    /// Behind the row of every queue, and before those of items.
    pub(crate) fn queues_end() -> Self {
        Self::new(&[&[ITEMS]])
    }

    /// Behind the rows of items, and before the first row that is due.
    pub(crate) fn due_start() -> Self {
        Self::new(&[&[DUE]])
    }

    /// Behind every row that is due at `now`; [`Key::due_start`] is before them.
    pub(crate) fn due_end(now: Timestamp) -> Self {
        Self::due(now.plus_ms(1), 0)
    }

    /// Before every acked name.
    pub(crate) fn acked_start() -> Self {
        Self::new(&[&[ACKED]])
    }

    /// Behind every acked name in the slot that begins at `slot`, and in those before it.
    pub(crate) fn acked_end(slot: Timestamp) -> Self {
        Self::acked_in(slot.plus_ms(1))
    }

    /// Before every acked name in the slot.
    pub(crate) fn acked_in(slot: Timestamp) -> Self {
        Self::new(&[&[ACKED], &slot.as_ms().to_be_bytes()])
    }

    /// Before every acked name of the queue in the slot. All of them come before the same of the
    /// next queue.
    pub(crate) fn acked_of(slot: Timestamp, queue: u64) -> Self {
        Self::new(&[&[ACKED], &slot.as_ms().to_be_bytes(), &queue.to_be_bytes()])
    }

    /// Before every key.
    pub(crate) fn start() -> Self {
        Self::new(&[])
    }

    /// Behind every key.
    pub(crate) fn end() -> Self {
        Self::new(&[&[ACKED + 1]])
    }

    /// The key as it lies in the index.
    pub(crate) fn bytes(&self) -> KeyBytes {
        let mut bytes = [0; KEY_WORDS * 8];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(self.words) {
            *bytes = word.to_be_bytes();
        }
        KeyBytes(bytes)
    }

    /// Reads a key as it lies in the index.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(StoreError::Corrupted("a key is too long"));
        }
        Ok(Self::new(&[bytes]))
    }

    /// The arrival number in the key of an item.
    pub(crate) const fn item_seq(&self) -> Option<Seq> {
        let [first, second, third, _, last] = self.words;
        let is_item = first >> 56 == ITEMS as u64
            && (second >> 48) & 0xff == Tag::Item as u64
            && last & 0xff == ITEM_KEY_BYTES as u64;
        if is_item { Some(Seq::new(second << 16 | third >> 48)) } else { None }
    }

    /// The queue that the row is about.
    pub(crate) const fn about(&self) -> u64 {
        let [first, second, third, ..] = self.words;
        if first >> 56 <= ITEMS as u64 { first << 8 | second >> 56 } else { second << 8 | third >> 56 }
    }

    /// What the row is about.
    pub(crate) const fn section(&self) -> Section {
        let [first, ..] = self.words;
        match (first >> 56) as u8 {
            QUEUES => Section::Queue(self.about()),
            DUE => {
                let (at, queue) = self.due_parts();
                Section::Due(at, queue)
            }
            _ => Section::Other,
        }
    }

    /// The deadline and the queue, of the key of what is due.
    pub(crate) const fn due_parts(&self) -> (Timestamp, u64) {
        (self.slot(), self.about())
    }

    /// When the slot begins, of the key of an acked name.
    pub(crate) const fn slot(&self) -> Timestamp {
        let [first, second, ..] = self.words;
        Timestamp::from_ms(first << 8 | second >> 56)
    }

    pub(crate) fn parse(&self) -> Result<ParsedKey, StoreError> {
        let bytes = self.bytes();
        let mut key = Fields::new(&bytes, "key");
        let [about] = key.take()?;
        let parsed = match about {
            OWNERS => ParsedKey::Owner(key.be()?),
            DEAD => ParsedKey::Dead(key.be()?),
            QUEUES => ParsedKey::Queue(key.be()?),
            ITEMS => {
                let queue = key.be()?;
                match key.take()? {
                    [1] => ParsedKey::Item(queue, Seq::new(key.be()?)),
                    [2] => ParsedKey::ById(queue, decode_id(key.take()?)),
                    [3] => ParsedKey::Block(queue, key.be()?),
                    _ => return Err(StoreError::Corrupted("key: tag")),
                }
            }
            DUE => ParsedKey::Due(Timestamp::from_ms(key.be()?), key.be()?),
            ACKED => ParsedKey::Acked(Timestamp::from_ms(key.be()?), key.be()?, decode_id(key.take()?)),
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

/// As it lies in the index, in hex.
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
