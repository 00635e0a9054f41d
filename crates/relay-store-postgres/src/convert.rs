//! Converts between the types of relay-core and those of the tables.

use relay_core::{ItemId, MessageId, Recipient, Seq, Timestamp, Usage};
use uuid::Uuid;

/// The key of a recipient's queue: the first 16 bytes of the hash of its name.
pub(crate) fn queue_key(recipient: &Recipient) -> Uuid {
    let hash = blake3::hash(recipient.as_str().as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(hash.as_bytes().split_at(16).0);
    Uuid::from_bytes(key)
}

pub(crate) const fn message_uuid(id: MessageId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

pub(crate) fn item_id(message_id: Uuid, chunk_index: i64) -> ItemId {
    let chunk_index = u32::try_from(chunk_index).unwrap_or(u32::MAX);
    ItemId { message_id: MessageId::from_bytes(message_id.into_bytes()), chunk_index }
}

/// Arrival numbers begin at their time, shifted by as many bits. So those of a new queue are above
/// those of a queue of the same recipient that was forgotten.
const SEQ_TIME_SHIFT: u32 = 20;

/// The first arrival number of a time.
pub(crate) fn first_seq(time: Timestamp) -> i64 {
    ms(time) << SEQ_TIME_SHIFT
}

/// A time no earlier than that of the item with this arrival number.
pub(crate) fn seq_time(seq: i64) -> Timestamp {
    timestamp(seq >> SEQ_TIME_SHIFT)
}

/// Times and arrival numbers fit into 63 bits. What does not is the end of all times.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(crate) fn ms(time: Timestamp) -> i64 {
    signed(time.as_ms())
}

pub(crate) fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_ms(unsigned(ms))
}

pub(crate) fn seq_number(seq: Seq) -> i64 {
    signed(seq.as_u64())
}

pub(crate) fn seq(number: i64) -> Seq {
    Seq::new(unsigned(number))
}

pub(crate) fn usage(items: i64, bytes: i64) -> Usage {
    Usage { items: unsigned(items), bytes: unsigned(bytes) }
}
