//! The text of a cursor. What a cursor means is relay-core's: an arrival number. Here it gets a form that a client carries
//! around and hands back, now or in a year.
//!
//! The form is base64url without padding of 17 bytes: the version 1, the number (8 bytes, big endian), and 8 bytes that bind
//! it to its recipient. The binding is SipHash-2-4 under a key that everybody knows: it catches a client that mixes up its
//! cursors, and it keeps no secret. Nothing needs one, since a forged cursor shows only a page of a queue that the
//! caller may read from the start anyway.
//!
//! Cursors of enigma-relay 0.0.3 are read too. They are base64 of the recipient, a colon and 20 digits that count that relay's
//! items, none of which is in this store. A client that comes with one has seen nothing of this queue yet, so it means "from
//! the start".

use std::hash::Hasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use relay_core::{Recipient, Rejection, Seq};
use siphasher::sip::SipHasher24;

const VERSION: u8 = 1;
const VERSION_0_0_3_DIGITS: usize = 20;

/// The cursor that stands after the item `seq` of `recipient`'s queue.
pub(crate) fn encode(recipient: &Recipient, seq: Seq) -> String {
    let mut bytes = [VERSION; 17];
    let (_, rest) = bytes.split_at_mut(1);
    let (number, bound_to) = rest.split_at_mut(8);
    number.copy_from_slice(&seq.as_u64().to_be_bytes());
    bound_to.copy_from_slice(&binding(recipient, seq));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The arrival number that a cursor of `recipient`'s queue stands after.
///
/// # Errors
/// [`Rejection::InvalidInput`] when it is broken, of another version, or of another recipient.
pub(crate) fn decode(recipient: &Recipient, text: &str) -> Result<Seq, Rejection> {
    decode_1(recipient, text)
        .or_else(|| decode_0_0_3(recipient, text))
        .ok_or_else(|| Rejection::invalid("cursor", "it is broken or belongs to another recipient"))
}

fn decode_1(recipient: &Recipient, text: &str) -> Option<Seq> {
    let bytes: [u8; 17] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (version, rest) = bytes.split_first()?;
    let (number, bound_to) = rest.split_first_chunk::<8>()?;
    let seq = Seq::new(u64::from_be_bytes(*number));
    (*version == VERSION && bound_to == binding(recipient, seq)).then_some(seq)
}

fn decode_0_0_3(recipient: &Recipient, text: &str) -> Option<Seq> {
    let text = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    // A recipient may hold colons itself.
    let (owner, digits) = text.rsplit_once(':')?;
    let is_number = digits.len() == VERSION_0_0_3_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && owner == recipient.as_str()).then_some(Seq::ZERO)
}

fn binding(recipient: &Recipient, seq: Seq) -> [u8; 8] {
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    hasher.write(recipient.as_str().as_bytes());
    hasher.write(&seq.as_u64().to_be_bytes());
    hasher.finish().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(text: &str) -> Recipient {
        Recipient::parse(text).unwrap()
    }

    #[test]
    fn the_text_never_changes() {
        let alice = recipient("alice");
        let check = |seq, text: &str| {
            assert_eq!(encode(&alice, Seq::new(seq)), text);
            assert_eq!(decode(&alice, text), Ok(Seq::new(seq)));
        };
        check(0, "AQAAAAAAAAAAj_FPNkzyy6I");
        check(1, "AQAAAAAAAAABVo-gHpajV8g");
        check(0x0102_0304_0506_0708, "AQECAwQFBgcINQwcD0lwgEE");
        check(u64::MAX, "Af__________G9YBDyysYx0");
    }

    #[test]
    fn a_cursor_fits_one_recipient_only() {
        let text = encode(&recipient("alice"), Seq::new(7));
        for other in ["bob", "alice ", "Alice", "alic"] {
            assert!(decode(&recipient(other), &text).is_err(), "{other}");
        }
    }

    #[test]
    fn every_damaged_cursor_is_refused() {
        let alice = recipient("alice");
        let whole = URL_SAFE_NO_PAD.decode(encode(&alice, Seq::new(7))).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&alice, &URL_SAFE_NO_PAD.encode(damaged)).is_err(), "bit {bit}");
        }
        for len in 0..whole.len() {
            assert!(decode(&alice, &URL_SAFE_NO_PAD.encode(&whole[..len])).is_err(), "{len} bytes");
        }
        for garbage in ["", " ", "null", "0", "ééé", "===="] {
            assert!(decode(&alice, garbage).is_err(), "{garbage}");
        }
    }

    #[test]
    fn a_cursor_of_0_0_3_means_from_the_start() {
        let check = |owner: &str, digits: &str, reader: &str, expected: Option<Seq>| {
            let text = STANDARD.encode(format!("{owner}:{digits}"));
            assert_eq!(decode(&recipient(reader), &text).ok(), expected, "{owner}:{digits} for {reader}");
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
