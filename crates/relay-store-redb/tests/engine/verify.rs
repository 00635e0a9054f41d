//! `verify` checks references in both directions. It finds corrupt and inconsistent rows, even with
//! correct checksums, and continues after a finding.

use redb::{ReadableTable as _, WriteTransaction};
use relay_core::{Ack, Envelope, Recipient, Relay, Seq};
use relay_store_redb::{Options, verify_index_on};

use crate::index::{
    Index, META, NAMES, OWNER, ROWS, assign_queue, put_recipient, put_row, update_meta_checksum,
};
use crate::world::{QUEUES, World, envelope, id, small_options, with_timeout};

/// The first bytes of keys.
const QUEUE: u8 = 2;
const ITEM: u8 = 3;
const DUE: u8 = 4;
const ACKED: u8 = 5;

/// An encoded time in the far future.
const FAR_FUTURE: [u8; 9] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];

/// The number of a queue that does not exist.
const NO_QUEUE: u64 = 77;

/// The number of the spilled queue. The other two are inline.
const DEEP: u64 = 3;
const DEEP_ITEMS: u64 = 600;

fn deep() -> Recipient {
    Recipient::parse("queue-of-dave").unwrap()
}

/// A closed store: queues 1 and 2 with two items and an acked item id each, and a spilled one.
fn consistent() -> World {
    let world = World::new().with_options(Options { segment_bytes: 1 << 16, ..small_options() });
    let relay = world.open();
    for number in 0..6 {
        world.block_on(relay.push(envelope(usize::try_from(number % 2).unwrap(), number, 10))).unwrap();
    }
    for number in 100..100 + DEEP_ITEMS {
        let envelope = Envelope { recipient: deep(), ..envelope(0, number, 10) };
        assert!(world.block_on(relay.push(envelope)).unwrap().is_stored());
    }
    for (queue, number) in [(0, 0), (1, 1)] {
        let ack = Ack::new(Recipient::parse(QUEUES[queue]).unwrap(), vec![id(number)]).unwrap();
        assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, 1);
    }
    drop(world.block_on(relay.snapshots().take()).unwrap());
    drop(relay);
    world
}

/// What `verify` finds after a change of the index.
fn findings(change: impl FnOnce(&WriteTransaction)) -> Vec<String> {
    let world = consistent();
    Index::open(&world.disk).write(change);
    let findings = world.open().verify().unwrap();
    for recipient in QUEUES.into_iter().chain(["queue-of-dave", "mallory", "nobody"]) {
        assert!(
            !findings.iter().any(|finding| finding.contains(recipient)),
            "findings must not contain recipients: {findings:?}"
        );
    }
    findings
}

/// Checks that `verify` reports `expected` after a change of the index.
fn expect(expected: &str, change: impl FnOnce(&WriteTransaction)) {
    let findings = findings(change);
    assert!(findings.iter().any(|finding| finding == expected), "not {expected:?}, but {findings:#?}");
}

/// Removes a row, and returns its value without the checksum.
fn take(tx: &WriteTransaction, key: &[u8]) -> Vec<u8> {
    let mut rows = tx.open_table(ROWS).unwrap();
    let row = rows.remove(key).unwrap().expect("the row exists");
    let value = row.value();
    value[..value.len() - 4].to_vec()
}

/// The first key that matches.
fn find_key(tx: &WriteTransaction, is_match: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let rows = tx.open_table(ROWS).unwrap();
    let mut keys = rows.iter().unwrap().map(|row| row.unwrap().0.value().to_vec());
    keys.find(|key| is_match(key)).expect("the row exists")
}

/// The key of the first acked item id.
fn first_acked(tx: &WriteTransaction) -> Vec<u8> {
    find_key(tx, |key| key[0] == ACKED)
}

/// The key of the due time of a queue.
fn due(tx: &WriteTransaction, queue: u64) -> Vec<u8> {
    find_key(tx, |key| key[0] == DUE && key.ends_with(&queue.to_be_bytes()))
}

fn key(kind: u8, queue: u64, rest: &[u8]) -> Vec<u8> {
    [&[kind][..], &queue.to_be_bytes(), rest].concat()
}

/// Sets a number of the meta table, with the correct checksum.
fn put_number(tx: &WriteTransaction, name: &str, number: u64) {
    tx.open_table(META).unwrap().insert(name, number).unwrap();
    update_meta_checksum(tx);
}

#[test]
fn a_consistent_store_has_no_findings() {
    assert_eq!(findings(|_| {}), Vec::<String>::new());
    // The helpers write the same rows as the store.
    let unchanged = findings(|tx| {
        let key = key(OWNER, 1, &[]);
        let owner = take(tx, &key);
        put_row(tx, &key, &owner);
        put_recipient(tx, QUEUES[0], 1);
        put_number(tx, "last_queue", DEEP);
    });
    assert_eq!(unchanged, Vec::<String>::new());
}

#[test]
fn a_recipient_that_leads_to_no_queue() {
    expect("a recipient leads to queue number 77, which does not exist", |tx| {
        put_recipient(tx, "nobody", NO_QUEUE);
    });
}

#[test]
fn a_recipient_with_a_wrong_checksum_that_leads_to_no_queue() {
    expect("the index: a name of the index has a wrong checksum", |tx| {
        tx.open_table(NAMES).unwrap().insert("nobody", (NO_QUEUE, 1)).unwrap();
    });
}

#[test]
fn a_name_that_is_no_valid_recipient() {
    expect("the index: a name of the index is not a valid recipient", |tx| put_recipient(tx, " ", NO_QUEUE));
}

#[test]
fn two_recipients_of_one_queue() {
    expect("a recipient leads to queue number 1, which does not belong to it", |tx| {
        put_recipient(tx, "mallory", 1);
    });
}

#[test]
fn a_queue_without_a_recipient() {
    expect("queue number 2: its owner does not lead to it", |tx| {
        tx.open_table(NAMES).unwrap().remove(QUEUES[1]).unwrap();
    });
}

#[test]
fn a_queue_without_an_owner() {
    let change = |tx: &WriteTransaction| drop(take(tx, &key(OWNER, 2, &[])));
    expect("queue number 2: its owner is unknown: a queue has no owner", change);
    expect("a recipient leads to queue number 2, which does not belong to it", change);
}

#[test]
fn unreferenced_rows_of_every_kind() {
    let acked = [&[0; 7][..], &[200], &NO_QUEUE.to_be_bytes(), &[7; 20]].concat();
    let at = [&[0; 7][..], &[200], &NO_QUEUE.to_be_bytes()].concat();
    for (what, key, value) in [
        ("it has an owner", key(OWNER, NO_QUEUE, &[]), &b"nobody"[..]),
        ("it has items", key(ITEM, NO_QUEUE, &[&[1][..], &[0; 7], &[9]].concat()), &[7; 23]),
        ("it has item ids", key(ITEM, NO_QUEUE, &[&[2][..], &[7; 20]].concat()), &[9]),
        ("it has block counts", key(ITEM, NO_QUEUE, &[&[3][..], &[0; 8]].concat()), &[1, 10]),
        ("it has a due time", [&[DUE][..], &at].concat(), &[]),
        ("it has acked item ids", [&[ACKED][..], &acked].concat(), &FAR_FUTURE),
    ] {
        expect(&format!("queue number 77: {what} but does not exist"), |tx| put_row(tx, &key, value));
    }
    expect("queue number 77: its owner is unknown: a queue has no owner", |tx| {
        put_row(tx, &key(QUEUE, NO_QUEUE, &[]), &[0, 0]);
    });
}

/// The correct row exists as well.
#[test]
fn an_extra_row_of_every_kind() {
    expect("queue number 1: it is due at another time than its row says", |tx| {
        put_row(tx, &[&[DUE][..], &[0; 7], &[200], &1_u64.to_be_bytes()].concat(), &[]);
    });
    expect("queue number 1: an acked item id is not found as acked", |tx| {
        let key = first_acked(tx);
        let until = take(tx, &key);
        put_row(tx, &key, &until);
        put_row(tx, &[&[ACKED][..], &[0; 7], &[200], &key[9..]].concat(), &until);
    });
    expect("queue 3: 601 item ids lead to 600 items", |tx| {
        put_row(tx, &key(ITEM, DEEP, &[&[2][..], &[7; 20]].concat()), &[9]);
    });
    expect("queue number 3: its block counts are wrong", |tx| {
        put_row(tx, &key(ITEM, DEEP, &[&[3][..], &[0; 7], &[9]].concat()), &[1, 10]);
    });
    expect("queue number 1: it is not spilled but has rows of items", |tx| {
        put_row(tx, &key(ITEM, 1, &[&[3][..], &[0; 8]].concat()), &[1, 10]);
    });
}

#[test]
fn a_missing_row_of_every_kind() {
    expect("queue 1: the sweep would miss the item that expires first", |tx| drop(take(tx, &due(tx, 1))));
    expect("queue number 1: the last acked item id that it remembers is missing", |tx| {
        drop(take(tx, &first_acked(tx)));
    });
    expect("queue 3: item 7 is not found by its item id", |tx| {
        drop(take(tx, &key(ITEM, DEEP, &[&[2][..], &[0; 15], &[100], &[0; 4]].concat())));
    });
    expect("a recipient leads to queue number 1, which does not exist", |tx| {
        drop(take(tx, &key(QUEUE, 1, &[])));
    });
    expect("queue number 1: it has an owner but does not exist", |tx| drop(take(tx, &key(QUEUE, 1, &[]))));
}

#[test]
fn a_due_row_with_another_time() {
    let change = |tx: &WriteTransaction| {
        let key = due(tx, 1);
        take(tx, &key);
        put_row(tx, &[&[DUE][..], &[0; 8], &1_u64.to_be_bytes()].concat(), &[]);
    };
    expect("queue 1: the sweep would miss the item that expires first", change);
    expect("queue number 1: it is due at another time than its row says", change);
}

/// Such rows have no checksum of the store.
#[test]
fn a_row_with_an_invalid_key() {
    for key in [&[9_u8][..], &[9; 60], &[1; 60], &[]] {
        let found = findings(|tx| put_row(tx, key, b"?"));
        assert!(found.iter().any(|finding| finding.starts_with("the index: ")), "{key:?}: {found:?}");
    }
}

#[test]
fn last_numbers_that_are_smaller_than_numbers_in_use() {
    let last = 6 + DEEP_ITEMS;
    expect(&format!("the last arrival number is recorded as {}, but {last} is in use", last - 1), |tx| {
        put_number(tx, "last_seq", last - 1);
    });
    expect("the last queue number is recorded as 2, but 3 is in use", |tx| put_number(tx, "last_queue", 2));
    expect("the last queue number is recorded as 3, but 77 is in use", |tx| {
        put_recipient(tx, "nobody", NO_QUEUE);
    });
}

/// The index is consistent: only the records show the exchange.
#[test]
fn queues_whose_owners_are_exchanged() {
    let found = findings(|tx| {
        assign_queue(tx, QUEUES[0], 2);
        assign_queue(tx, QUEUES[1], 1);
    });
    let count_in = |queue: u64| {
        let prefix = format!("queue number {queue}, item ");
        let other = "the index leads to the record of another queue's item";
        found.iter().filter(|finding| finding.starts_with(&prefix) && finding.ends_with(other)).count()
    };
    assert_eq!((count_in(1), count_in(2), found.len()), (2, 2, 4), "{found:#?}");
}

#[test]
fn two_items_with_one_arrival_number() {
    // Queue 2 gets the items of queue 1 as well.
    expect("2 items have arrival number 3", |tx| {
        let row = take(tx, &key(QUEUE, 1, &[]));
        put_row(tx, &key(QUEUE, 1, &[]), &row);
        put_row(tx, &key(QUEUE, 2, &[]), &row);
    });
}

#[test]
fn an_item_that_expires_at_another_time_than_its_record_says() {
    let item = key(ITEM, DEEP, &[&[1][..], &[0; 7], &[7]].concat());
    expect("queue number 3, item 7: it expires at another time than its record says", |tx| {
        let mut row = take(tx, &item);
        row[0] -= 1;
        put_row(tx, &item, &row);
    });
}

/// Several kinds of corruption, in queues before and after others.
#[test]
fn verify_continues_after_corrupt_rows() {
    let found = findings(|tx| {
        let mut names = tx.open_table(NAMES).unwrap();
        let (queue, checksum) = names.get(QUEUES[0]).unwrap().unwrap().value();
        names.insert(QUEUES[0], (queue, checksum ^ 1)).unwrap();
        drop(names);
        // The due time of the queue whose recipient is corrupt.
        drop(take(tx, &due(tx, 1)));
        // The owner of the next queue is corrupt.
        tx.open_table(ROWS).unwrap().insert(key(OWNER, 2, &[]).as_slice(), b"????????".as_slice()).unwrap();
        drop(take(tx, &due(tx, 2)));
        drop(take(tx, &due(tx, 3)));
        put_recipient(tx, "zoe", NO_QUEUE);
    });
    for expected in [
        "the index: a row of the index has a wrong checksum",
        "the index: a name of the index has a wrong checksum",
        "queue number 1: a name of the index has a wrong checksum",
        "queue number 2: its owner is unknown: a row of the index has a wrong checksum",
        "queue 1: the sweep would miss the item that expires first",
        "queue 2: the sweep would miss the item that expires first",
        "queue 3: the sweep would miss the item that expires first",
        "a recipient leads to queue number 77, which does not exist",
    ] {
        assert!(found.iter().any(|finding| finding == expected), "not {expected:?}, but {found:#?}");
    }
}

#[test]
fn findings_beyond_a_thousand_are_counted_and_not_listed() {
    let found = findings(|tx| {
        for number in 0..1_500 {
            put_recipient(tx, &format!("stray {number}"), NO_QUEUE);
        }
    });
    let strays = found.iter().filter(|finding| finding.starts_with("a recipient leads to")).count();
    assert_eq!(strays, 1_000);
    assert!(found.contains(&"500 more of this kind are not listed".to_owned()), "{:?}", found.last());
}

#[test]
fn a_check_of_the_pages_of_redb_changes_nothing() {
    with_timeout(|| {
        let world = consistent();
        let check = || verify_index_on(&world.disk, "/store".as_ref(), 1 << 20).unwrap();
        let intact = world.disk.contents("relay.redb").unwrap();
        assert_eq!(check(), Vec::<String>::new());
        assert!(world.disk.contents("relay.redb").unwrap() == intact);
        // Some row that contains a recipient.
        let row = intact.windows(14).position(|bytes| bytes == QUEUES[0].as_bytes()).unwrap();
        world.disk.edit("relay.redb", |bytes| bytes[row] ^= 1);
        let corrupt = world.disk.contents("relay.redb").unwrap();
        let found = check();
        assert!(found.len() == 1 && found[0].starts_with("the index: "), "{found:?}");
        assert!(world.disk.contents("relay.redb").unwrap() == corrupt, "a check repairs nothing");
    });
}

#[test]
fn raised_arrival_numbers_are_no_finding() {
    let world = consistent();
    let relay = world.open();
    relay.raise_arrival_numbers(Seq::new(1 << 40));
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}
