//! Sample values for the tests of the formats.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;
use relay_core::{Chunk, Item, Kind, MessageId, Recipient, Seq, Timestamp};
use relay_journal::Location;

use crate::format::ItemRow;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An item with a payload of 4 bytes.
pub(crate) fn item() -> Item<()> {
    Item {
        seq: Seq::new(300),
        message_id: MessageId::from_bytes(*b"0123456789abcdef"),
        chunk: Chunk::new(1, 3).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 1000,
        sent_ms: 2,
        arrival: Timestamp::from_ms(3),
        deadline: Timestamp::from_ms(128),
        payload_bytes: 4,
        body: (),
    }
}

/// The recipient of [`item`].
pub(crate) fn alice() -> Recipient {
    Recipient::parse("alice").unwrap()
}

/// The row of [`item`].
pub(crate) fn item_row() -> ItemRow {
    ItemRow::new(&item(), Location { segment: 1, offset: 0, length: 1 })
}

/// A fixed seed, so that every run has the same cases.
pub(crate) fn config() -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}
