//! The tables of the index, the single numbers that it stores about itself, and rows that consist
//! of one or two numbers or a recipient.

use std::collections::BTreeMap;

use redb::TableDefinition;
use relay_core::{Recipient, Seq, Timestamp, Usage};
use relay_journal::Position;

use super::fields::{Fields, put_number, put_numbers};
use super::segments::LiveCount;
use crate::error::StoreError;
use crate::naming::{KeyId, Naming};

/// Single numbers: see the `META_` names.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// From recipient to queue number and CRC-32C of both.
pub(crate) const RECIPIENTS: TableDefinition<'_, &str, (u64, u32)> = TableDefinition::new("names");
/// All other rows: a `Key`, and a value whose last four bytes are the checksum of both.
pub(crate) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// From a segment of the journal, or a blob file, to the number of its live items and the bytes of
/// their frames.
pub(crate) const SEGMENTS: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("segments");

/// The format of the store.
pub(crate) const META_FORMAT: &str = "index_format";
/// Where builds from before the first release stored their format numbers.
pub(crate) const META_EARLIER_FORMATS: [&str; 2] = ["format", "store_format"];
/// The id of the key that hashes recipients; only in format 2.
pub(crate) const META_RECIPIENTS_KEY: &str = "recipients_key";
/// The last seq that was assigned.
pub(crate) const META_LAST_SEQ: &str = "last_seq";
/// The last queue number that was assigned.
pub(crate) const META_LAST_QUEUE: &str = "last_queue";
/// The time that the store had reached, in milliseconds since 1970.
pub(crate) const META_TIME: &str = "time_ms";
/// Where a replay begins: the segment of the journal, and the offset in it.
pub(crate) const META_SEGMENT: &str = "journal_segment";
/// See [`META_SEGMENT`].
pub(crate) const META_OFFSET: &str = "journal_offset";
/// Blob files up to this number are decided: their item is in the rows, or never will be.
pub(crate) const META_BLOBS_THROUGH: &str = "payloads_through";
/// The bytes of all keys and values of [`ROWS`] and [`RECIPIENTS`]. They only show whether the
/// index is mostly holes. Missing in an index that was created before they were counted.
pub(crate) const META_ROWS_BYTES: &str = "rows_bytes";
/// The bytes of the file for 1,000 of those at the last rewrite.
pub(crate) const META_FILE_BYTES_PER_1000: &str = "file_bytes_per_1000";
/// The checksum of all numbers except the format and the two above, and of [`SEGMENTS`]: see
/// [`meta_checksum`].
pub(crate) const META_CHECKSUM: &str = "checksum";

/// The last numbers that were assigned, and when that was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) seq: Seq,
    pub(crate) queue: u64,
    /// The time that the store had reached.
    pub(crate) time: Timestamp,
}

impl Counters {
    /// The later of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            seq: self.seq.max(other.seq),
            queue: self.queue.max(other.queue),
            time: self.time.max(other.time),
        }
    }
}

/// A row that is one number: the seq of an item id in the queue, or the end of the dedup window of
/// an acked item id.
pub(crate) fn encode_number(number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    put_number(&mut bytes, number);
    bytes
}

pub(crate) fn decode_owner(bytes: &[u8]) -> Result<Recipient, StoreError> {
    let name = std::str::from_utf8(bytes).ok().and_then(|name| Recipient::parse(name).ok());
    name.ok_or(StoreError::Corrupted("owner"))
}

pub(crate) fn decode_seq(bytes: &[u8]) -> Result<Seq, StoreError> {
    decode_number(bytes, "item id").map(Seq::new)
}

pub(crate) fn decode_until(bytes: &[u8]) -> Result<Timestamp, StoreError> {
    decode_number(bytes, "acked item id").map(Timestamp::from_ms)
}

/// The row of an item that expires before one in front of it.
pub(crate) fn decode_payload_bytes(bytes: &[u8]) -> Result<u64, StoreError> {
    decode_number(bytes, "early item")
}

pub(super) fn decode_number(bytes: &[u8], what: &'static str) -> Result<u64, StoreError> {
    let mut row = Fields::new(bytes, what);
    let number = row.number()?;
    row.end(number)
}

/// CRC-32C of a recipient and its queue number (8 bytes, little-endian).
pub(crate) fn name_checksum(recipient: &str, queue: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(recipient.as_bytes()), &queue.to_le_bytes())
}

/// CRC-32C of the last seq, the last queue number, the time, the segment and offset where a replay
/// begins (both 0 in a new store), the last decided blob file, each row of [`SEGMENTS`], and the id
/// of the key, if recipients are hashed. Each number is 8 bytes, little-endian.
pub(crate) fn meta_checksum(
    naming: Naming,
    numbers: Counters,
    position: Option<Position>,
    blobs_through: u32,
    segments: &BTreeMap<u32, LiveCount>,
) -> u64 {
    let Position { segment, offset } = position.unwrap_or_default();
    let head = [numbers.seq.as_u64(), numbers.queue, numbers.time.as_ms()]
        .into_iter()
        .chain([segment, offset, blobs_through].map(u64::from));
    let rows = segments.iter().flat_map(|(segment, live)| [u64::from(*segment), live.items, live.bytes]);
    let key = naming.key_id().map(KeyId::as_number);
    let crc =
        head.chain(rows).chain(key).fold(0, |crc, number| crc32c::crc32c_append(crc, &number.to_le_bytes()));
    u64::from(crc)
}

pub(crate) fn encode_usage(usage: Usage) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    put_numbers(&mut bytes, [usage.items, usage.bytes]);
    bytes
}

pub(crate) fn decode_usage(bytes: &[u8]) -> Result<Usage, StoreError> {
    let mut row = Fields::new(bytes, "block");
    let usage = row.usage()?;
    row.end(usage)
}
