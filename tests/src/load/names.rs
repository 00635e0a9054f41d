//! Recipients and message ids, computed from numbers: they look random, are the same in every run,
//! and are never stored.

/// Maps item numbers to recipients and message ids.
#[derive(Clone, Copy, Debug)]
pub struct ItemIds {
    seed: u64,
    recipients: u64,
}

impl ItemIds {
    /// Length of a recipient: 64 hexadecimal digits, as in real clients.
    pub const RECIPIENT_BYTES: usize = 64;
    /// Length of a message id.
    pub const MESSAGE_BYTES: usize = 36;

    /// Ids of items for `recipients` recipients. Another seed gives other message ids for the same
    /// recipients.
    pub fn new(seed: u64, recipients: u64) -> Self {
        Self { seed: mix(seed), recipients: recipients.max(1) }
    }

    /// The number of the recipient of an item. All recipients are equally likely.
    pub const fn recipient_of(&self, item: u64) -> u64 {
        mix(self.message(item).1) % self.recipients
    }

    /// Appends the recipient with this number.
    pub fn write_recipient(recipient: u64, text: &mut Vec<u8>) {
        let first = mix(recipient);
        for word in [first, mix(first), mix(!first), mix(first.rotate_left(32))] {
            write_hex(word, text);
        }
    }

    /// Appends the message id of an item. No two items of one seed share one.
    pub fn write_message(&self, item: u64, text: &mut Vec<u8>) {
        let (high, low) = self.message(item);
        let [high1, high2] = halves(high);
        let [low1, low2] = halves(low);
        // Groups of 8-4-4-4-12: the last four digits of the second pair begin the last group.
        text.extend_from_slice(&digits(high1));
        for half in [high2, low1] {
            let [a, b, c, d, e, f, g, h] = digits(half);
            text.extend_from_slice(&[b'-', a, b, c, d, b'-', e, f, g, h]);
        }
        text.extend_from_slice(&digits(low2));
    }

    const fn message(&self, item: u64) -> (u64, u64) {
        // `mix` is a bijection, so the first half alone distinguishes items.
        let high = mix(self.seed.wrapping_add(item));
        (high, mix(high ^ self.seed))
    }
}

/// Scrambles a number with the bijective finalizer of SplitMix64.
pub const fn mix(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn write_hex(word: u64, text: &mut Vec<u8>) {
    for half in halves(word) {
        text.extend_from_slice(&digits(half));
    }
}

const fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
}

/// Eight lower-case hexadecimal digits, computed in parallel: each byte of a word holds one digit.
const fn digits(number: u32) -> [u8; 8] {
    let mut word = number as u64;
    word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte that is 10 or more. Those become letters: `a` is 39 after the character that
    // follows `9`.
    let letters = ((word + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (word + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use relay_core::{MessageId, Recipient};

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut text = Vec::new();
        write(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn digits_are_hexadecimal() {
        for number in [0, 9, 10, 0x1234_5678, 0x9abc_def0, u32::MAX] {
            assert_eq!(digits(number), format!("{number:08x}").as_bytes());
        }
    }

    #[test]
    fn ids_are_valid_and_unique() {
        let ids = ItemIds::new(7, 100);
        let mut messages = HashSet::new();
        let mut recipients = HashSet::new();
        for item in 0..10_000 {
            let message = written(|text| ids.write_message(item, text));
            assert_eq!(MessageId::parse(&message).unwrap().to_string(), message);
            assert_eq!(message.len(), ItemIds::MESSAGE_BYTES);
            assert!(messages.insert(message));
            recipients.insert(written(|text| ItemIds::write_recipient(ids.recipient_of(item), text)));
        }
        assert_eq!(recipients.len(), 100, "all recipients are used, and no other");
        for recipient in recipients {
            assert_eq!(Recipient::parse(&recipient).unwrap().as_str().len(), ItemIds::RECIPIENT_BYTES);
        }
    }

    #[test]
    fn a_seed_changes_the_message_ids() {
        let [one, other] = [1, 2].map(|seed| written(|text| ItemIds::new(seed, 9).write_message(0, text)));
        assert_ne!(one, other);
    }
}
