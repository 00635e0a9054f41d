//! The exact records in the journal of a small store. A random salt makes the frames around them
//! different each time; the tests of `relay-journal` check those.

use relay_core::{Ack, Relay};
use relay_store_redb::Options;

use crate::world::{World, envelope, id, payload, recipient, small_options};

#[test]
fn the_records_of_a_small_store() {
    let world = World::new().with_options(Options { segment_bytes: 1 << 20, ..small_options() });
    let relay = world.open();
    for number in [1, 2] {
        assert!(world.block_on(relay.push(envelope(0, number, 2))).unwrap().is_stored());
    }
    let ack = Ack::new(recipient(0), vec![id(1)]).unwrap();
    assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, 1);
    world.clock.advance_ms(world.limits.ttl_ms);
    assert_eq!(world.block_on(relay.sweep()).unwrap().items, 1);
    let records: Vec<String> =
        world.frames().iter().map(|frame| format!("{}{}", frame.kind, hex(&frame.body))).collect();
    let expected = [
        // queue 1, number 1, deadline, arrival, total_len, sent_ms, chunk 0 of 1; message id; kind;
        // recipient; payload
        "1 01 01 e8d795ffbc31 80d095ffbc31 02 01 00 01 00000000000000000000000000000001 \
         06 6f7061717565 0e 71756575652d6f662d616c696365 dd78",
        "1 01 02 e8d795ffbc31 80d095ffbc31 02 02 00 01 00000000000000000000000000000002 \
         06 6f7061717565 0e 71756575652d6f662d616c696365 4cb5",
        // queue 1, slots of 15 ms, number 1, remembered for half a second
        "3 01 0f 01 f4d395ffbc31",
        // queue 1, time, through number 2
        "4 01 e8d795ffbc31 02",
        // queue 1 is empty
        "5 01",
    ];
    assert_eq!(records, expected.map(|record| record.replace(' ', "")));
}

#[test]
fn a_page_that_is_nearly_full_is_padded() {
    let world = World::new().with_options(Options { segment_bytes: 1 << 20, ..small_options() });
    let relay = world.open();
    for number in [1, 2] {
        assert!(world.block_on(relay.push(envelope(0, number, 3400))).unwrap().is_stored());
    }
    drop(relay);
    let frames: Vec<_> = world.frames().iter().map(|frame| (frame.kind, frame.location.offset)).collect();
    let [(1, 36), (8, first), (1, 4096), (8, second)] = frames[..] else { panic!("{frames:?}") };
    assert!(first > 3400 && second > 4096 + 3400);
    let relay = world.open();
    assert_eq!(world.pull_all(&relay, 0).unwrap(), [1, 2].map(|number| (number, payload(number, 3400))));
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
