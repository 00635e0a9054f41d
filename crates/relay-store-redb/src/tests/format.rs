//! Keys and rows to the byte, their order, and how invalid bytes are read.

use proptest::prelude::{any, prop_assert, prop_assert_eq};
use proptest::proptest;

use relay_core::{Item, ItemId, MessageId, Seq, Timestamp, Usage};
use relay_journal::Location;

use super::*;
use crate::index::snapshot::IndexSnapshot;
use crate::samples::{self, config, hex};

const ID: ItemId = ItemId { message_id: MessageId::from_bytes(*b"0123456789abcdef"), chunk_index: 0x0a0b };

fn ends() -> Ends {
    let first = End { seq: Seq::new(5), bound: Timestamp::from_ms(1000) };
    Ends { first, last: End { seq: Seq::new(300), bound: Timestamp::from_ms(2000) } }
}

fn item() -> ItemRow {
    item_at(7)
}

/// A queue with two inline items.
fn inline() -> QueueRow {
    let first = ItemRow { position: 0, ..item() };
    let second = ItemRow { seq: Seq::new(300), position: 0, ..item_with_blob() };
    QueueRow {
        remembers_until: Timestamp::from_ms(1),
        ..QueueRow::holding([first, second].into_iter().collect())
    }
}

fn spilled() -> QueueRow {
    let positions = Positions { next: 514, open_block: Usage { items: 1, bytes: 128 } };
    let usage = Usage { items: 2, bytes: 300 };
    let remembers_until = Timestamp::from_ms(1);
    let (ends, items) = (Some(ends()), Items::Spilled(positions));
    QueueRow { usage, remembers_until, ends, early_from: None, floor: None, items }
}

fn floor() -> Floor {
    let left = Usage { items: 1, bytes: 128 };
    Floor { through: Seq::new(7), at: Timestamp::from_ms(9), until: None, left }
}

/// The item, behind one that expires 2 ms later.
fn early_item() -> ItemRow {
    item().behind(Some(item().deadline.plus_ms(2)))
}

fn item_with_blob() -> ItemRow {
    item_at(0x8000_0007)
}

fn item_at(segment: u32) -> ItemRow {
    let deadline = Timestamp::from_ms(1_700_000_000_000);
    let item = Item { seq: Seq::new(5), deadline, payload_bytes: 200, ..samples::item() };
    ItemRow { position: 513, ..ItemRow::new(&item, Location { segment, offset: 4096, length: 333 }) }
}

#[test]
fn keys_to_the_byte() {
    let (seq, at) = (Seq::new(0x1122), Timestamp::from_ms(0x3344));
    for (key, expected) in [
        (Key::owner(0x0102), "00 0000000000000102"),
        (Key::dead(0x0102), "01 0000000000000102"),
        (Key::queue(0x0102), "02 0000000000000102"),
        (Key::item(0x0102, seq), "03 0000000000000102 01 0000000000001122"),
        (Key::by_id(0x0102, ID), "03 0000000000000102 02 30313233343536373839616263646566 00000a0b"),
        (Key::block(0x0102, 9), "03 0000000000000102 03 0000000000000009"),
        (Key::early(0x0102, at, seq), "03 0000000000000102 04 0000000000003344 0000000000001122"),
        (Key::floor(0x0102), "06 0000000000000102"),
        (Key::due(at, 0x0102), "04 0000000000003344 0000000000000102"),
        (
            Key::acked(at, 1, ID),
            "05 0000000000003344 0000000000000001 30313233343536373839616263646566 00000a0b",
        ),
    ] {
        assert_eq!(format!("{key:?}"), expected.replace(' ', ""));
    }
}

#[test]
fn rows_to_the_byte() {
    // end of the last dedup window, layout of the items
    assert_eq!(hex(&QueueRow::default().encode()), "0000");
    // the same; items, bytes, next position, items and bytes of the open block; seq and deadline of
    // the first item and of the last
    assert_eq!(hex(&spilled().encode()), "01 01 02 ac02 8204 01 8001 05 e807 ac02 d00f".replace(' ', ""));
    // the same, then the earliest deadline of an item that expires early
    let row = QueueRow { early_from: Some(Timestamp::from_ms(999)), ..spilled() };
    assert_eq!(hex(&row.encode()), "01 02 02 ac02 8204 01 8001 05 e807 ac02 d00f e707".replace(' ', ""));
    // the same with its floor: the last item, its time, no dedup window, items and bytes
    let row = QueueRow { floor: Some(floor()), ..row };
    let expected = "01 04 02 ac02 8204 01 8001 05 e807 ac02 d00f e707 07 09 00 01 8001";
    assert_eq!(hex(&row.encode()), expected.replace(' ', ""));
    // the same without early items
    let row = QueueRow { early_from: None, ..row };
    let expected = "01 03 02 ac02 8204 01 8001 05 e807 ac02 d00f 07 09 00 01 8001";
    assert_eq!(hex(&row.encode()), expected.replace(' ', ""));
    // the same; for each item seq and deadline, as differences to the item before, and the fields
    // that follow the position below
    let expected = "01 00 05 80d095ffbc31 c801 07 8020 cd02 01 30313233343536373839616263646566 \
                    a702 00 c801 8780808008 8020 cd02 01 30313233343536373839616263646566 \
                    03 e807 02 03 06 6f7061717565";
    assert_eq!(hex(&inline().encode()), expected.replace(' ', ""));

    // deadline, position, payload, segment, offset, length; chunk index; message id
    let expected = "80d095ffbc31 8104 c801 07 8020 cd02 01 30313233343536373839616263646566";
    assert_eq!(hex(&item().encode()), expected.replace(' ', ""));
    // bound; the same, with 2^32 added to the chunk index; then the deadline
    let expected =
        "82d095ffbc31 8104 c801 07 8020 cd02 8180808010 30313233343536373839616263646566 80d095ffbc31";
    assert_eq!(hex(&early_item().encode()), expected.replace(' ', ""));
    // the first, then arrival, total_len, sent_ms, chunk count; length of the kind, and the kind
    let expected = "80d095ffbc31 8104 c801 8780808008 8020 cd02 01 30313233343536373839616263646566 \
                    03 e807 02 03 06 6f7061717565";
    assert_eq!(hex(&item_with_blob().encode()), expected.replace(' ', ""));

    assert_eq!(hex(&encode_number(300)), "ac02");
    assert_eq!(decode_owner(b"alice").unwrap().as_str(), "alice");
    assert!(decode_owner(b" ").is_err() && decode_owner(&[0xff]).is_err());
    // CRC-32C of the recipient, then of the queue number as 8 bytes, little-endian.
    assert_eq!(name_checksum("alice", 0x0102), NAME_CHECKSUM);
    assert_eq!(hex(&encode_usage(Usage { items: 511, bytes: 70_000 })), "ff03f0a204");
}

/// The value is followed by CRC-32C of key and value, little-endian.
#[test]
fn stored_values_to_the_byte() {
    let key = Key::due(Timestamp::from_ms(0x3344), 0x0102);
    assert_eq!(hex(&IndexSnapshot::with_checksum(&key, &[])), DUE_CHECKSUM);
    let key = Key::by_id(0x0102, ID);
    assert_eq!(
        hex(&IndexSnapshot::with_checksum(&key, &encode_number(300))),
        format!("ac02{BY_ID_CHECKSUM}")
    );
}

// Computed by another implementation, bit by bit, with the reflected polynomial 0x82f63b78.
const DUE_CHECKSUM: &str = "91412296";
const NAME_CHECKSUM: u32 = 0xf8ab_a7d1;
const BY_ID_CHECKSUM: &str = "d59a73a8";

#[test]
fn rows_decode_as_they_were_encoded() {
    let early = QueueRow { early_from: Some(Timestamp::from_ms(999)), ..spilled() };
    let floored = QueueRow { floor: Some(floor()), ..spilled() };
    let both = QueueRow { floor: Some(floor()), ..early.clone() };
    for row in [QueueRow::default(), inline(), spilled(), early, floored, both] {
        assert_eq!(QueueRow::decode(&row.encode()).unwrap(), row);
    }
    for item in [item(), early_item(), item_with_blob()] {
        assert_eq!(ItemRow::decode(Seq::new(5), &item.encode()).unwrap(), item);
        assert_eq!(ItemRow::decode_bound(&item.encode()).unwrap(), item.bound());
        assert_eq!(ItemRow::decode_weight(item.seq, &item.encode()).unwrap(), (513, 200));
    }
}

#[test]
fn rows_that_are_too_short_or_too_long_are_errors() {
    for item in [item(), early_item(), item_with_blob()] {
        let row = item.encode();
        for length in 0..row.len() {
            assert!(ItemRow::decode(Seq::ZERO, &row[..length]).is_err(), "{length} bytes of an item");
        }
        assert!(ItemRow::decode(Seq::ZERO, &[&row[..], &[0]].concat()).is_err());
    }
    let row = spilled().encode();
    for length in 0..row.len() {
        assert!(QueueRow::decode(&row[..length]).is_err(), "{length} bytes of a queue");
    }
    // Only the checksum detects a cut between two items.
    let (row, first) = (
        inline().encode(),
        QueueRow::holding([ItemRow { position: 0, ..item() }].into_iter().collect()).encode(),
    );
    for length in (0..row.len()).filter(|length| ![2, first.len()].contains(length)) {
        assert!(QueueRow::decode(&row[..length]).is_err(), "{length} bytes of an inline queue");
    }
    for row in [&[][..], &[0x80], &[5, 0]] {
        assert!(decode_seq(row).is_err() && decode_until(row).is_err(), "{row:?}");
    }
    for row in [&[][..], &[1], &[1, 0x80], &[1, 2, 3]] {
        assert!(decode_usage(row).is_err(), "{row:?}");
    }
    for key in [
        Key::dead(1),
        Key::queue(1),
        Key::item(1, Seq::ZERO),
        Key::by_id(1, ID),
        Key::due(Timestamp::default(), 1),
    ] {
        let bytes = key.bytes();
        let bytes: &[u8] = &bytes;
        for length in 0..bytes.len() {
            assert!(Key::from_bytes(&bytes[..length]).unwrap().parse().is_err(), "{length} bytes of {key:?}");
        }
        assert!(
            Key::from_bytes(&[bytes, &[0]].concat()).and_then(|key| key.parse()).is_err(),
            "{key:?} and one more"
        );
    }
    assert!(Key::from_bytes(&[3; 38]).is_err(), "longer than any key");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn keys_are_ordered_as_their_numbers(a in any::<[u64; 3]>(), b in any::<[u64; 3]>()) {
        let id = |[_, high, low]: [u64; 3]| {
            let message_id = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
            ItemId { message_id: MessageId::from_bytes(message_id), chunk_index: 7 }
        };
        let at = |[first, ..]: [u64; 3]| Timestamp::from_ms(first);
        prop_assert_eq!(Key::item(a[0], Seq::new(a[1])).cmp(&Key::item(b[0], Seq::new(b[1]))), a[..2].cmp(&b[..2]));
        prop_assert_eq!(Key::block(a[0], a[1]).cmp(&Key::block(b[0], b[1])), a[..2].cmp(&b[..2]));
        prop_assert_eq!(Key::due(at(a), a[1]).cmp(&Key::due(at(b), b[1])), a[..2].cmp(&b[..2]));
        prop_assert_eq!(Key::by_id(a[0], id(a)).cmp(&Key::by_id(b[0], id(b))), a.cmp(&b));
        prop_assert_eq!(Key::acked(at(a), 5, id(a)).cmp(&Key::acked(at(b), 5, id(b))), a.cmp(&b));
        for (key, parsed) in [
            (Key::owner(a[0]), ParsedKey::Owner(a[0])),
            (Key::dead(a[0]), ParsedKey::Dead(a[0])),
            (Key::queue(a[0]), ParsedKey::Queue(a[0])),
            (Key::item(a[0], Seq::new(a[1])), ParsedKey::Item(a[0], Seq::new(a[1]))),
            (Key::by_id(a[0], id(a)), ParsedKey::ById(a[0], id(a))),
            (Key::block(a[0], a[1]), ParsedKey::Block(a[0], a[1])),
            (Key::due(at(a), a[1]), ParsedKey::Due(at(a), a[1])),
            (Key::acked(at(a), a[1], id(a)), ParsedKey::Acked(at(a), a[1], id(a))),
        ] {
            prop_assert_eq!(key.parse().unwrap(), parsed);
            prop_assert_eq!(Key::from_bytes(&key.bytes()).unwrap(), key);
        }
        // The kinds of rows, and the parts of a queue, follow each other.
        let [queue, number, _] = a;
        prop_assert!(Key::start() < Key::owner(queue) && Key::owner(queue) < Key::dead_start());
        prop_assert!(Key::dead_start() < Key::dead(queue) && Key::dead(queue) < Key::queues_start());
        prop_assert!(Key::queues_start() < Key::queue(queue) && Key::queue(queue) < Key::queues_end());
        prop_assert!(Key::queues_end() < Key::items_start(queue));
        prop_assert!(Key::items_start(queue) < Key::item(queue, Seq::new(number)));
        prop_assert!(Key::item(queue, Seq::new(number)) < Key::items_end(queue));
        prop_assert!(Key::items_end(queue) < Key::by_id(queue, id(a)) && Key::by_id(queue, id(a)) < Key::by_id_end(queue));
        prop_assert!(Key::by_id_end(queue) < Key::block(queue, number) && Key::block(queue, number) < Key::early_start(queue));
        let early = Key::early(queue, at(a), Seq::new(number));
        prop_assert!(Key::early_start(queue) < early && early < Key::rows_end(queue));
        prop_assert!(a[0] == u64::MAX || early < Key::early_end(queue, at(a)));
        prop_assert!(Key::due_start() < Key::due(at(a), queue) && Key::due(at(a), queue) < Key::acked_start());
        let acked = Key::acked(at(a), queue, id(a));
        prop_assert!(Key::acked_start() <= Key::acked_in(at(a)) && Key::acked_in(at(a)) < Key::acked_of(at(a), queue));
        prop_assert!(Key::acked_of(at(a), queue) < acked && acked < Key::end());
        prop_assert!(acked.slot() == at(a) && (a[0] == u64::MAX || acked < Key::acked_end(at(a))));
    }

    #[test]
    fn an_inline_queue_keeps_its_items_in_order(seqs in proptest::collection::btree_set(any::<u64>(), 0..20), step in 0..u64::MAX / 32) {
        let items = seqs.into_iter().zip(0..).map(|(seq, number)| {
            let deadline = Timestamp::from_ms(step * number);
            ItemRow { seq: Seq::new(seq), deadline, position: 0, ..item() }.behind(Some(Timestamp::from_ms(step * (number / 2 * 2))))
        });
        let row = QueueRow::holding(items.collect());
        prop_assert_eq!(QueueRow::decode(&row.encode()).unwrap(), row);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        if let Ok(key) = Key::from_bytes(&bytes) {
            drop(key.parse());
            let written = key.bytes();
            prop_assert_eq!(&*written, &bytes[..]);
        }
        if let Ok(row) = QueueRow::decode(&bytes) {
            prop_assert_eq!(QueueRow::decode(&row.encode()).unwrap(), row);
        }
        if let Ok(row) = ItemRow::decode(Seq::ZERO, &bytes) {
            prop_assert_eq!(ItemRow::decode(Seq::ZERO, &row.encode()).unwrap(), row);
        }
        if let Ok(seq) = decode_seq(&bytes) {
            prop_assert_eq!(decode_seq(&encode_number(seq.as_u64())).unwrap(), seq);
        }
        drop(decode_until(&bytes));
        drop(decode_usage(&bytes));
        drop(ItemRow::decode_bound(&bytes));
    }
}
