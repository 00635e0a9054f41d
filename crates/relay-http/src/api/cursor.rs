//! Encodes cursors for clients, as encrypted and authenticated text. In relay-core, a cursor is an
//! arrival number. That number counts all items of the store, so cursors must not reveal it: the
//! difference of two numbers would show how much others have pushed.
//!
//! The text is base64url without padding of 25 bytes: the version 2, a tag of 16 bytes, and the
//! number (8 bytes, big endian) XORed with a pad of 8 bytes. The tag is keyed BLAKE3 of the number
//! and the recipient. The pad is keyed BLAKE3 of the tag, under a second key. As in SIV (RFC 5297),
//! the tag authenticates the cursor and is also the nonce. The same item always has the same
//! cursor, and no two numbers share a nonce. A cursor with a changed bit, or of another recipient,
//! is refused. Nobody can forge a cursor without the key.
//!
//! Cursors of enigma-relay 0.0.3 are accepted too: base64 of the recipient, a colon and 20 digits.
//! They refer to items of the old relay, none of which is in this store, so they mean "from the
//! start". Cursors of version 1 contained the number in clear text and could be forged. They are
//! refused, because trying out numbers would reveal the number of an item.

use std::fmt;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use relay_core::{Recipient, Rejection, Seq};

const VERSION: u8 = 2;
const VERSION_0_0_3_DIGITS: usize = 20;

const TAG_BYTES: usize = 16;
const NUMBER_BYTES: usize = 8;
const CURSOR_BYTES: usize = 1 + TAG_BYTES + NUMBER_BYTES;
/// The length of the text.
const TEXT_BYTES: usize = (CURSOR_BYTES * 4).div_ceil(3);

/// The contexts of the key derivation. Changing them would invalidate all cursors.
const TAG_CONTEXT: &str = "relay cursor 2, tag of number and recipient";
const PAD_CONTEXT: &str = "relay cursor 2, pad of the number";

/// The key that encrypts and authenticates cursors. Clones share it. Cursors are valid for as long
/// as the relay starts with the same key.
#[derive(Clone)]
pub struct CursorKey(Arc<Keys>);

struct Keys {
    tag: [u8; blake3::KEY_LEN],
    pad: [u8; blake3::KEY_LEN],
}

impl CursorKey {
    /// Derives the key from these bytes, which must be secret, random, and used for nothing else.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let [tag, pad] = [TAG_CONTEXT, PAD_CONTEXT].map(|context| blake3::derive_key(context, key));
        Self(Arc::new(Keys { tag, pad }))
    }

    /// A new random key. Its cursors are invalid after a restart.
    ///
    /// # Errors
    /// When the operating system provides no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self::new(&key))
    }

    /// The cursor after the item `seq` of `recipient`'s queue.
    pub(crate) fn encode(&self, recipient: &Recipient, seq: Seq) -> String {
        let number = seq.as_u64();
        let tag = self.tag(recipient, number);
        let encrypted = (number ^ self.pad(&tag)).to_be_bytes();
        URL_SAFE_NO_PAD.encode([&[VERSION], &tag[..], &encrypted].concat())
    }

    /// The arrival number of the item before the cursor.
    ///
    /// # Errors
    /// [`Rejection::InvalidInput`] when the cursor is corrupt, or of another version, key or
    /// recipient.
    pub(crate) fn decode(&self, recipient: &Recipient, text: &str) -> Result<Seq, Rejection> {
        self.decode_field("cursor", recipient, text)
    }

    /// The same for a cursor in the field `field`.
    pub(crate) fn decode_field(
        &self,
        field: &'static str,
        recipient: &Recipient,
        text: &str,
    ) -> Result<Seq, Rejection> {
        self.decode_2(recipient, text)
            .or_else(|| decode_0_0_3(recipient, text))
            .ok_or_else(|| Rejection::invalid(field, "is invalid or belongs to another recipient"))
    }

    fn decode_2(&self, recipient: &Recipient, text: &str) -> Option<Seq> {
        if text.len() != TEXT_BYTES {
            return None;
        }
        let bytes: [u8; CURSOR_BYTES] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (version, rest) = bytes.split_first()?;
        let (tag, rest) = rest.split_first_chunk::<TAG_BYTES>()?;
        let number = u64::from_be_bytes(rest.try_into().ok()?) ^ self.pad(tag);
        let is_ours = *version == VERSION && is_equal(tag, &self.tag(recipient, number));
        is_ours.then(|| Seq::new(number))
    }

    fn tag(&self, recipient: &Recipient, number: u64) -> [u8; TAG_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0.tag);
        hasher.update(&number.to_be_bytes()).update(recipient.as_str().as_bytes());
        let mut tag = [0; TAG_BYTES];
        hasher.finalize_xof().fill(&mut tag);
        tag
    }

    fn pad(&self, tag: &[u8; TAG_BYTES]) -> u64 {
        let hash = blake3::keyed_hash(&self.0.pad, tag);
        u64::from_be_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }
}

/// Hides the key.
impl fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorKey(..)")
    }
}

/// Compares in constant time, so that an attacker cannot guess a tag byte by byte.
fn is_equal(one: &[u8; TAG_BYTES], other: &[u8; TAG_BYTES]) -> bool {
    // The comparison of two hashes of blake3 takes constant time.
    let padded = |tag: &[u8; TAG_BYTES]| {
        let mut hash = [0; blake3::OUT_LEN];
        let (begin, _) = hash.split_at_mut(TAG_BYTES);
        begin.copy_from_slice(tag);
        blake3::Hash::from_bytes(hash)
    };
    padded(one) == padded(other)
}

fn decode_0_0_3(recipient: &Recipient, text: &str) -> Option<Seq> {
    let bytes = recipient.as_str().len() + 1 + VERSION_0_0_3_DIGITS;
    if text.len() != bytes.div_ceil(3) * 4 {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    // A recipient may contain colons.
    let (owner, digits) = text.rsplit_once(':')?;
    let is_number = digits.len() == VERSION_0_0_3_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && owner == recipient.as_str()).then_some(Seq::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(text: &str) -> Recipient {
        Recipient::parse(text).unwrap()
    }

    /// The key of the bytes 0, 1, 2 up to 31.
    fn key() -> CursorKey {
        CursorKey::new(&std::array::from_fn(|number| u8::try_from(number).unwrap()))
    }

    #[test]
    fn the_text_of_a_cursor_never_changes() {
        let check = |owner: &str, seq, text: &str| {
            assert_eq!(key().encode(&recipient(owner), Seq::new(seq)), text);
            assert_eq!(key().decode(&recipient(owner), text), Ok(Seq::new(seq)));
        };
        check("alice", 0, "AjDhqdlNU3rMTkxzbHbFlR_YTU0kmO4CeA");
        check("alice", 1, "AmitJXMLuc5VUmGCouLgHW35qVBlMKgR1A");
        check("alice", 0x0102_0304_0506_0708, "Ahoz027b-dbz3PqzSHexVR44rB_D-IDGuQ");
        check("alice", u64::MAX, "AogDxdCoKUMbi9U-9FXmz77dR5yXOeIYmw");
        check("a:\"b\"\n\u{1f980}", 7, "Ai-5dl30v4grarZboeo80tgNbsJVevZyHA");
    }

    #[test]
    fn a_cursor_is_valid_for_one_recipient_and_one_key() {
        let text = key().encode(&recipient("alice"), Seq::new(7));
        for other in ["bob", "alice ", "Alice", "alic"] {
            assert!(key().decode(&recipient(other), &text).is_err(), "{other}");
        }
        assert!(CursorKey::new(&[7; 32]).decode(&recipient("alice"), &text).is_err());
        let random = [CursorKey::random().unwrap(), CursorKey::random().unwrap()];
        let texts = random.map(|key| key.encode(&recipient("alice"), Seq::new(7)));
        assert_ne!(texts[0], texts[1]);
    }

    /// Each bit differs in about half of the pairs, also the high bits of the number.
    #[test]
    fn cursors_of_consecutive_numbers_look_unrelated() {
        let alice = recipient("alice");
        let bytes = |seq| URL_SAFE_NO_PAD.decode(key().encode(&alice, Seq::new(seq))).unwrap();
        for bit in 8..CURSOR_BYTES * 8 {
            let is_set = |seq| bytes(seq)[bit / 8] >> (bit % 8) & 1;
            let changes = (0..256).filter(|seq| is_set(*seq) != is_set(seq + 1)).count();
            assert!((64..192).contains(&changes), "bit {bit} changes {changes} times in 256");
        }
    }

    #[test]
    fn debug_output_hides_the_key() {
        assert_eq!(format!("{:?}", key()), "CursorKey(..)");
    }

    #[test]
    fn every_corrupt_cursor_is_refused() {
        let alice = recipient("alice");
        let valid = URL_SAFE_NO_PAD.decode(key().encode(&alice, Seq::new(7))).unwrap();
        for bit in 0..valid.len() * 8 {
            let mut corrupt = valid.clone();
            corrupt[bit / 8] ^= 1 << (bit % 8);
            assert!(key().decode(&alice, &URL_SAFE_NO_PAD.encode(corrupt)).is_err(), "bit {bit}");
        }
        for len in 0..valid.len() {
            assert!(key().decode(&alice, &URL_SAFE_NO_PAD.encode(&valid[..len])).is_err(), "{len} bytes");
        }
        for garbage in
            ["", " ", "null", "0", "ééé", "====", &"A".repeat(TEXT_BYTES), &"é".repeat(TEXT_BYTES / 2)]
        {
            assert!(key().decode(&alice, garbage).is_err(), "{garbage}");
        }
        // Unused bits at the end: another text of the same bytes.
        let text = key().encode(&alice, Seq::new(7));
        for last in ["B", "P", "="] {
            assert!(key().decode(&alice, &format!("{}{last}", &text[..TEXT_BYTES - 1])).is_err(), "{last}");
        }
    }

    #[test]
    fn cursors_of_version_1_are_refused() {
        for text in ["AQAAAAAAAAAAj_FPNkzyy6I", "AQAAAAAAAAABVo-gHpajV8g", "Af__________G9YBDyysYx0"] {
            assert!(key().decode(&recipient("alice"), text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cursor_of_0_0_3_means_from_the_start() {
        let check = |owner: &str, digits: &str, reader: &str, expected: Option<Seq>| {
            let text = STANDARD.encode(format!("{owner}:{digits}"));
            assert_eq!(
                key().decode(&recipient(reader), &text).ok(),
                expected,
                "{owner}:{digits} for {reader}"
            );
        };
        check("alice", "00000000000000000042", "alice", Some(Seq::ZERO));
        check(
            "a:b:00000000000000000001",
            "00000000000000000042",
            "a:b:00000000000000000001",
            Some(Seq::ZERO),
        );
        check("bob", "00000000000000000042", "alice", None);
        check("alice", "0000000000000000042", "alice", None);
        check("alice", "0000000000000000004x", "alice", None);
        check("alice", "000000000000000000042", "alice", None);
    }
}
