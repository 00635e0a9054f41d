//! What fuzzers and their tests run: bytes of any origin, taken for records and rows, and requests
//! on a disk that fails. Compiled with the feature `fuzzing` alone; nothing of it is part of a
//! running relay, and nothing is promised to stay.

mod operations;

use relay_core::{ItemId, MessageId, Recipient, Seq};
use relay_journal::{Frame, Location};

pub use self::operations::operations;
use crate::format::packed_items::PackedItems;
use crate::format::record::{ItemRecord, Owner, Removed, Trimmed, dropped, item_head, kind, parse_dropped};
use crate::format::{
    ItemRow, Key, ParsedKey, QueueRow, decode_owner, decode_seq, decode_until, decode_usage, encode_number,
    encode_usage,
};
use crate::io::payload;

/// The body of a frame of the journal, taken for a record of each kind.
pub fn record(data: &[u8]) {
    if let Ok(record) = ItemRecord::parse(data) {
        item_record(&record, data);
    }
    if let Ok((record, location)) = payload::parse_record(data)
        && let (Ok(item), Ok(recipient)) = (record.item(&mut None), record.recipient())
    {
        let written = payload::record(record.queue, &recipient, &item, location);
        assert!(payload::parse_record(&written).is_ok_and(|again| again == (record, location)));
    }
    if let Ok(removed) = Removed::parse(data) {
        assert!(Removed::parse(&removed.encode()).is_ok_and(|again| again == removed));
    }
    if let Ok(trimmed) = Trimmed::parse(data) {
        assert!(Trimmed::parse(&trimmed.encode()).is_ok_and(|again| again == trimmed));
    }
    if let Ok(queue) = parse_dropped(data) {
        assert!(parse_dropped(&dropped(queue)).is_ok_and(|again| again == queue));
    }
    let id = ItemId { message_id: MessageId::from_bytes([0; 16]), chunk_index: 0 };
    let Ok(recipient) = Recipient::parse("somebody") else { return };
    let owner = Owner { queue: 1, recipient: &recipient };
    drop(ItemRecord::parse_of(data, owner, Seq::new(1), id));
    let location = Location { segment: 1, offset: 0, length: 0 };
    let frame = Frame { kind: kind::PAYLOAD, location, body: data.to_vec().into() };
    drop(payload::of_frame(frame, owner, Seq::new(1), id));
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

/// The items of a row, packed again, and without each of them. Counters may have been written longer
/// than they need to be.
fn packed_anew(few: &PackedItems) {
    let items: Vec<_> = few.iter().collect();
    let again: PackedItems = few.iter().collect();
    assert_eq!((again.iter().collect::<Vec<_>>(), again.ends()), (items.clone(), few.ends()));
    for gone in &items {
        let expected = items.iter().filter(|item| item.seq != gone.seq).cloned();
        let (taken, left) = few.without(gone.seq).expect("it is there");
        assert!(taken == *gone && left.iter().eq(expected), "without {}", gone.seq.as_u64());
    }
}

/// A key of the index, or the value of a row of each kind.
pub fn rows(data: &[u8]) {
    if let Ok(key) = Key::from_bytes(data) {
        assert_eq!(&*key.bytes(), data);
        if let Ok(parsed) = key.parse() {
            assert_eq!(made(parsed), key, "{parsed:?}");
        }
    }
    if let Ok(row) = QueueRow::decode(data) {
        assert!(QueueRow::decode(&row.encode()).is_ok_and(|again| again == row));
        row.inline().into_iter().for_each(packed_anew);
    }
    if let Ok(row) = ItemRow::decode(Seq::ZERO, data) {
        assert!(ItemRow::decode(Seq::ZERO, &row.encode()).is_ok_and(|again| again == row));
        assert!(ItemRow::decode_deadline(data).is_ok_and(|deadline| deadline == row.deadline));
        assert!(
            ItemRow::decode_weight(Seq::ZERO, data)
                .is_ok_and(|weight| weight == (row.position, row.payload_bytes))
        );
    }
    if let Ok(seq) = decode_seq(data) {
        assert!(decode_seq(&encode_number(seq.as_u64())).is_ok_and(|again| again == seq));
        assert!(decode_until(data).is_ok_and(|until| until.as_ms() == seq.as_u64()));
    }
    if let Ok(usage) = decode_usage(data) {
        assert!(decode_usage(&encode_usage(usage)).is_ok_and(|again| again == usage));
    }
    if let Ok(recipient) = decode_owner(data) {
        assert_eq!(recipient.as_str().as_bytes(), data);
    }
}

fn made(key: ParsedKey) -> Key {
    match key {
        ParsedKey::Owner(queue) => Key::owner(queue),
        ParsedKey::Queue(queue) => Key::queue(queue),
        ParsedKey::Item(queue, seq) => Key::item(queue, seq),
        ParsedKey::ById(queue, id) => Key::by_id(queue, id),
        ParsedKey::Block(queue, block) => Key::block(queue, block),
        ParsedKey::Dead(queue) => Key::dead(queue),
        ParsedKey::Due(at, queue) => Key::due(at, queue),
        ParsedKey::Acked(slot, queue, id) => Key::acked(slot, queue, id),
    }
}

/// Two keys compare as their bytes do. The first byte tells where the second begins.
pub fn order(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let (left, right) = rest.split_at(usize::from(*length).min(rest.len()));
    if let (Ok(a), Ok(b)) = (Key::from_bytes(left), Key::from_bytes(right)) {
        assert_eq!(a.cmp(&b), left.cmp(right), "{a:?} and {b:?}");
    }
}
