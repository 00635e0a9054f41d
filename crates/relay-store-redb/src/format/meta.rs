//! The tables of the index, the single numbers that it stores about itself, and rows that are one
//! value.

use std::collections::BTreeMap;

use redb::TableDefinition;
use relay_core::{Recipient, Seq, Timestamp, Usage};
use relay_journal::Position;

use super::fields::{Fields, put_number};
use super::segments::LiveCount;
use crate::error::StoreError;

/// The format of what is written here; another one is not read.
pub(crate) const FORMAT: u64 = 1;

/// Single numbers: see the `META_` names.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// From recipient to queue number, with CRC-32C of both behind it.
pub(crate) const RECIPIENTS: TableDefinition<'_, &str, (u64, u32)> = TableDefinition::new("names");
/// All other rows: a `Key`, and a value whose last four bytes are a checksum of both.
pub(crate) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// From segment of the journal, or payload file, to how many live items it holds, and how many
/// bytes their frames take.
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

/// How many bytes the keys and values of [`ROWS`] and [`RECIPIENTS`] have: whether the index is mostly
/// holes is told by it, and nothing else. Not there in a store whose index was made before they
/// were counted.
pub(crate) const META_ROWS_BYTES: &str = "rows_bytes";
/// How many bytes of the file went to 1,000 of those when it was last written anew.
pub(crate) const META_FILE_BYTES_PER_1000: &str = "file_bytes_per_1000";

/// A checksum of the numbers of the version, which are all but the format and the two above, and of
/// [`SEGMENTS`]: see [`meta_checksum`].
pub(crate) const META_CHECKSUM: &str = "checksum";

/// The last numbers given away, and when that was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) seq: Seq,
    pub(crate) queue: u64,
    /// The time that the store had come to.
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

/// A row that is one number: the arrival number of a name in the queue, or until when an acked name
/// is remembered.
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

/// CRC-32C of the last arrival number, the last queue number, the time, where a replay begins
/// (twice 0 in a new store), the last payload file that is decided, and each row of [`SEGMENTS`];
/// all as 8 bytes, little-endian.
pub(crate) fn meta_checksum(
    numbers: Counters,
    position: Option<Position>,
    payloads_through: u32,
    segments: &BTreeMap<u32, LiveCount>,
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
