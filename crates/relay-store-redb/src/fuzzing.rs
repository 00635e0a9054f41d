//! Entry points for fuzzers and their tests: arbitrary bytes as records and rows, and requests on a
//! failing disk. Only with the feature `fuzzing`; not a stable interface.

mod operations;

use relay_core::{ItemId, MessageId, Recipient, Seq};
use relay_journal::{Frame, Location};

pub use self::operations::operations;
use crate::error::StoreError;
use crate::format::packed_items::PackedItems;
use crate::format::record::{
    ExpiredEarly, Floored, ItemRecord, Owner, Removed, Trimmed, dropped, item_head, kind, parse_dropped,
};
use crate::format::{
    ItemRow, Key, ParsedKey, QueueRow, decode_owner, decode_seq, decode_until, decode_usage, encode_number,
    encode_usage,
};
use crate::io::payload;

/// Reads the body of a frame as each kind of record.
pub fn record(data: &[u8]) {
    if let Ok(record) = ItemRecord::parse(data) {
        item_record(&record, data);
    }
    if let Ok((record, location)) = payload::parse_blob_record(data)
        && let (Ok(item), Ok(recipient)) = (record.item(&mut None), record.recipient())
    {
        let written = payload::blob_record(record.queue, &recipient, &item, location);
        assert!(payload::parse_blob_record(&written).is_ok_and(|again| again == (record, location)));
    }
    round_trip(data, Removed::parse, Removed::encode);
    round_trip(data, Trimmed::parse, Trimmed::encode);
    round_trip(data, ExpiredEarly::parse, ExpiredEarly::encode);
    round_trip(data, Floored::parse, Floored::encode);
    round_trip(data, parse_dropped, |queue| dropped(*queue));
    let id = ItemId { message_id: MessageId::from_bytes([0; 16]), chunk_index: 0 };
    let Ok(recipient) = Recipient::parse("somebody") else { return };
    let owner = Owner { queue: 1, recipient: &recipient };
    drop(ItemRecord::parse_of(data, owner, Seq::new(1), id));
    let location = Location { segment: 1, offset: 0, length: 0 };
    let frame = Frame { kind: kind::BLOB, location, body: data.to_vec().into() };
    drop(payload::of_frame(frame, owner, Seq::new(1), id));
}

/// If `data` can be decoded, encodes the value again, and checks that it decodes to the same value.
fn round_trip<T: PartialEq>(
    data: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, StoreError>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let value = decode(data).ok()?;
    assert!(decode(&encode(&value)).is_ok_and(|again| again == value));
    Some(value)
}

fn item_record(record: &ItemRecord<'_>, data: &[u8]) {
    let (Ok(item), Ok(recipient)) = (record.item(&mut None), record.recipient()) else { return };
    assert!(record.payload_bytes <= data.len());
    let (_, payload) = data.split_at(data.len() - record.payload_bytes);
    let written = [&item_head(record.queue, &recipient, &item), payload].concat();
    assert!(ItemRecord::parse(&written).is_ok_and(|again| again == *record));
    let owner = Owner { queue: record.queue, recipient: &recipient };
    assert!(ItemRecord::parse_of(&written, owner, item.seq, item.id()).is_ok());
}

/// Packs the items of a row again, and removes each of them. The bytes may differ: LEB128 allows
/// numbers that are longer than necessary.
fn packed_items(packed: &PackedItems) {
    let items: Vec<_> = packed.iter().collect();
    let again: PackedItems = packed.iter().collect();
    assert_eq!((again.iter().collect::<Vec<_>>(), again.ends()), (items.clone(), packed.ends()));
    for removed in &items {
        let expected = items.iter().filter(|item| item.seq != removed.seq).cloned();
        let (taken, left) = packed.without(removed.seq).expect("the item exists");
        assert!(taken == *removed && left.iter().eq(expected), "without {}", removed.seq.as_u64());
    }
}

/// Reads bytes as a key of the index, and as the value of each kind of row.
pub fn rows(data: &[u8]) {
    if let Ok(key) = Key::from_bytes(data) {
        assert_eq!(&*key.bytes(), data);
        if let Ok(parsed) = key.parse() {
            assert_eq!(encode_key(parsed), key, "{parsed:?}");
        }
    }
    if let Some(row) = round_trip(data, QueueRow::decode, QueueRow::encode) {
        row.inline().into_iter().for_each(packed_items);
    }
    if let Some(row) = round_trip(data, |bytes| ItemRow::decode(Seq::ZERO, bytes), ItemRow::encode) {
        assert!(ItemRow::decode_bound(data).is_ok_and(|bound| bound == row.bound()));
        assert!(
            ItemRow::decode_weight(Seq::ZERO, data)
                .is_ok_and(|weight| weight == (row.position, row.payload_bytes))
        );
    }
    if let Some(seq) = round_trip(data, decode_seq, |seq| encode_number(seq.as_u64())) {
        assert!(decode_until(data).is_ok_and(|until| until.as_ms() == seq.as_u64()));
    }
    round_trip(data, decode_usage, |usage| encode_usage(*usage));
    if let Ok(recipient) = decode_owner(data) {
        assert_eq!(recipient.as_str().as_bytes(), data);
    }
}

fn encode_key(key: ParsedKey) -> Key {
    match key {
        ParsedKey::Owner(queue) => Key::owner(queue),
        ParsedKey::Queue(queue) => Key::queue(queue),
        ParsedKey::Item(queue, seq) => Key::item(queue, seq),
        ParsedKey::ById(queue, id) => Key::by_id(queue, id),
        ParsedKey::Block(queue, block) => Key::block(queue, block),
        ParsedKey::Floor(queue) => Key::floor(queue),
        ParsedKey::Early(queue, deadline, seq) => Key::early(queue, deadline, seq),
        ParsedKey::Dead(queue) => Key::dead(queue),
        ParsedKey::Due(at, queue) => Key::due(at, queue),
        ParsedKey::Acked(slot, queue, id) => Key::acked(slot, queue, id),
    }
}

/// Checks that two keys compare as their bytes do. The first byte is the length of the first key.
pub fn order(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let (left, right) = rest.split_at(usize::from(*length).min(rest.len()));
    if let (Ok(a), Ok(b)) = (Key::from_bytes(left), Key::from_bytes(right)) {
        assert_eq!(a.cmp(&b), left.cmp(right), "{a:?} and {b:?}");
    }
}
