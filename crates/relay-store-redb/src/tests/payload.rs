//! What lies aside, to the byte, and what garbage becomes.

use proptest::prelude::any;
use proptest::proptest;

use super::*;
use crate::samples::{self, alice, config, hex};

const LOCATION: Location = Location { segment: 0x8000_012c, offset: 36, length: 1041 };

fn item() -> Item<()> {
    Item { payload_bytes: 1004, ..samples::item() }
}

fn item_record() -> Vec<u8> {
    record(7, &alice(), &item(), LOCATION)
}

fn frame(body: &'static [u8]) -> Frame {
    let body = [&head(&alice(), item().id())[..], body].concat().into();
    Frame { kind: kind::PAYLOAD, location: LOCATION, body }
}

/// The payload of the frame, as that of this item of alice's queue.
fn payload_of(frame: Frame, id: ItemId) -> Result<Bytes, StoreError> {
    of_frame(frame, Owner { queue: 7, recipient: &alice() }, item().seq, id)
}

#[test]
fn the_record_of_an_item_whose_payload_lies_aside_to_the_byte() {
    // queue, number, deadline, arrival, total_len, sent_ms, chunk index and count; message id;
    // kind; recipient; payload bytes; payload file 300, offset, length
    let expected = "07 ac02 8001 03 e807 02 01 03 30313233343536373839616263646566 \
                    06 6f7061717565 05 616c696365 ec07 ac02 24 9108";
    assert_eq!(hex(&item_record()), expected.replace(' ', ""));
    let bytes = item_record();
    let (found, location) = parse_record(&bytes).unwrap();
    assert_eq!((found.queue, location), (7, LOCATION));
    assert_eq!(found.recipient().unwrap().as_str(), "alice");
    assert_eq!(found.item(&mut None).unwrap(), item());
    assert_eq!(found.row(location).unwrap(), ItemRow::new(&item(), LOCATION));
}

#[test]
fn a_payload_to_the_byte() {
    // message id; chunk index; recipient; the payload
    let expected = "30313233343536373839616263646566 01 05 616c696365 626f6479";
    assert_eq!(hex(&frame(b"body").body), expected.replace(' ', ""));
    assert_eq!(payload_of(frame(b"body"), item().id()).unwrap(), "body");
    assert_eq!(payload_of(frame(b""), item().id()).unwrap(), "");
}

#[test]
fn what_was_told_of_an_item_comes_from_its_row() {
    let row = ItemRow::new(&Item { payload_bytes: 4, ..item() }, LOCATION);
    let owner = Owner { queue: 7, recipient: &alice() };
    let found = item_of_frame(frame(b"body"), owner, row, &mut None).unwrap();
    assert_eq!(found, Item { payload_bytes: 4, ..item() }.with_body(Bytes::from("body")));
}

#[test]
fn another_items_payload_is_not_taken_for_it() {
    let other = ItemId { chunk_index: 2, ..item().id() };
    assert!(payload_of(frame(b"body"), other).is_err());
    let other = ItemId { message_id: MessageId::from_bytes(*b"0123456789abcdeX"), ..item().id() };
    assert!(payload_of(frame(b"body"), other).is_err());
}

/// Also if the other item has the same name.
#[test]
fn the_payload_of_another_recipient_is_not_given_away() {
    for other in ["bob", "alice2", "alic"] {
        let recipient = Recipient::parse(other).unwrap();
        let row = ItemRow::new(&Item { payload_bytes: 4, ..item() }, LOCATION);
        let owner = Owner { queue: 7, recipient: &recipient };
        let read = of_frame(frame(b"body"), owner, item().seq, item().id());
        assert!(matches!(read, Err(StoreError::Corrupted(_))), "{other}: {read:?}");
        assert!(item_of_frame(frame(b"body"), owner, row, &mut None).is_err(), "{other}");
    }
}

/// It would be read as what it is not.
#[test]
fn a_record_of_another_kind_is_not_taken_for_that_of_an_item() {
    let body: Bytes = record::item_head(7, &alice(), &item()).into();
    for (kind, is_item) in [(kind::PUSHED, true), (kind::MOVED, true), (kind::REMOVED, false), (0, false)] {
        let frame = Frame { kind, location: LOCATION, body: body.clone() };
        assert_eq!(payload_of(frame, item().id()).is_ok(), is_item, "kind {kind}");
    }
}

#[test]
fn what_is_cut_short_or_too_long_is_reported() {
    let bytes = item_record();
    for length in 0..bytes.len() {
        assert!(parse_record(&bytes[..length]).is_err(), "{length} bytes");
    }
    assert!(parse_record(&[&bytes[..], &[0]].concat()).is_err());
    let head = head(&alice(), item().id());
    for length in 0..head.len() {
        let frame = Frame { body: Bytes::copy_from_slice(&head[..length]), ..frame(b"") };
        assert!(payload_of(frame, item().id()).is_err(), "{length} bytes");
    }
}

#[test]
fn a_number_that_no_payload_file_has_is_reported() {
    let (bytes, own) = (item_record(), "ac022491");
    assert!(hex(&bytes).contains(own));
    let number = [0x80, 0x80, 0x80, 0x80, 0x08];
    let end = bytes.len() - 5;
    assert!(parse_record(&[&bytes[..end], &number, &bytes[end + 2..]].concat()).is_err());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn garbage_is_reported_and_never_a_panic(bytes in any::<Vec<u8>>()) {
        drop(parse_record(&bytes));
        for kind in [kind::PAYLOAD, kind::PUSHED] {
            drop(payload_of(Frame { kind, body: bytes.clone().into(), ..frame(b"") }, item().id()));
        }
    }

    #[test]
    fn a_true_record_with_a_byte_changed_is_never_a_panic(at in 0_usize..47, to in any::<u8>()) {
        let mut bytes = item_record();
        bytes[at] = to;
        if let Ok((found, location)) = parse_record(&bytes) {
            drop((found.recipient(), found.row(location)));
        }
    }
}
