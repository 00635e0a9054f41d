//! The index on disk, as one checkpoint left it. The only file that opens tables of redb for
//! reading.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{AccessGuard, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use relay_core::{ItemId, Recipient, Seq, Timestamp};
use relay_journal::Position;

use crate::error::{StoreError, caught};
use crate::format::{self, Counters, Key, LiveCount, ParsedKey, QueueRow};
use crate::memtable::SealedMemtable;
use crate::memtable::rows::Fresh;

/// How many bytes of a stored value are its checksum.
const CHECKSUM_BYTES: usize = 4;

/// The tables as one checkpoint left them. It stays as it is while later checkpoints are written.
pub(crate) struct IndexSnapshot {
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    recipients: ReadOnlyTable<&'static str, (u64, u32)>,
    /// The live frames of each segment that has any.
    pub(crate) segments: Arc<BTreeMap<u32, LiveCount>>,
    /// Where the journal goes on behind what the tables hold; `None` in a new store.
    pub(crate) position: Option<Position>,
    /// Up to this number payload files are decided: one that no row leads to is not needed.
    pub(crate) payloads_through: u32,
    pub(crate) numbers: Counters,
    /// How much its rows take.
    pub(crate) size: Size,
    /// Behind the tables, so that it is dropped after them. Without it they could not be read any
    /// more.
    db: Arc<OpenDatabase>,
}

/// The number of the queue in which an item was acked, and the item.
pub(crate) type AckedItem = (u64, ItemId);

/// A database that closes when the last one lets go of it.
pub(crate) struct OpenDatabase {
    db: Option<Database>,
    is_overtaken: AtomicBool,
    is_replaced: AtomicBool,
}

/// The value of a row.
pub(crate) enum Value<'a> {
    /// Of a memtable.
    Fresh(Fresh<'a>),
    /// Of the index, with its checksum behind it, which is checked when the value is looked at.
    Stored(Key, AccessGuard<'a, &'static [u8]>),
}

/// What the rows of the index take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Their keys and values; `None` if they were never counted.
    pub(crate) rows_bytes: Option<u64>,
    /// How much of the file went to 1,000 of those when it was last written anew; `None` if it
    /// never was.
    pub(crate) file_bytes_per_1000: Option<u64>,
}

impl OpenDatabase {
    pub(crate) fn new(db: Database) -> Arc<Self> {
        let (is_overtaken, is_replaced) = Default::default();
        Arc::new(Self { db: Some(db), is_overtaken, is_replaced })
    }

    pub(crate) fn database(&self) -> Result<&Database, StoreError> {
        self.db.as_ref().ok_or(StoreError::Corrupted("the index is closed"))
    }

    /// Its file is opened once more, by a database that does not know who still reads here, and
    /// uses pages again that are read.
    pub(crate) fn overtake(&self) {
        self.is_overtaken.store(true, Ordering::SeqCst);
    }

    /// Another file has taken its name: it may not be written any more, and whoever reads it reads
    /// what is right.
    pub(crate) fn replace(&self) {
        self.is_replaced.store(true, Ordering::SeqCst);
    }

    /// Closes it. redb writes for the last time, and over damaged pages it may panic even here.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        self.db.take().map_or(Ok(()), |db| caught(|| Ok(db.close()?)))
    }
}

impl Drop for OpenDatabase {
    fn drop(&mut self) {
        let closed = self.close();
        // One that was overtaken or replaced may not write, and need not. Otherwise all that was
        // committed is there, and the next one that opens the file finds out what is not in use.
        if let Err(error) = closed
            && !self.is_overtaken.load(Ordering::SeqCst)
            && !self.is_replaced.load(Ordering::SeqCst)
        {
            tracing::warn!(%error, "the index could not be closed");
        }
    }
}

impl IndexSnapshot {
    /// The tables as they are now. Whoever has just written them knows the `segments`; otherwise
    /// these are read, and all numbers checked.
    pub(crate) fn open(
        db: &Arc<OpenDatabase>,
        segments: Option<Arc<BTreeMap<u32, LiveCount>>>,
    ) -> Result<Self, StoreError> {
        let tx = db.database()?.begin_read()?;
        let meta = tx.open_table(format::META)?;
        let number = |name| Ok::<_, StoreError>(meta.get(name)?.map(|number| number.value()));
        let small = |name| Ok::<_, StoreError>(number(name)?.and_then(|number| u32::try_from(number).ok()));
        let position = small(format::META_SEGMENT)?.zip(small(format::META_OFFSET)?);
        let position = position.map(|(segment, offset)| Position { segment, offset });
        let payloads_through = small(format::META_PAYLOADS)?.unwrap_or_default();
        let seq = Seq::new(number(format::META_LAST_SEQ)?.unwrap_or_default());
        let queue = number(format::META_LAST_QUEUE)?.unwrap_or_default();
        let time = Timestamp::from_ms(number(format::META_TIME)?.unwrap_or_default());
        let numbers = Counters { seq, queue, time };
        let size = Size {
            rows_bytes: number(format::META_ROWS_BYTES)?,
            file_bytes_per_1000: number(format::META_FILE_BYTES_PER_1000)?,
        };
        let (rows, recipients) = (tx.open_table(format::ROWS)?, tx.open_table(format::RECIPIENTS)?);
        let segments = match segments {
            Some(segments) => segments,
            None => {
                let segments = read_segments(&tx.open_table(format::SEGMENTS)?)?;
                let checksum = format::meta_checksum(numbers, position, payloads_through, &segments);
                match number(format::META_CHECKSUM)? {
                    Some(noted) if noted == checksum => {}
                    Some(_) => {
                        return Err(StoreError::Corrupted("the numbers of the index have a wrong checksum"));
                    }
                    // It was written with the first row.
                    None if rows.is_empty()? && recipients.is_empty()? => {}
                    None => return Err(StoreError::Corrupted("the numbers of the index are missing")),
                }
                Arc::new(segments)
            }
        };
        Ok(Self { rows, recipients, segments, position, payloads_through, numbers, size, db: Arc::clone(db) })
    }

    /// Whether what was read until now may be wrong, since the file was opened once more.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.db.is_overtaken.load(Ordering::SeqCst)
    }

    /// Whether it is what a checkpoint of this memtable has written.
    pub(crate) fn holds(&self, sealed: &SealedMemtable) -> bool {
        let SealedMemtable { memtable, position, payloads_through } = sealed;
        self.position == Some(*position)
            && self.payloads_through == *payloads_through
            && self.numbers == memtable.numbers
    }

    /// Counts the bytes of all keys and values. It reads the whole index.
    pub(crate) fn count_rows_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.rows.stats()?.stored_bytes().saturating_add(self.recipients.stats()?.stored_bytes()))
    }

    pub(crate) fn queue_number(&self, recipient: &Recipient) -> Result<Option<u64>, StoreError> {
        let Some(found) = self.recipients.get(recipient.as_str())? else { return Ok(None) };
        Self::checked_name(recipient, found.value()).map(Some)
    }

    /// The queue that a name leads to, if its checksum is right.
    pub(crate) fn checked_name(name: &Recipient, (queue, checksum): (u64, u32)) -> Result<u64, StoreError> {
        if checksum != format::name_checksum(name.as_str(), queue) {
            return Err(StoreError::Corrupted("a name of the index has a wrong checksum"));
        }
        Ok(queue)
    }

    /// A name as it is stored.
    pub(crate) fn parse_name(name: &str) -> Result<Recipient, StoreError> {
        Recipient::parse(name).map_err(|_| StoreError::Corrupted("a name of the index is no recipient"))
    }

    /// All recipients, in order.
    pub(crate) fn recipients(&self) -> Result<redb::Range<'_, &'static str, (u64, u32)>, StoreError> {
        Ok(self.recipients.iter()?)
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Value<'_>>, StoreError> {
        let Some(value) = self.rows.get(&*key.bytes())? else { return Ok(None) };
        Ok(Some(Value::Stored(*key, value)))
    }

    /// The rows from `from` on and before `to`.
    pub(crate) fn range(
        &self,
        from: &Key,
        to: &Key,
    ) -> Result<redb::Range<'_, &'static [u8], &'static [u8]>, StoreError> {
        Ok(self.rows.range::<&[u8]>(&*from.bytes()..&*to.bytes())?)
    }

    /// The rows behind a key, given as it is stored.
    pub(crate) fn rows_after(
        &self,
        key: &[u8],
    ) -> Result<redb::Range<'_, &'static [u8], &'static [u8]>, StoreError> {
        Ok(self.rows.range::<&[u8]>((Bound::Excluded(key), Bound::Excluded(&*Key::end().bytes())))?)
    }

    /// The names behind this one, in order.
    pub(crate) fn recipients_after(
        &self,
        name: &str,
    ) -> Result<redb::Range<'_, &'static str, (u64, u32)>, StoreError> {
        Ok(self.recipients.range::<&str>((Bound::Excluded(name), Bound::Unbounded))?)
    }

    /// Every row, also what lies where no key leads.
    pub(crate) fn all_rows(&self) -> Result<redb::Range<'_, &'static [u8], &'static [u8]>, StoreError> {
        Ok(self.rows.iter()?)
    }

    /// The slots that hold acked recipients, the oldest first. It looks at one row of each.
    pub(crate) fn acked_slots(&self) -> Result<Vec<Timestamp>, StoreError> {
        let mut slots = Vec::new();
        let mut from = Key::acked_start();
        while let Some(key) = self.first_key(&from)? {
            slots.push(key.slot());
            from = Key::acked_end(key.slot());
            if from <= key {
                // It ends with time itself, which only a damaged key says.
                break;
            }
        }
        Ok(slots)
    }

    /// The first key from `from` on that is sound.
    fn first_key(&self, from: &Key) -> Result<Option<Key>, StoreError> {
        let mut before = Vec::new();
        for row in self.range(from, &Key::end())? {
            let row = row?;
            let bytes = row.0.value();
            match Key::from_bytes(bytes) {
                Ok(key) if key >= *from => return Ok(Some(key)),
                // The index is damaged here, which the views report. Over a damaged page redb may
                // go round in circles.
                _ if bytes <= before.as_slice() => break,
                _ => before = bytes.to_vec(),
            }
        }
        Ok(None)
    }

    /// Acked item_ids of a slot from `from` on, as queue and name: `max` of them at most, and where
    /// the next one is, if there is one.
    pub(crate) fn acked_ids(
        &self,
        from: &Key,
        slot: Timestamp,
        max: usize,
    ) -> Result<(Vec<AckedItem>, Option<Key>), StoreError> {
        let (mut item_ids, mut before) = (Vec::new(), None);
        for row in self.range(from, &Key::acked_end(slot))? {
            // What has a damaged key is not found by its name either.
            let Ok(key) = Key::from_bytes(row?.0.value()) else { continue };
            let Ok(ParsedKey::Acked(_, queue, id)) = key.parse() else { continue };
            if before.is_some_and(|before| key <= before) {
                break;
            }
            if item_ids.len() >= max {
                return Ok((item_ids, Some(key)));
            }
            item_ids.push((queue, id));
            before = Some(key);
        }
        Ok((item_ids, None))
    }

    /// The value of a stored one, if its checksum is right.
    pub(crate) fn checked<'a>(key: &Key, stored: &'a [u8]) -> Result<&'a [u8], StoreError> {
        let parts = stored.split_last_chunk::<CHECKSUM_BYTES>();
        let value = parts.filter(|(value, found)| **found == checksum(key, value)).map(|(value, _)| value);
        value.ok_or(StoreError::Corrupted("a row of the index has a wrong checksum"))
    }

    /// The value as it is stored.
    pub(crate) fn with_checksum(key: &Key, value: &[u8]) -> Vec<u8> {
        [value, &checksum(key, value)].concat()
    }
}

/// CRC-32C of key and value.
fn checksum(key: &Key, value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(&key.bytes()), value).to_le_bytes()
}

impl Value<'_> {
    /// The value alone, or that it is damaged.
    pub(crate) fn bytes(&self) -> Result<Cow<'_, [u8]>, StoreError> {
        match self {
            Self::Fresh(row) => Ok(row.bytes()),
            Self::Stored(key, guard) => IndexSnapshot::checked(key, guard.value()).map(Cow::Borrowed),
        }
    }

    /// The same, of the row of a queue.
    pub(crate) fn queue(&self) -> Result<Arc<QueueRow>, StoreError> {
        match self {
            Self::Fresh(Fresh::Queue(row)) => Ok(Arc::clone(row)),
            value => QueueRow::decode(&value.bytes()?).map(Arc::new),
        }
    }
}

/// The live frames of each segment that has any.
pub(crate) fn read_segments(
    table: &impl ReadableTable<u32, (u64, u64)>,
) -> Result<BTreeMap<u32, LiveCount>, StoreError> {
    let mut segments = BTreeMap::new();
    for row in table.iter()? {
        let (segment, live) = row?;
        let (items, bytes) = live.value();
        segments.insert(segment.value(), LiveCount { items, bytes });
    }
    Ok(segments)
}
