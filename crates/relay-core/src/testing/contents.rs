//! Generates items from short labels, deterministically. Two labels, chunks or queues never get the
//! same content, so tests notice a misplaced payload.

use bytes::Bytes;

use crate::error::Rejection;
use crate::message::{Chunk, Envelope, Kind, MessageId, Recipient};

/// The short description of an item.
#[derive(Clone, Debug)]
pub(super) struct Content<'a> {
    pub(super) recipient: Recipient,
    /// The label of the message, which determines its id.
    pub(super) message: &'a str,
    pub(super) chunk_index: u32,
    pub(super) chunk_count: u32,
    pub(super) payload_bytes: usize,
    pub(super) ttl_ms: Option<u64>,
    /// Distinguishes contents that are pushed under one item id.
    pub(super) seed: &'a str,
}

impl Content<'_> {
    pub(super) fn envelope(&self) -> Result<Envelope, Rejection> {
        let chunk = Chunk::new(self.chunk_index, self.chunk_count)?;
        let index = self.chunk_index.to_string();
        let mut noise = Noise::new(&[self.recipient.as_str(), self.message, &index, self.seed]);
        let (total_len, sent_ms) = (noise.next_number(), noise.next_number());
        let kind = match noise.next_number() % 3 {
            0 => "opaque",
            1 => "signaling",
            _ => "attachment",
        };
        Ok(Envelope {
            recipient: self.recipient.clone(),
            message_id: message_id(self.message),
            chunk,
            kind: Kind::parse(kind)?,
            total_len,
            sent_ms,
            ttl_ms: self.ttl_ms,
            payload: noise.take(self.payload_bytes).collect::<Bytes>(),
        })
    }
}

/// The id of the message with this label.
pub(super) fn message_id(label: &str) -> MessageId {
    let mut noise = Noise::new(&["message", label]);
    let (high, low) = (u128::from(noise.next_number()), u128::from(noise.next_number()));
    MessageId::from_bytes((high << 64 | low).to_be_bytes())
}

/// An endless sequence of pseudo-random bytes that depends only on the seed.
struct Noise(u64);

impl Noise {
    fn new(parts: &[&str]) -> Self {
        // FNV-1a. The byte 0xff, which UTF-8 text never contains, separates the parts.
        let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
        Self(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        }))
    }

    /// The next step of SplitMix64.
    fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Iterator for Noise {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let [.., last] = self.next_number().to_be_bytes();
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_description_affects_the_content() {
        let plain = |recipient: &str, message, chunk_index, seed| {
            let recipient = Recipient::parse(recipient).unwrap();
            let content = Content {
                recipient,
                message,
                chunk_index,
                chunk_count: 3,
                payload_bytes: 16,
                ttl_ms: None,
                seed,
            };
            content.envelope().unwrap()
        };
        let first = plain("alice", "m1", 0, "");
        assert_eq!(first, plain("alice", "m1", 0, ""));
        for other in [
            plain("bob", "m1", 0, ""),
            plain("alice", "m2", 0, ""),
            plain("alice", "m1", 1, ""),
            plain("alice", "m1", 0, "x"),
            plain("alicem", "1", 0, ""),
        ] {
            assert_ne!(first.payload, other.payload);
            assert_ne!(first.sent_ms, other.sent_ms);
        }
        assert_eq!(first.message_id, plain("bob", "m1", 2, "x").message_id);
        assert_ne!(first.message_id, plain("alice", "m2", 0, "").message_id);
    }
}
