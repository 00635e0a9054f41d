//! Names of recipients and message ids, computed from numbers: they look random, are the same in
//! every run, and are never stored.

use super::recipients::Recipients;
use super::scramble::{digits, halves, mix};

/// Maps item numbers to recipients and message ids.
#[derive(Clone, Debug)]
pub struct ItemIds {
    seed: u64,
    recipients: Recipients,
}

impl ItemIds {
    /// Length of a message id.
    pub const MESSAGE_BYTES: usize = 36;

    /// Ids of items for `recipients` plain recipients. Another seed gives other message ids for the
    /// same recipients.
    pub fn new(seed: u64, recipients: u64) -> Self {
        Self::of(seed, Recipients::computed(recipients))
    }

    /// Ids of items for these recipients.
    pub const fn of(seed: u64, recipients: Recipients) -> Self {
        Self { seed: mix(seed), recipients }
    }

    /// The recipients.
    pub const fn recipients(&self) -> &Recipients {
        &self.recipients
    }

    /// The number of the recipient of an item. All recipients are equally likely.
    pub const fn recipient_of(&self, item: u64) -> u64 {
        mix(self.message(item).1) % self.recipients.count()
    }

    /// The number of the recipient whose owner sends an item. All recipients are equally likely.
    pub const fn sender_of(&self, item: u64) -> u64 {
        mix(!self.message(item).1) % self.recipients.count()
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use relay_core::{MessageId, Recipient};

    use crate::load::scramble::write_name;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut text = Vec::new();
        write(&mut text);
        String::from_utf8(text).unwrap()
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
            recipients.insert(written(|text| write_name(ids.recipient_of(item), text)));
        }
        assert_eq!(recipients.len(), 100, "all recipients are used, and no other");
        for recipient in recipients {
            assert_eq!(Recipient::parse(&recipient).unwrap().as_str().len(), Recipients::COMPUTED_BYTES);
        }
    }

    #[test]
    fn a_seed_changes_the_message_ids() {
        let [one, other] = [1, 2].map(|seed| written(|text| ItemIds::new(seed, 9).write_message(0, text)));
        assert_ne!(one, other);
    }
}
