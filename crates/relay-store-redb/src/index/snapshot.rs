//! The index as one checkpoint left it. Only this file reads the tables of redb.

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
use crate::memtable::rows::MemtableValue;
use crate::naming::Naming;

/// The length of the checksum at the end of a stored value.
const CHECKSUM_BYTES: usize = 4;

/// The tables as one checkpoint left them. Later checkpoints do not change a snapshot.
pub(crate) struct IndexSnapshot {
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    recipients: ReadOnlyTable<&'static str, (u64, u32)>,
    /// The segments with live frames.
    pub(crate) segments: Arc<BTreeMap<u32, LiveCount>>,
    /// Where a replay of the journal begins; `None` in a new store.
    pub(crate) position: Option<Position>,
    /// Blob files up to this number are decided: without a row they are not needed.
    pub(crate) blobs_through: u32,
    pub(crate) numbers: Counters,
    pub(crate) naming: Naming,
    pub(super) size: IndexSize,
    /// Keeps the tables readable. The last field, so that it is dropped after the tables.
    db: Arc<OpenDatabase>,
}

/// The queue number of an acked item, and its id.
pub(crate) type AckedItem = (u64, ItemId);

type StoredRows<'a> = redb::Range<'a, &'static [u8], &'static [u8]>;
type StoredRecipients<'a> = redb::Range<'a, &'static str, (u64, u32)>;

/// A database that closes when its last owner drops it.
pub(super) struct OpenDatabase {
    db: Option<Database>,
    is_invalidated: AtomicBool,
    is_replaced: AtomicBool,
}

/// The value of a row.
pub(crate) enum Value<'a> {
    /// From a memtable.
    Fresh(MemtableValue<'a>),
    /// From the index, with its checksum at the end. The checksum is compared when the value is
    /// read.
    Stored(Key, AccessGuard<'a, &'static [u8]>),
}

/// How much space the rows of the index take.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexSize {
    /// The bytes of all keys and values; `None` if they were never counted.
    pub(super) rows_bytes: Option<u64>,
    /// The bytes of the file for 1,000 of those at the last rewrite; `None` if there was none.
    pub(super) file_bytes_per_1000: Option<u64>,
}

impl OpenDatabase {
    pub(super) fn new(db: Database) -> Arc<Self> {
        let (is_invalidated, is_replaced) = Default::default();
        Arc::new(Self { db: Some(db), is_invalidated, is_replaced })
    }

    pub(super) fn database(&self) -> Result<&Database, StoreError> {
        self.db.as_ref().ok_or(StoreError::Corrupted("the index is closed"))
    }

    /// Another database opens the same file. It does not know the readers of this one, and reuses
    /// pages that they still read.
    pub(super) fn invalidate(&self) {
        self.is_invalidated.store(true, Ordering::SeqCst);
    }

    /// Another file replaces this one. Nobody may write this one any more, but reads stay correct.
    pub(super) fn set_replaced(&self) {
        self.is_replaced.store(true, Ordering::SeqCst);
    }

    /// Closes it. redb writes once more, and may panic even here over corrupt pages.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        self.db.take().map_or(Ok(()), |db| caught(|| Ok(db.close()?)))
    }
}

impl Drop for OpenDatabase {
    fn drop(&mut self) {
        let closed = self.close();
        // An invalidated or replaced database may not write, and does not have to. For the others,
        // all commits are durable, and the next open finds the unused pages.
        if let Err(error) = closed
            && !self.is_invalidated.load(Ordering::SeqCst)
            && !self.is_replaced.load(Ordering::SeqCst)
        {
            tracing::warn!(%error, "cannot close the index");
        }
    }
}

impl IndexSnapshot {
    /// Opens the tables. A caller that has just written them passes `segments`; otherwise they are
    /// read, and all numbers are checked.
    pub(super) fn open(
        db: &Arc<OpenDatabase>,
        naming: Naming,
        segments: Option<Arc<BTreeMap<u32, LiveCount>>>,
    ) -> Result<Self, StoreError> {
        let tx = db.database()?.begin_read()?;
        let meta = tx.open_table(format::META)?;
        let number = |name| Ok::<_, StoreError>(meta.get(name)?.map(|number| number.value()));
        let small = |name| Ok::<_, StoreError>(number(name)?.and_then(|number| u32::try_from(number).ok()));
        let position = small(format::META_SEGMENT)?.zip(small(format::META_OFFSET)?);
        let position = position.map(|(segment, offset)| Position { segment, offset });
        let blobs_through = small(format::META_BLOBS_THROUGH)?.unwrap_or_default();
        let numbers = Counters {
            seq: Seq::new(number(format::META_LAST_SEQ)?.unwrap_or_default()),
            queue: number(format::META_LAST_QUEUE)?.unwrap_or_default(),
            time: Timestamp::from_ms(number(format::META_TIME)?.unwrap_or_default()),
        };
        let size = IndexSize {
            rows_bytes: number(format::META_ROWS_BYTES)?,
            file_bytes_per_1000: number(format::META_FILE_BYTES_PER_1000)?,
        };
        let (rows, recipients) = (tx.open_table(format::ROWS)?, tx.open_table(format::RECIPIENTS)?);
        let segments = match segments {
            Some(segments) => segments,
            None => {
                let segments = read_segments(&tx.open_table(format::SEGMENTS)?)?;
                let checksum = format::meta_checksum(naming, numbers, position, blobs_through, &segments);
                match number(format::META_CHECKSUM)? {
                    Some(stored) if stored == checksum => {}
                    Some(_) => {
                        return Err(StoreError::Corrupted("the numbers of the index have a wrong checksum"));
                    }
                    // The first row is written together with the numbers.
                    None if rows.is_empty()? && recipients.is_empty()? => {}
                    None => return Err(StoreError::Corrupted("the numbers of the index are missing")),
                }
                Arc::new(segments)
            }
        };
        let db = Arc::clone(db);
        Ok(Self { rows, recipients, segments, position, blobs_through, numbers, naming, size, db })
    }

    /// Whether everything that was read until now may be wrong, because another database has opened
    /// the file.
    pub(crate) fn is_invalidated(&self) -> bool {
        self.db.is_invalidated.load(Ordering::SeqCst)
    }

    /// Whether the checkpoint of this memtable wrote the snapshot.
    pub(crate) fn holds(&self, sealed: &SealedMemtable) -> bool {
        let SealedMemtable { memtable, position, blobs_through } = sealed;
        self.position == Some(*position)
            && self.blobs_through == *blobs_through
            && self.numbers == memtable.numbers
    }

    /// Counts the bytes of all keys and values. It reads the whole index.
    pub(super) fn count_rows_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.rows.stats()?.stored_bytes().saturating_add(self.recipients.stats()?.stored_bytes()))
    }

    pub(crate) fn queue_number(&self, recipient: &Recipient) -> Result<Option<u64>, StoreError> {
        let Some(found) = self.recipients.get(recipient.as_str())? else { return Ok(None) };
        Self::checked_name(recipient, found.value()).map(Some)
    }

    /// The queue number in the value of a recipient, if the checksum is right.
    pub(crate) fn checked_name(name: &Recipient, (queue, checksum): (u64, u32)) -> Result<u64, StoreError> {
        if checksum != format::name_checksum(name.as_str(), queue) {
            return Err(StoreError::Corrupted("a name of the index has a wrong checksum"));
        }
        Ok(queue)
    }

    /// Parses a stored recipient.
    pub(crate) fn parse_name(name: &str) -> Result<Recipient, StoreError> {
        Recipient::parse(name)
            .map_err(|_| StoreError::Corrupted("a name of the index is not a valid recipient"))
    }

    /// All recipients, in order.
    pub(crate) fn recipients(&self) -> Result<StoredRecipients<'_>, StoreError> {
        Ok(self.recipients.iter()?)
    }

    /// The recipients after `name`, in order.
    pub(super) fn recipients_after(&self, name: &str) -> Result<StoredRecipients<'_>, StoreError> {
        Ok(self.recipients.range::<&str>((Bound::Excluded(name), Bound::Unbounded))?)
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Value<'_>>, StoreError> {
        let Some(value) = self.rows.get(&*key.bytes())? else { return Ok(None) };
        Ok(Some(Value::Stored(*key, value)))
    }

    /// The rows with keys in `from..to`.
    pub(crate) fn range(&self, from: &Key, to: &Key) -> Result<StoredRows<'_>, StoreError> {
        Ok(self.rows.range::<&[u8]>(&*from.bytes()..&*to.bytes())?)
    }

    /// The rows after a stored key.
    pub(super) fn rows_after(&self, key: &[u8]) -> Result<StoredRows<'_>, StoreError> {
        Ok(self.rows.range::<&[u8]>((Bound::Excluded(key), Bound::Excluded(&*Key::end().bytes())))?)
    }

    /// Every row, including those whose key no lookup reaches.
    pub(crate) fn all_rows(&self) -> Result<StoredRows<'_>, StoreError> {
        Ok(self.rows.iter()?)
    }

    /// The slots that contain acked item ids, the oldest first. Reads one row of each slot.
    pub(crate) fn acked_slots(&self) -> Result<Vec<Timestamp>, StoreError> {
        let mut slots = Vec::new();
        let mut from = Key::acked_start();
        while let Some(key) = self.first_key(&from)? {
            slots.push(key.slot());
            from = Key::acked_end(key.slot());
            if from <= key {
                // The slot is the last possible one, which only a corrupt key contains.
                break;
            }
        }
        Ok(slots)
    }

    /// The first valid key from `from` on.
    fn first_key(&self, from: &Key) -> Result<Option<Key>, StoreError> {
        let mut previous = Vec::new();
        for row in self.range(from, &Key::end())? {
            let row = row?;
            let bytes = row.0.value();
            match Key::from_bytes(bytes) {
                Ok(key) if key >= *from => return Ok(Some(key)),
                // The index is corrupt here, which the read views report. redb may walk in a circle
                // over a corrupt page.
                _ if bytes <= previous.as_slice() => break,
                _ => previous = bytes.to_vec(),
            }
        }
        Ok(None)
    }

    /// At most `max` acked item ids of a slot from `from` on, and the key of the next one, if there
    /// is one.
    pub(crate) fn acked_ids(
        &self,
        from: &Key,
        slot: Timestamp,
        max: usize,
    ) -> Result<(Vec<AckedItem>, Option<Key>), StoreError> {
        let (mut item_ids, mut previous) = (Vec::new(), None);
        for row in self.range(from, &Key::acked_end(slot))? {
            // A lookup does not find an item id with a corrupt key either.
            let Ok(key) = Key::from_bytes(row?.0.value()) else { continue };
            let Ok(ParsedKey::Acked(_, queue, id)) = key.parse() else { continue };
            if previous.is_some_and(|previous| key <= previous) {
                break;
            }
            if item_ids.len() >= max {
                return Ok((item_ids, Some(key)));
            }
            item_ids.push((queue, id));
            previous = Some(key);
        }
        Ok((item_ids, None))
    }

    /// The value without its checksum, if that is right.
    pub(crate) fn checked<'a>(key: &Key, stored: &'a [u8]) -> Result<&'a [u8], StoreError> {
        match stored.split_last_chunk::<CHECKSUM_BYTES>() {
            Some((value, found)) if *found == checksum(key, value) => Ok(value),
            _ => Err(StoreError::Corrupted("a row of the index has a wrong checksum")),
        }
    }

    /// The value with its checksum, as it is stored.
    pub(crate) fn with_checksum(key: &Key, value: &[u8]) -> Vec<u8> {
        [value, &checksum(key, value)].concat()
    }
}

/// CRC-32C of key and value.
fn checksum(key: &Key, value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(&key.bytes()), value).to_le_bytes()
}

impl Value<'_> {
    /// The value without its checksum.
    ///
    /// # Errors
    /// When the checksum is wrong.
    pub(crate) fn bytes(&self) -> Result<Cow<'_, [u8]>, StoreError> {
        match self {
            Self::Fresh(row) => Ok(row.bytes()),
            Self::Stored(key, guard) => IndexSnapshot::checked(key, guard.value()).map(Cow::Borrowed),
        }
    }

    /// The value of a queue's row.
    pub(crate) fn queue(&self) -> Result<Arc<QueueRow>, StoreError> {
        match self {
            Self::Fresh(MemtableValue::Queue(row)) => Ok(Arc::clone(row)),
            value => QueueRow::decode(&value.bytes()?).map(Arc::new),
        }
    }
}

/// Reads the table of segments.
pub(super) fn read_segments(
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
