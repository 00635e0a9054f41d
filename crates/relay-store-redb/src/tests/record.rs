//! Records to the byte, and how invalid bytes are read.

use proptest::prelude::{any, prop_assert_eq};
use proptest::proptest;

use super::*;
use crate::samples::{alice, config, hex, item};

fn pushed() -> Bytes {
    let head = item_head(7, &alice(), &item());
    [&head[..], b"body"].concat().into()
}

#[test]
fn an_item_to_the_byte() {
    // queue, seq, deadline, arrival, total_len, sent_ms, chunk index and count; message id;
    // kind; recipient; the payload
    let expected = "07 ac02 8001 03 e807 02 01 03 30313233343536373839616263646566 \
                    06 6f7061717565 05 616c696365 626f6479";
    assert_eq!(hex(&pushed()), expected.replace(' ', ""));
    let body = pushed();
    let record = ItemRecord::parse(&body).unwrap();
    assert_eq!((record.queue, record.seq), (7, Seq::new(300)));
    assert_eq!(record.recipient().unwrap().as_str(), "alice");
    assert_eq!(record.item(&mut None).unwrap(), item());
    let location = Location { segment: 7, offset: 36, length: 100 };
    assert_eq!(record.row(location).unwrap(), ItemRow::new(&item(), location));
    let owner = Owner { queue: 7, recipient: &alice() };
    let bytes = ItemRecord::parse_of(&body, owner, item().seq, item().id()).unwrap().payload_bytes;
    assert_eq!(payload_of(body.clone(), bytes), "body");
}

#[test]
fn the_record_of_another_item_is_rejected() {
    let (other, recipient) = (ItemId { chunk_index: 2, ..item().id() }, alice());
    let owner = Owner { queue: 7, recipient: &recipient };
    assert!(ItemRecord::parse_of(&pushed(), owner, Seq::new(300), other).is_err());
    assert!(ItemRecord::parse_of(&pushed(), owner, Seq::new(301), item().id()).is_err());
}

#[test]
fn the_record_of_another_queue_is_rejected() {
    let bob = Recipient::parse("bob").unwrap();
    for owner in [Owner { queue: 7, recipient: &bob }, Owner { queue: 8, recipient: &alice() }] {
        let found = ItemRecord::parse_of(&pushed(), owner, item().seq, item().id()).map(drop);
        assert!(
            matches!(found, Err(StoreError::Corrupted(what)) if what.contains("another queue")),
            "{found:?}"
        );
    }
}

#[test]
fn a_removal_to_the_byte() {
    let items = vec![(Seq::new(1), None), (Seq::new(300), Some(Timestamp::from_ms(128)))];
    let removed = Removed { queue: 7, slot_ms: 9375, items };
    // queue, length of a slot, then seq and end of the dedup window of each item
    assert_eq!(hex(&removed.encode()), "07 9f49 01 00 ac02 8001".replace(' ', ""));
    assert_eq!(Removed::parse(&removed.encode()).unwrap(), removed);
}

/// The front of a spilled queue.
fn trimmed() -> Trimmed {
    let sum = FrontSum {
        first: Seq::new(5),
        blocks: [(0, Usage { items: 300, bytes: 128 }), (1, Usage { items: 1, bytes: 2 })].into(),
        segments: [(3, LiveCount { items: 301, bytes: 20_000 })].into(),
    };
    Trimmed { queue: 7, now: Timestamp::from_ms(128), through: Seq::new(300), sum: Some(sum) }
}

#[test]
fn a_removal_of_expired_items_to_the_byte() {
    let alone = Trimmed { sum: None, ..trimmed() };
    // queue, time, the last item
    assert_eq!(hex(&alone.encode()), "07 8001 ac02".replace(' ', ""));
    // the same, the first item, the number of blocks; for each its number, items and bytes; then
    // for each segment its number, live frames and their bytes
    let expected = "07 8001 ac02 05 02 00 ac02 8001 01 01 02 03 ad02 a09c01";
    assert_eq!(hex(&trimmed().encode()), expected.replace(' ', ""));
    for trimmed in [alone, trimmed()] {
        assert_eq!(Trimmed::parse(&trimmed.encode()).unwrap(), trimmed);
    }
}

#[test]
fn the_front_of_a_queue_is_summed_by_block_and_segment() {
    let (mut sum, location) = (FrontSum::default(), Location { segment: 3, offset: 36, length: 100 });
    let row = ItemRow { payload_bytes: 10, ..ItemRow::new(&item(), location) };
    for (position, segment) in [(510, 3), (511, 3), (512, 4)] {
        sum.add(&ItemRow { position, location: Location { segment, ..location }, ..row.clone() });
    }
    let (one, two) = (Usage { items: 1, bytes: 10 }, Usage { items: 2, bytes: 20 });
    assert_eq!(
        (sum.first, sum.blocks.clone(), sum.usage()),
        (row.seq, [(0, two), (1, one)].into(), two.plus(one))
    );
    let live = |items| LiveCount { items, bytes: 100 * items };
    assert_eq!(sum.segments, [(3, live(2)), (4, live(1))].into());
}

#[test]
fn early_items_that_expired_to_the_byte() {
    let items = vec![Seq::new(5), Seq::new(300)];
    let some =
        ExpiredEarly { queue: 7, now: Timestamp::from_ms(128), next: Some(Timestamp::from_ms(129)), items };
    // queue, time, the next deadline; each item
    assert_eq!(hex(&some.encode()), "07 8001 8101 05 ac02".replace(' ', ""));
    let none = ExpiredEarly { next: None, items: Vec::new(), ..some };
    assert_eq!(hex(&none.encode()), "07 8001 00".replace(' ', ""));
    for expired in [some, none] {
        assert_eq!(ExpiredEarly::parse(&expired.encode()).unwrap(), expired);
    }
    assert!(ExpiredEarly::parse(&[7, 1]).is_err() && ExpiredEarly::parse(&[7, 1, 0, 0x80]).is_err());
}

#[test]
fn a_floor_to_the_byte() {
    let left = Usage { items: 300, bytes: 128 };
    let (at, until) = (Timestamp::from_ms(128), Some(Timestamp::from_ms(129)));
    let floored = Floored { queue: 7, floor: Floor { through: Seq::new(300), at, until, left } };
    // queue, the last item, time, the end of the dedup window; items and bytes that are left
    assert_eq!(hex(&floored.encode()), "07 ac02 8001 8101 ac02 8001".replace(' ', ""));
    let none = Floored { queue: 7, floor: Floor::default() };
    assert_eq!(hex(&none.encode()), "070000000000");
    for floored in [floored, none] {
        let body = floored.encode();
        assert_eq!(Floored::parse(&body).unwrap(), floored);
        assert!((0..body.len()).all(|length| Floored::parse(&body[..length]).is_err()));
        assert!(Floored::parse(&[&body[..], &[0]].concat()).is_err());
    }
}

#[test]
fn a_forgotten_queue_to_the_byte() {
    assert_eq!(hex(&dropped(300)), "ac02");
    assert_eq!(parse_dropped(&dropped(300)).unwrap(), 300);
    assert!(parse_dropped(&[7, 0]).is_err());
    assert!(parse_dropped(&[]).is_err());
}

#[test]
fn records_that_are_cut_short_are_errors() {
    let body = pushed();
    for length in 0..body.len() - "body".len() {
        assert!(ItemRecord::parse(&body[..length]).is_err(), "{length} bytes");
    }
    assert!(Removed::parse(&[7, 1, 1]).is_err());
    let body = trimmed().encode();
    // Without a sum it ends after the last item, and the number of segments is not stored.
    for length in (0..body.len()).filter(|length| ![5, 15].contains(length)) {
        assert!(Trimmed::parse(&body[..length]).is_err(), "{length} bytes");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        if let Ok(record) = ItemRecord::parse(&bytes) {
            drop((record.recipient(), record.item(&mut None)));
        }
        let owner = Owner { queue: 7, recipient: &alice() };
        drop(ItemRecord::parse_of(&bytes, owner, Seq::new(1), item().id()));
        if let Ok(removed) = Removed::parse(&bytes) {
            prop_assert_eq!(Removed::parse(&removed.encode()).unwrap(), removed);
        }
        if let Ok(trimmed) = Trimmed::parse(&bytes) {
            prop_assert_eq!(Trimmed::parse(&trimmed.encode()).unwrap(), trimmed);
        }
        drop(parse_dropped(&bytes));
    }

    #[test]
    fn a_record_with_one_changed_byte_never_panics(at in 0_usize..44, to in any::<u8>()) {
        let mut bytes = pushed().to_vec();
        bytes[at] = to;
        if let Ok(record) = ItemRecord::parse(&bytes) {
            drop((record.recipient(), record.item(&mut None)));
        }
    }
}
