//! Blobs and the records of their items to the byte, and how invalid bytes are read.

use proptest::prelude::any;
use proptest::proptest;

use super::*;
use crate::samples::{self, alice, config, hex};

const LOCATION: Location = Location { segment: 0x8000_012c, offset: 36, length: 1041 };

fn item() -> Item<()> {
    Item { payload_bytes: 1004, ..samples::item() }
}

fn item_record() -> Vec<u8> {
    blob_record(7, &alice(), &item(), LOCATION)
}

fn frame(body: &'static [u8]) -> Frame {
    let body = [&blob_head(&alice(), item().id())[..], body].concat().into();
    Frame { kind: kind::BLOB, location: LOCATION, body }
}

/// Reads the payload of an item of alice's queue from a frame.
fn payload_of(frame: Frame, id: ItemId) -> Result<Bytes, StoreError> {
    of_frame(frame, Owner { queue: 7, recipient: &alice() }, item().seq, id)
}

#[test]
fn the_record_of_an_item_with_a_blob_to_the_byte() {
    // queue, seq, deadline, arrival, total_len, sent_ms, chunk index and count; message id;
    // kind; recipient; payload bytes; blob file 300, offset, length
    let expected = "07 ac02 8001 03 e807 02 01 03 30313233343536373839616263646566 \
                    06 6f7061717565 05 616c696365 ec07 ac02 24 9108";
    assert_eq!(hex(&item_record()), expected.replace(' ', ""));
    let bytes = item_record();
    let (found, location) = parse_blob_record(&bytes).unwrap();
    assert_eq!((found.queue, location), (7, LOCATION));
    assert_eq!(found.recipient().unwrap().as_str(), "alice");
    assert_eq!(found.item(&mut None).unwrap(), item());
    assert_eq!(found.row(location).unwrap(), ItemRow::new(&item(), LOCATION));
}

#[test]
fn a_blob_to_the_byte() {
    // message id; chunk index; recipient; the payload
    let expected = "30313233343536373839616263646566 01 05 616c696365 626f6479";
    assert_eq!(hex(&frame(b"body").body), expected.replace(' ', ""));
    assert_eq!(payload_of(frame(b"body"), item().id()).unwrap(), "body");
    assert_eq!(payload_of(frame(b""), item().id()).unwrap(), "");
}

#[test]
fn an_item_with_a_blob_gets_its_fields_from_its_row() {
    let row = ItemRow::new(&Item { payload_bytes: 4, ..item() }, LOCATION);
    let owner = Owner { queue: 7, recipient: &alice() };
    let found = item_of_frame(frame(b"body"), owner, row, &mut None).unwrap();
    assert_eq!(found, Item { payload_bytes: 4, ..item() }.with_body(Bytes::from("body")));
}

#[test]
fn the_blob_of_another_item_is_rejected() {
    let other = ItemId { chunk_index: 2, ..item().id() };
    assert!(payload_of(frame(b"body"), other).is_err());
    let other = ItemId { message_id: MessageId::from_bytes(*b"0123456789abcdeX"), ..item().id() };
    assert!(payload_of(frame(b"body"), other).is_err());
}

/// Also if the item of the other recipient has the same item id.
#[test]
fn the_blob_of_another_recipient_is_rejected() {
    for other in ["bob", "alice2", "alic"] {
        let recipient = Recipient::parse(other).unwrap();
        let row = ItemRow::new(&Item { payload_bytes: 4, ..item() }, LOCATION);
        let owner = Owner { queue: 7, recipient: &recipient };
        let read = of_frame(frame(b"body"), owner, item().seq, item().id());
        assert!(matches!(read, Err(StoreError::Corrupted(_))), "{other}: {read:?}");
        assert!(item_of_frame(frame(b"body"), owner, row, &mut None).is_err(), "{other}");
    }
}

#[test]
fn records_of_other_kinds_are_not_read_as_items() {
    let body: Bytes = record::item_head(7, &alice(), &item()).into();
    for (kind, is_item) in [(kind::PUSHED, true), (kind::MOVED, true), (kind::REMOVED, false), (0, false)] {
        let frame = Frame { kind, location: LOCATION, body: body.clone() };
        assert_eq!(payload_of(frame, item().id()).is_ok(), is_item, "kind {kind}");
    }
}

#[test]
fn records_that_are_too_short_or_too_long_are_errors() {
    let bytes = item_record();
    for length in 0..bytes.len() {
        assert!(parse_blob_record(&bytes[..length]).is_err(), "{length} bytes");
    }
    assert!(parse_blob_record(&[&bytes[..], &[0]].concat()).is_err());
    let head = blob_head(&alice(), item().id());
    for length in 0..head.len() {
        let frame = Frame { body: Bytes::copy_from_slice(&head[..length]), ..frame(b"") };
        assert!(payload_of(frame, item().id()).is_err(), "{length} bytes");
    }
}

#[test]
fn an_impossible_blob_file_number_is_an_error() {
    let (bytes, own) = (item_record(), "ac022491");
    assert!(hex(&bytes).contains(own));
    let number = [0x80, 0x80, 0x80, 0x80, 0x08];
    let end = bytes.len() - 5;
    assert!(parse_blob_record(&[&bytes[..end], &number, &bytes[end + 2..]].concat()).is_err());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        drop(parse_blob_record(&bytes));
        for kind in [kind::BLOB, kind::PUSHED] {
            drop(payload_of(Frame { kind, body: bytes.clone().into(), ..frame(b"") }, item().id()));
        }
    }

    #[test]
    fn a_record_with_one_changed_byte_never_panics(at in 0_usize..47, to in any::<u8>()) {
        let mut bytes = item_record();
        bytes[at] = to;
        if let Ok((found, location)) = parse_blob_record(&bytes) {
            drop((found.recipient(), found.row(location)));
        }
    }
}
