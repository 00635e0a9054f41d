//! How the files of a store name recipients: by their text, or by a hash that needs a key. The
//! store never hashes; whoever calls it does, and the store only remembers by which key.

use std::fmt;
use std::str::FromStr;

/// The format of a store whose recipients are plain: the first one.
pub(crate) const FORMAT_PLAIN: u64 = 1;
/// The format of a store whose recipients are hashed. It differs only in the key id that the index
/// contains. Builds that know format 1 only must not open it: they would find no recipient.
pub(crate) const FORMAT_HASHED: u64 = 2;

/// Identifies the key that hashes recipients. It is derived from the key, but reveals nothing of
/// it. As text, it is 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(u64);

/// What the files of a store contain in place of a recipient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// The recipient itself.
    #[default]
    Plain,
    /// A hash of the recipient, by the key with this id.
    Hashed(KeyId),
}

impl KeyId {
    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// The bytes of the id, of which [`Self::from_bytes`] is the reverse.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    pub(crate) const fn from_number(number: u64) -> Self {
        Self(number)
    }

    pub(crate) const fn as_number(self) -> u64 {
        self.0
    }
}

impl Naming {
    /// The format of a store with this naming. A build that knows only plain recipients refuses the
    /// other format, instead of serving empty queues.
    pub(crate) const fn format(self) -> u64 {
        match self {
            Self::Plain => FORMAT_PLAIN,
            Self::Hashed(_) => FORMAT_HASHED,
        }
    }

    /// The id of the key; `None` if recipients are plain.
    #[must_use]
    pub const fn key_id(self) -> Option<KeyId> {
        match self {
            Self::Plain => None,
            Self::Hashed(id) => Some(id),
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for KeyId {
    type Err = NoKeyId;

    fn from_str(text: &str) -> Result<Self, NoKeyId> {
        let is_canonical =
            text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_canonical);
        number.map(Self).ok_or(NoKeyId)
    }
}

/// A text that is not the id of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id of a key is 16 hexadecimal digits in lower case")]
pub struct NoKeyId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_key_is_text_in_one_spelling() {
        let id = KeyId::from_bytes([0, 1, 2, 3, 4, 5, 6, 0xff]);
        assert_eq!(id.to_string(), "00010203040506ff");
        assert_eq!("00010203040506ff".parse(), Ok(id));
        for text in ["", "00010203040506fF", "+0010203040506ff", "10203040506ff", "00010203040506ff0", "é"] {
            assert_eq!(text.parse::<KeyId>(), Err(NoKeyId), "{text}");
        }
    }
}
