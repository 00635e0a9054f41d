//! What travels through the relay. Every type here is checked when it is made and cannot be wrong
//! afterwards.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::error::Rejection;

/// How a UUID in urn form begins (RFC 9562, section 4); the `uuid` crate reads it in lower case
/// only.
const URN_PREFIX: &str = "urn:uuid:";

/// The name of a queue: an opaque string of 1 to 512 bytes that is not all blank, compared byte for
/// byte.
///
/// Who talks to whom is nobody's business, so `Debug` does not show it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipient(Arc<str>);

/// The sender's name for a message, a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Uuid);

/// Which part of a message an item is. Invariant: `index < count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    index: u32,
    count: u32,
}

/// What the sender says that the payload is, 1 to 64 bytes and not blank. The relay stores it and
/// never acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind(Arc<str>);

/// The name of an item within its queue: one chunk of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    /// The message that the chunk belongs to.
    pub message_id: MessageId,
    /// The number of the chunk, from 0.
    pub chunk_index: u32,
}

/// The arrival number of an item. It grows over the whole store and is never used twice, so that
/// "after this one" keeps its meaning when the item is gone and even when its queue was empty in
/// between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

/// An item on its way into a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The queue that it goes to.
    pub recipient: Recipient,
    /// The message that it is a part of.
    pub message_id: MessageId,
    /// Which part.
    pub chunk: Chunk,
    /// The sender's word for the payload.
    pub kind: Kind,
    /// The sender's word for the length of the whole message; stored and returned, not checked.
    pub total_len: u64,
    /// The sender's clock; stored and returned, not checked.
    pub sent_ms: u64,
    /// The ciphertext. The relay never looks into it.
    pub payload: Bytes,
}

impl Recipient {
    /// The longest recipient, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 512;

    /// Checks and takes a recipient.
    ///
    /// # Errors
    /// [`Rejection::InvalidInput`] when it is empty, all blank or longer than
    /// [`Recipient::BYTES_MAX`].
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        check_text("recipient", text, Self::BYTES_MAX).map(|()| Self(text.into()))
    }

    /// The recipient as it was given.
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
    /// Reads a UUID in hyphenated, simple, braced or urn form, in any case.
    ///
    /// # Errors
    /// [`Rejection::InvalidInput`] when it is none of these.
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        let parsed = match text.split_at_checked(URN_PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(URN_PREFIX) => parse_hyphenated(rest),
            _ => Uuid::try_parse(text).ok(),
        };
        let reason = "not a UUID in hyphenated, simple, braced or urn form";
        parsed.map(Self).ok_or_else(|| Rejection::invalid("message_id", reason))
    }

    /// The identifier with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of the UUID.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The text that `Display` shows, put into `buffer`: pages hold hundreds of them.
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

impl FromStr for MessageId {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        Self::parse(text)
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

    /// The number of this chunk, from 0.
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

    /// Checks and takes a kind.
    ///
    /// # Errors
    /// [`Rejection::InvalidInput`] when it is empty, all blank or longer than [`Kind::BYTES_MAX`].
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        check_text("meta.kind", text, Self::BYTES_MAX).map(|()| Self(text.into()))
    }

    /// The kind as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Seq {
    /// Before every item.
    pub const ZERO: Self = Self(0);

    /// The arrival number `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number itself.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The arrival number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Envelope {
    /// The name of the item within its queue.
    pub const fn id(&self) -> ItemId {
        ItemId { message_id: self.message_id, chunk_index: self.chunk.index }
    }

    /// The length of the payload: what quotas count.
    pub const fn payload_bytes(&self) -> u64 {
        self.payload.len() as u64
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

/// The hyphenated form alone: the urn form holds no other.
fn parse_hyphenated(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
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
    fn debug_does_not_tell_the_recipient() {
        let shown = format!("{:?}", Recipient::parse("alice").unwrap());
        assert_eq!(shown, "Recipient(5 bytes)");
    }

    #[test]
    fn a_message_id_is_read_in_four_forms_and_written_in_one() {
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
    fn a_chunk_lies_within_its_message() {
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
