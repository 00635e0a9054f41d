//! The rows of the index to the byte: how keys are built, how values are written and read. Knows nothing of transactions.
//!
//! Numbers in keys are big-endian, so that the order of bytes is the order of numbers; in values they are LEB128, since most are
//! small. Recipients appear in two places only: as key of [`NAMES`], and in a row of their own. Everything else goes by
//! queue number, and the rows of a queue's items are neighbours in [`ROWS`].

use std::collections::BTreeMap;
use std::fmt;

use redb::TableDefinition;
use relay_core::{Chunk, Item, ItemId, Kind, MessageId, Queued, Recipient, Seq, Timestamp, Usage};
use relay_journal::{Location, Position};

use crate::error::StoreError;
use crate::fields::{Fields, put_number};
use crate::index_snapshot::Live;
use crate::journals;
use crate::memtable::Numbers;
use crate::packed_items::PackedItems;

/// The format of what is written here; another one is not read.
pub(crate) const FORMAT: u64 = 1;

/// Single numbers: see the `META_` names.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// From recipient to queue number, with CRC-32C of both behind it.
pub(crate) const NAMES: TableDefinition<'_, &str, (u64, u32)> = TableDefinition::new("names");
/// All other rows: a [`Key`], and a value whose last four bytes are a checksum of both.
pub(crate) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// From segment of the journal, or payload file, to how many live items it holds, and how many bytes their frames take.
pub(crate) const SEGMENTS: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("segments");

/// The format of the store.
pub(crate) const META_FORMAT: &str = "index_format";
/// Where builds from before the first release noted theirs, which were counted otherwise.
pub(crate) const META_EARLIER_FORMATS: [&str; 2] = ["format", "store_format"];
/// The last arrival number given away.
pub(crate) const META_LAST_SEQ: &str = "last_seq";
/// The last queue number given away.
pub(crate) const META_LAST_QUEUE: &str = "last_queue";
/// The time that the store had come to, in milliseconds since 1970.
pub(crate) const META_TIME: &str = "time_ms";
/// Where a replay begins: the segment of the journal, and the place in it.
pub(crate) const META_SEGMENT: &str = "journal_segment";
/// See [`META_SEGMENT`].
pub(crate) const META_OFFSET: &str = "journal_offset";

/// Up to this number payload files are decided.
pub(crate) const META_PAYLOADS: &str = "payloads_through";

/// How many bytes the keys and values of [`ROWS`] and [`NAMES`] have: whether the index is mostly holes is told by it, and nothing else. Not
/// there in a store whose index was made before they were counted.
pub(crate) const META_ROWS_BYTES: &str = "rows_bytes";
/// How many bytes of the file went to 1,000 of those when it was last written anew.
pub(crate) const META_FILE_BYTES_PER_1000: &str = "file_bytes_per_1000";

/// A checksum of the numbers of the version, which are all but the format and the two above, and of [`SEGMENTS`]: see [`meta_checksum`].
pub(crate) const META_CHECKSUM: &str = "checksum";

/// How many consecutive items of a queue are counted together.
pub(crate) const BLOCK_ITEMS: u64 = 512;

/// A queue that holds so many items gets rows for each of them, and their names, with the next one. Until then they lie in its own row:
/// most queues hold few, and each push, ack or expiry of theirs changes that one row. Two rows of so many take a page, and a checkpoint writes
/// a page for whatever it changes of a queue.
pub(crate) const APART_FROM_ITEMS: usize = 48;

/// And so few that they are taken back into its row.
pub(crate) const SPILLED_UNTIL_ITEMS: u64 = 12;

/// The first byte of a key: what the row is about. Rows of queues are neighbours, so that those of a hundred thousand fit into the cache
/// however many items they hold.
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
    /// An item of a queue that holds many, by arrival number: an [`ItemRow`].
    Item = 1,
    /// The name of such an item: its arrival number.
    ById = 2,
    /// How much of a full block of such items is still there: a [`Usage`].
    Block = 3,
}

/// How the items of a queue lie, in its row: see [`Items`].
const LAYOUT_HERE: u64 = 0;
const LAYOUT_APART: u64 = 1;

/// The longest key, that of an acked name: the first byte, a slot, a queue number, a name.
const KEY_BYTES_MAX: usize = 1 + 8 + 8 + ID_BYTES;
const ID_BYTES: usize = 20;
/// The first byte, a queue number, a tag, an arrival number.
const ITEM_KEY_BYTES: usize = 1 + 8 + 1 + 8;
const KEY_WORDS: usize = KEY_BYTES_MAX.div_ceil(8);

/// The bytes of a key.
pub(crate) struct KeyBytes([u8; KEY_WORDS * 8]);

/// A key of [`ROWS`]. It is kept in place, as big-endian words, which compare as its bytes would: the memtables hold hundreds of
/// thousands of keys, and most of what they do is to compare them.
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
    Spilled(Places),
}

/// Where the items of a queue that holds many come to lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// The place that the next item gets. They are counted from the first item that got a row of its own.
    pub(crate) next: u64,
    /// What is still there of the last block, the one that `next` lies in.
    pub(crate) open_block: Usage,
}

/// The two ends of a queue. Deadlines never decrease in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The first item. The sweep looks at the queue by its deadline. Rows of items in front of it are dead.
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
    pub(crate) place: u64,
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

impl Key {
    fn new(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; KEY_WORDS * 8];
        let mut length = 0;
        for part in parts {
            if let Some(place) = bytes.get_mut(length..length + part.len()) {
                place.copy_from_slice(part);
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

    /// Before every acked name of the queue in the slot. All of them come before the same of the next queue.
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
            return Err(StoreError::Damaged("a key is too long"));
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
                    _ => return Err(StoreError::Damaged("key: tag")),
                }
            }
            DUE => ParsedKey::Due(Timestamp::from_ms(key.be()?), key.be()?),
            ACKED => ParsedKey::Acked(Timestamp::from_ms(key.be()?), key.be()?, decode_id(key.take()?)),
            _ => return Err(StoreError::Damaged("key: first byte")),
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

impl QueueRow {
    /// Whether there is nothing at `now` that has to be remembered.
    pub(crate) fn is_forgettable(&self, now: Timestamp) -> bool {
        self.usage.is_empty() && self.remembers_until <= now
    }

    /// When the sweep looks at it: as its first item goes, or, when it holds nothing, as the last acked name is over.
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
            Items::Spilled(places) => {
                put_number(&mut bytes, LAYOUT_APART);
                let (usage, block) = (self.usage, places.open_block);
                for number in [usage.items, usage.bytes, places.next, block.items, block.bytes] {
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
                Self { usage, remembers_until, ends, items: Items::Spilled(Places { next, open_block }) }
            }
            _ => return Err(StoreError::Damaged("queue: layout")),
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

#[cfg(test)]
impl Ends {
    /// Of these items, which are in order.
    pub(crate) fn of(items: &[ItemRow]) -> Option<Self> {
        let ends = items.first().zip(items.last());
        ends.map(|(first, last)| Self { first: first.as_end(), last: last.as_end() })
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

impl ItemRow {
    /// The row of an item that lies at `location`, at the end of a queue that gives it its place.
    pub(crate) fn new<B>(item: &Item<B>, location: Location) -> Self {
        let blob = journals::is_payload(location.segment).then(|| BlobMeta::of(item).into());
        let (seq, id, deadline, payload_bytes) = (item.seq, item.id(), item.deadline, item.payload_bytes);
        Self { seq, id, deadline, payload_bytes, place: 0, location, blob }
    }

    /// As a row of its own.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(if self.blob.is_some() { 96 } else { 48 });
        put_number(&mut bytes, self.deadline.as_ms());
        put_number(&mut bytes, self.place);
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
        let (deadline, place) = (Timestamp::from_ms(row.number()?), row.number()?);
        let item = Self::decode_rest(&mut row, seq, deadline, place)?;
        row.end(item)
    }

    /// What [`ItemRow::encode_rest`] wrote.
    pub(crate) fn decode_rest(
        row: &mut Fields<'_>,
        seq: Seq,
        deadline: Timestamp,
        place: u64,
    ) -> Result<Self, StoreError> {
        let payload_bytes = row.number()?;
        let location = Location { segment: row.small()?, offset: row.small()?, length: row.small()? };
        let chunk_index = row.small()?;
        let id = ItemId { message_id: MessageId::from_bytes(row.take()?), chunk_index };
        let blob = journals::is_payload(location.segment).then(|| BlobMeta::decode(row, chunk_index));
        let blob = blob.transpose()?.map(Box::new);
        Ok(Self { seq, id, deadline, payload_bytes, place, location, blob })
    }

    /// The end of a queue that the item may be.
    pub(crate) const fn as_end(&self) -> End {
        End { seq: self.seq, deadline: self.deadline }
    }

    /// The place and the length of the payload, of a row whose rest is not needed.
    pub(crate) fn decode_weight(_: Seq, bytes: &[u8]) -> Result<(u64, u64), StoreError> {
        let mut row = Fields::new(bytes, "item");
        let [_deadline, place, payload_bytes] = [row.number()?, row.number()?, row.number()?];
        Ok((place, payload_bytes))
    }

    /// The end that the item may be and the length of the payload, of a row whose rest is not needed.
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
        Chunk::new(chunk_index, chunk_count).map_err(|_| StoreError::Damaged("item: chunk"))?;
        let length = row.number()?;
        let kind = std::str::from_utf8(row.slice(length)?).ok().and_then(|text| Kind::parse(text).ok());
        let kind = kind.ok_or(StoreError::Damaged("item: kind"))?;
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

/// A row that is one number: the arrival number of a name in the queue, or until when an acked name is remembered.
pub(crate) fn encode_number(number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    put_number(&mut bytes, number);
    bytes
}

pub(crate) fn decode_owner(bytes: &[u8]) -> Result<Recipient, StoreError> {
    Fields::new(bytes, "owner").rest_text(|name| Recipient::parse(name).ok())
}

pub(crate) fn decode_seq(bytes: &[u8]) -> Result<Seq, StoreError> {
    decode_number(bytes, "trace").map(Seq::new)
}

pub(crate) fn decode_until(bytes: &[u8]) -> Result<Timestamp, StoreError> {
    decode_number(bytes, "acked name").map(Timestamp::from_ms)
}

fn decode_number(bytes: &[u8], what: &'static str) -> Result<u64, StoreError> {
    let mut row = Fields::new(bytes, what);
    let number = row.number()?;
    row.end(number)
}

/// CRC-32C of a recipient and the number of its queue, as 8 bytes, little-endian.
pub(crate) fn name_checksum(recipient: &str, queue: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(recipient.as_bytes()), &queue.to_le_bytes())
}

/// CRC-32C of the last arrival number, the last queue number, the time, where a replay begins (twice 0 in a new store), the last payload file
/// that is decided, and each row of [`SEGMENTS`]; all as 8 bytes, little-endian.
pub(crate) fn meta_checksum(
    numbers: Numbers,
    position: Option<Position>,
    payloads_through: u32,
    segments: &BTreeMap<u32, Live>,
) -> u64 {
    let Position { segment, offset } = position.unwrap_or_default();
    let head = [numbers.seq.as_u64(), numbers.queue, numbers.time.as_ms()]
        .into_iter()
        .chain([segment, offset, payloads_through].map(u64::from));
    let rows = segments.iter().flat_map(|(segment, live)| [u64::from(*segment), live.items, live.bytes]);
    let crc = head.chain(rows).fold(0, |crc, number| crc32c::crc32c_append(crc, &number.to_le_bytes()));
    u64::from(crc)
}

pub(crate) fn encode_usage(usage: Usage) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    put_number(&mut bytes, usage.items);
    put_number(&mut bytes, usage.bytes);
    bytes
}

pub(crate) fn decode_usage(bytes: &[u8]) -> Result<Usage, StoreError> {
    let mut row = Fields::new(bytes, "block");
    let usage = row.usage()?;
    row.end(usage)
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

#[cfg(test)]
#[path = "tests/schema.rs"]
mod tests;
