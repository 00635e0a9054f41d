//! Messages and their parts. The constructors validate, so a value of these types is always valid.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::error::Rejection;
use crate::limits::Limits;
use crate::time::Timestamp;

/// The prefix of a UUID in URN form (RFC 9562, section 4). The `uuid` crate accepts it in lower
/// case only.
const URN_PREFIX: &str = "urn:uuid:";

/// The name of a queue: an opaque string of 1 to 512 bytes that is not all blank, compared byte for
/// byte.
///
/// It is private: `Debug` hides the text, and there is no `Display`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipient(Arc<str>);

/// The UUID that the sender chose for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Uuid);

/// The position of an item within its message. Invariant: `index < count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    index: u32,
    count: u32,
}

/// The sender's label for the payload, 1 to 64 bytes and not blank. The relay stores it and never
/// acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind(Arc<str>);

/// Identifies an item within its queue: one chunk of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    /// The message that the chunk belongs to.
    pub message_id: MessageId,
    /// The index of the chunk, from 0.
    pub chunk_index: u32,
}

/// The arrival number of an item. It grows over the whole store and is never used twice. So "after
/// this item" stays valid when the item was removed, and even when its queue was empty since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

/// An item on its way into a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The destination queue.
    pub recipient: Recipient,
    /// The message that this item belongs to.
    pub message_id: MessageId,
    /// The position within the message.
    pub chunk: Chunk,
    /// The sender's label for the payload.
    pub kind: Kind,
    /// The length of the message in bytes, as the sender states it. The relay does not check it.
    pub total_len: u64,
    /// The sending time in milliseconds, as the sender states it. The relay does not check it.
    pub sent_ms: u64,
    /// How long the item is kept, in milliseconds, if that is less than
    /// [`Limits::ttl_ms`](crate::Limits::ttl_ms); otherwise, or if `None`, it is kept for that
    /// time.
    pub ttl_ms: Option<u64>,
    /// The ciphertext. The relay never reads it.
    pub payload: Bytes,
}

impl Recipient {
    /// The longest recipient, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 512;

    /// Validates a recipient.
    ///
    /// # Errors
    /// [`Rejection::InvalidInput`] if it is empty, all blank or longer than
    /// [`Recipient::BYTES_MAX`].
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        check_text("recipient", text, Self::BYTES_MAX).map(|()| Self(text.into()))
    }

    /// The unchanged text. Never log it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({} bytes)", self.0.len())
    }
}

impl MessageId {
    /// Parses a UUID in hyphenated, simple, braced or URN form, in upper or lower case.
    ///
    /// # Errors
    /// [`Rejection::InvalidInput`] for any other text.
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        let parsed = match text.split_at_checked(URN_PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(URN_PREFIX) => {
                // Only the hyphenated form may follow the prefix.
                Uuid::try_parse(rest).ok().filter(|_| rest.len() == 36)
            }
            _ => Uuid::try_parse(text).ok(),
        };
        let reason = "not a UUID in hyphenated, simple, braced or urn form";
        parsed.map(Self).ok_or_else(|| Rejection::invalid("message_id", reason))
    }

    /// Creates the id from the 16 bytes of the UUID.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of the UUID.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Formats the id as `Display` does, without an allocation: pages hold hundreds of ids.
    pub fn encode<'a>(&self, buffer: &'a mut [u8; 36]) -> &'a str {
        self.0.as_hyphenated().encode_lower(buffer)
    }
}

/// Hyphenated, in lower case.
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl Chunk {
    /// Chunk `index` (from 0) of `count`.
    ///
    /// # Errors
    /// [`Rejection::InvalidInput`] unless `index < count`.
    pub fn new(index: u32, count: u32) -> Result<Self, Rejection> {
        if count == 0 {
            return Err(Rejection::invalid("meta.chunk_count", "must be at least 1"));
        }
        if index >= count {
            return Err(Rejection::invalid("meta.chunk_index", "must be less than chunk_count"));
        }
        Ok(Self { index, count })
    }

    /// The index of this chunk, from 0.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The number of chunks of the message.
    pub const fn count(self) -> u32 {
        self.count
    }
}

impl Kind {
    /// The longest kind, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 64;

    /// Validates a kind.
    ///
    /// # Errors
    /// [`Rejection::InvalidInput`] if it is empty, all blank or longer than [`Kind::BYTES_MAX`].
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        check_text("meta.kind", text, Self::BYTES_MAX).map(|()| Self(text.into()))
    }

    /// The unchanged text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Seq {
    /// Lower than the arrival number of every item.
    pub const ZERO: Self = Self(0);

    /// Wraps a number that a store assigned.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The arrival number as an integer.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The following arrival number.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Envelope {
    /// The item's id within its queue.
    pub const fn id(&self) -> ItemId {
        ItemId { message_id: self.message_id, chunk_index: self.chunk.index }
    }

    /// The length of the payload in bytes, which quotas count.
    pub const fn payload_bytes(&self) -> u64 {
        self.payload.len() as u64
    }

    /// When the item expires if it is accepted at `now`.
    pub(crate) fn deadline(&self, now: Timestamp, limits: &Limits) -> Timestamp {
        now.plus_ms(self.ttl_ms.map_or(limits.ttl_ms, |ttl_ms| ttl_ms.min(limits.ttl_ms)))
    }
}

fn check_text(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Rejection> {
    if text.len() > bytes_max {
        let reason = format!("must be at most {bytes_max} bytes, is {}", text.len());
        return Err(Rejection::invalid(field, reason));
    }
    if text.trim().is_empty() {
        return Err(Rejection::invalid(field, "must not be empty or blank"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_is_any_text_of_1_to_512_bytes_that_is_not_blank() {
        let emoji = "🦀".repeat(128);
        for good in ["a", "a:b", "a/../b", " a ", "\"", "\u{0}", &emoji] {
            assert_eq!(Recipient::parse(good).unwrap().as_str(), good);
        }
        let long = format!("{emoji}a");
        for bad in ["", " ", "\t\n\u{a0}\u{3000}", &long] {
            assert!(matches!(Recipient::parse(bad), Err(Rejection::InvalidInput { field: "recipient", .. })));
        }
    }

    #[test]
    fn debug_hides_the_recipient() {
        let shown = format!("{:?}", Recipient::parse("alice").unwrap());
        assert_eq!(shown, "Recipient(5 bytes)");
    }

    #[test]
    fn a_message_id_has_four_input_forms_and_one_output_form() {
        let canonical = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        for form in [
            canonical,
            "67E55044-10B1-426F-9247-BB680E5FE0C8",
            "67e5504410b1426f9247bb680e5fe0c8",
            "{67e55044-10b1-426f-9247-bb680e5fe0c8}",
            "urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8",
            "URN:UUID:67E55044-10B1-426F-9247-BB680E5FE0C8",
        ] {
            assert_eq!(MessageId::parse(form).unwrap().to_string(), canonical, "{form}");
        }
        for bad in
            ["", "67e55044", "urn:uuid:", "urn:uuid:urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8", "ééééé"]
        {
            assert!(MessageId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_chunk_index_is_less_than_the_count() {
        assert!(Chunk::new(0, 1).is_ok());
        assert!(Chunk::new(u32::MAX - 1, u32::MAX).is_ok());
        for (index, count) in [(0, 0), (1, 1), (u32::MAX, u32::MAX)] {
            assert!(Chunk::new(index, count).is_err(), "{index} of {count}");
        }
    }

    #[test]
    fn a_kind_is_1_to_64_bytes() {
        assert!(Kind::parse(&"k".repeat(64)).is_ok());
        for bad in ["", "  ", &"k".repeat(65)] {
            assert!(Kind::parse(bad).is_err(), "{bad:?}");
        }
    }
}
