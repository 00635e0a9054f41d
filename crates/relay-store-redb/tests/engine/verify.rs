//! A recount looks from both ends: what is damaged or mixed up is found, however right its
//! checksums are, and what lies behind it is looked at all the same.

use redb::{ReadableTable as _, TableDefinition, WriteTransaction};
use relay_core::{Ack, Envelope, Recipient, Relay, Seq};
use relay_store_redb::{Options, verify_index_on};

use crate::world::{Index, QUEUES, World, envelope, id, small_options, within_bounds};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const NAMES: TableDefinition<'_, &str, (u64, u32)> = TableDefinition::new("names");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SEGMENTS: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("segments");

/// The first bytes of keys.
const OWNER: u8 = 0;
const QUEUE: u8 = 2;
const ITEM: u8 = 3;
const DUE: u8 = 4;
const ACKED: u8 = 5;

/// A time that does not come.
const NOT_OVER: [u8; 9] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];

/// A queue that there is not.
const NOWHERE: u64 = 77;

/// The queue whose items have rows of their own. The other two hold few.
const DEEP: u64 = 3;
const DEEP_ITEMS: u64 = 600;

fn deep() -> Recipient {
    Recipient::parse("queue-of-dave").unwrap()
}

/// The index of a closed store: queues 1 and 2 with two items and an acked name each, and a deep
/// one.
fn sound() -> World {
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

/// What a recount says to the index, once it was changed so.
fn findings(harm: impl FnOnce(&WriteTransaction)) -> Vec<String> {
    let world = sound();
    Index::open(&world.disk).write(harm);
    let findings = world.open().verify().unwrap();
    for name in QUEUES.into_iter().chain(["queue-of-dave", "mallory", "nobody"]) {
        assert!(
            !findings.iter().any(|finding| finding.contains(name)),
            "names are nobody's business: {findings:?}"
        );
    }
    findings
}

/// Whether a recount says that, among other things perhaps.
fn expect(expected: &str, harm: impl FnOnce(&WriteTransaction)) {
    let findings = findings(harm);
    assert!(findings.iter().any(|finding| finding == expected), "not {expected:?}, but {findings:#?}");
}

fn name_checksum(name: &str, queue: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(name.as_bytes()), &queue.to_le_bytes())
}

fn put_recipient(tx: &WriteTransaction, name: &str, queue: u64) {
    tx.open_table(NAMES).unwrap().insert(name, (queue, name_checksum(name, queue))).unwrap();
}

/// Puts a row with the right checksum.
fn put(tx: &WriteTransaction, key: &[u8], value: &[u8]) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(key), value);
    let value = [value, &checksum.to_le_bytes()].concat();
    tx.open_table(ROWS).unwrap().insert(key, value.as_slice()).unwrap();
}

fn take(tx: &WriteTransaction, key: &[u8]) -> Vec<u8> {
    let mut rows = tx.open_table(ROWS).unwrap();
    let row = rows.remove(key).unwrap().expect("there is such a row");
    let value = row.value();
    value[..value.len() - 4].to_vec()
}

/// The first key that begins so.
fn first(tx: &WriteTransaction, begin: &[u8]) -> Vec<u8> {
    let rows = tx.open_table(ROWS).unwrap();
    let keys: Vec<_> = rows.iter().unwrap().map(|row| row.unwrap().0.value().to_vec()).collect();
    keys.into_iter().find(|key| key.starts_with(begin)).expect("there is such a row")
}

/// The first key about that queue among what is due.
fn due(tx: &WriteTransaction, queue: u64) -> Vec<u8> {
    let rows = tx.open_table(ROWS).unwrap();
    let keys: Vec<_> = rows.iter().unwrap().map(|row| row.unwrap().0.value().to_vec()).collect();
    keys.into_iter().find(|key| key[0] == DUE && key.ends_with(&queue.to_be_bytes())).unwrap()
}

fn key(kind: u8, queue: u64, rest: &[u8]) -> Vec<u8> {
    [&[kind][..], &queue.to_be_bytes(), rest].concat()
}

/// Notes another number, with the right checksum.
fn put_number(tx: &WriteTransaction, name: &str, number: u64) {
    let mut meta = tx.open_table(META).unwrap();
    meta.insert(name, number).unwrap();
    let names =
        ["last_seq", "last_queue", "time_ms", "journal_segment", "journal_offset", "payloads_through"];
    let numbers = names.map(|name| meta.get(name).unwrap().map_or(0, |number| number.value()));
    let segments = tx.open_table(SEGMENTS).unwrap();
    let rows = segments.iter().unwrap().map(Result::unwrap).flat_map(|(segment, live)| {
        let (items, bytes) = live.value();
        [u64::from(segment.value()), items, bytes]
    });
    let all = numbers.into_iter().chain(rows.collect::<Vec<_>>());
    let checksum = all.fold(0, |crc, number| crc32c::crc32c_append(crc, &number.to_le_bytes()));
    meta.insert("checksum", u64::from(checksum)).unwrap();
}

#[test]
fn a_sound_store_has_no_findings() {
    assert_eq!(findings(|_| {}), Vec::<String>::new());
    // What the tests put back is what was there.
    let same = findings(|tx| {
        let key = key(OWNER, 1, &[]);
        let owner = take(tx, &key);
        put(tx, &key, &owner);
        put_recipient(tx, QUEUES[0], 1);
        put_number(tx, "last_queue", DEEP);
    });
    assert_eq!(same, Vec::<String>::new());
}

#[test]
fn a_name_that_leads_to_no_queue() {
    expect("a name leads to queue number 77, which is not there", |tx| put_recipient(tx, "nobody", NOWHERE));
}

#[test]
fn a_name_with_a_wrong_checksum_that_leads_to_no_queue() {
    expect("the index: a name of the index has a wrong checksum", |tx| {
        tx.open_table(NAMES).unwrap().insert("nobody", (NOWHERE, 1)).unwrap();
    });
}

#[test]
fn a_name_that_is_no_recipient() {
    expect("the index: a name of the index is no recipient", |tx| put_recipient(tx, " ", NOWHERE));
}

#[test]
fn two_names_of_one_queue() {
    expect("a name leads to queue number 1, which is not its own", |tx| put_recipient(tx, "mallory", 1));
}

#[test]
fn a_queue_without_a_name() {
    expect("queue number 2: the name of its owner does not lead to it", |tx| {
        tx.open_table(NAMES).unwrap().remove(QUEUES[1]).unwrap();
    });
}

#[test]
fn a_queue_without_an_owner() {
    let harm = |tx: &WriteTransaction| drop(take(tx, &key(OWNER, 2, &[])));
    expect("queue number 2: it cannot be told whose it is: a queue has no owner", harm);
    expect("a name leads to queue number 2, which is not its own", harm);
}

#[test]
fn rows_of_every_kind_that_nothing_leads_to() {
    let acked = [&[0; 7][..], &[200], &NOWHERE.to_be_bytes(), &[7; 20]].concat();
    let at = [&[0; 7][..], &[200], &NOWHERE.to_be_bytes()].concat();
    for (what, key, value) in [
        ("it has an owner", key(OWNER, NOWHERE, &[]), &b"nobody"[..]),
        ("it has items", key(ITEM, NOWHERE, &[&[1][..], &[0; 7], &[9]].concat()), &[7; 23]),
        ("it has names of items", key(ITEM, NOWHERE, &[&[2][..], &[7; 20]].concat()), &[9]),
        ("it has counts of items", key(ITEM, NOWHERE, &[&[3][..], &[0; 8]].concat()), &[1, 10]),
        ("it is due", [&[DUE][..], &at].concat(), &[]),
        ("it has acked names", [&[ACKED][..], &acked].concat(), &NOT_OVER),
    ] {
        expect(&format!("queue number 77: {what} and is not there"), |tx| put(tx, &key, value));
    }
    expect("queue number 77: it cannot be told whose it is: a queue has no owner", |tx| {
        put(tx, &key(QUEUE, NOWHERE, &[]), &[0, 0]);
    });
}

/// Where one is right.
#[test]
fn a_second_row() {
    expect("queue number 1: it is due at another time than that of its first item", |tx| {
        put(tx, &[&[DUE][..], &[0; 7], &[200], &1_u64.to_be_bytes()].concat(), &[]);
    });
    expect("queue number 1: an acked name is not found as such", |tx| {
        let key = first(tx, &[ACKED]);
        let until = take(tx, &key);
        put(tx, &key, &until);
        put(tx, &[&[ACKED][..], &[0; 7], &[200], &key[9..]].concat(), &until);
    });
    expect("queue 3: 601 names lead to 600 items", |tx| {
        put(tx, &key(ITEM, DEEP, &[&[2][..], &[7; 20]].concat()), &[9]);
    });
    expect("queue number 3: its blocks are not counted right", |tx| {
        put(tx, &key(ITEM, DEEP, &[&[3][..], &[0; 7], &[9]].concat()), &[1, 10]);
    });
    expect("queue number 1: items have rows where they need none", |tx| {
        put(tx, &key(ITEM, 1, &[&[3][..], &[0; 8]].concat()), &[1, 10]);
    });
}

#[test]
fn a_row_that_is_missing() {
    expect("queue 1: the sweep would miss its first item", |tx| drop(take(tx, &due(tx, 1))));
    expect("queue number 1: the last acked name that it remembers is missing", |tx| {
        drop(take(tx, &first(tx, &[ACKED])));
    });
    expect("queue 3: item 7 is not found by its name", |tx| {
        drop(take(tx, &key(ITEM, DEEP, &[&[2][..], &[0; 15], &[100], &[0; 4]].concat())));
    });
    expect("a name leads to queue number 1, which is not there", |tx| drop(take(tx, &key(QUEUE, 1, &[]))));
    expect("queue number 1: it has an owner and is not there", |tx| drop(take(tx, &key(QUEUE, 1, &[]))));
}

#[test]
fn a_row_that_is_due_at_another_time() {
    let harm = |tx: &WriteTransaction| {
        let key = due(tx, 1);
        take(tx, &key);
        put(tx, &[&[DUE][..], &[0; 8], &1_u64.to_be_bytes()].concat(), &[]);
    };
    expect("queue 1: the sweep would miss its first item", harm);
    expect("queue number 1: it is due at another time than that of its first item", harm);
}

/// No checksum of ours is there to tell.
#[test]
fn a_row_with_a_key_that_is_none() {
    for key in [&[9_u8][..], &[9; 60], &[1; 60], &[]] {
        let found = findings(|tx| put(tx, key, b"?"));
        assert!(found.iter().any(|finding| finding.starts_with("the index: ")), "{key:?}: {found:?}");
    }
}

#[test]
fn numbers_that_would_be_given_away_twice() {
    let last = 6 + DEEP_ITEMS;
    expect(&format!("the last arrival number is noted as {}, and {last} is in use", last - 1), |tx| {
        put_number(tx, "last_seq", last - 1);
    });
    expect("the last queue number is noted as 2, and 3 is in use", |tx| put_number(tx, "last_queue", 2));
    expect("the last queue number is noted as 3, and 77 is in use", |tx| {
        put_recipient(tx, "nobody", NOWHERE)
    });
}

/// Both lead back and forth: only the records tell.
fn exchange(tx: &WriteTransaction) {
    for (name, queue) in [(QUEUES[0], 2), (QUEUES[1], 1)] {
        put_recipient(tx, name, queue);
        put(tx, &key(OWNER, queue, &[]), name.as_bytes());
    }
}

#[test]
fn queues_that_have_changed_their_owners() {
    let found = findings(exchange);
    let is_told = |queue: u64| {
        let begin = format!("queue number {queue}, item ");
        let other = "the index leads to the record of another queue's item";
        found.iter().filter(|finding| finding.starts_with(&begin) && finding.ends_with(other)).count()
    };
    assert_eq!((is_told(1), is_told(2), found.len()), (2, 2, 4), "{found:#?}");
}

#[test]
fn an_arrival_number_that_two_items_have() {
    // Queue 2 holds the items of queue 1.
    expect("arrival number 3 was given to 2 items", |tx| {
        let row = take(tx, &key(QUEUE, 1, &[]));
        put(tx, &key(QUEUE, 1, &[]), &row);
        put(tx, &key(QUEUE, 2, &[]), &row);
    });
}

#[test]
fn an_item_that_expires_earlier_than_its_record_says() {
    let item = key(ITEM, DEEP, &[&[1][..], &[0; 7], &[7]].concat());
    expect("queue number 3, item 7: it expires earlier than its record says", |tx| {
        let mut row = take(tx, &item);
        row[0] -= 1;
        put(tx, &item, &row);
    });
}

/// Each of several kinds, in queues that lie before others and behind them.
#[test]
fn what_lies_behind_damage_is_looked_at() {
    let found = findings(|tx| {
        let mut names = tx.open_table(NAMES).unwrap();
        let (queue, checksum) = names.get(QUEUES[0]).unwrap().unwrap().value();
        names.insert(QUEUES[0], (queue, checksum ^ 1)).unwrap();
        drop(names);
        // Of the queue with the damaged name.
        drop(take(tx, &due(tx, 1)));
        // The owner of the next one is damaged.
        tx.open_table(ROWS).unwrap().insert(key(OWNER, 2, &[]).as_slice(), b"????????".as_slice()).unwrap();
        drop(take(tx, &due(tx, 2)));
        drop(take(tx, &due(tx, 3)));
        put_recipient(tx, "zoe", NOWHERE);
    });
    for expected in [
        "the index: a row of the index has a wrong checksum",
        "the index: a name of the index has a wrong checksum",
        "queue number 1: a name of the index has a wrong checksum",
        "queue number 2: it cannot be told whose it is: a row of the index has a wrong checksum",
        "queue 1: the sweep would miss its first item",
        "queue 2: the sweep would miss its first item",
        "queue 3: the sweep would miss its first item",
        "a name leads to queue number 77, which is not there",
    ] {
        assert!(found.iter().any(|finding| finding == expected), "not {expected:?}, but {found:#?}");
    }
}

#[test]
fn more_findings_than_anybody_reads_are_counted() {
    let found = findings(|tx| {
        for number in 0..1_500 {
            put_recipient(tx, &format!("stray {number}"), NOWHERE);
        }
    });
    let strays = found.iter().filter(|finding| finding.starts_with("a name leads to")).count();
    assert_eq!(strays, 1_000);
    assert!(found.contains(&"500 more of this kind are not listed".to_owned()), "{:?}", found.last());
}

#[test]
fn redb_checks_the_pages_and_changes_nothing() {
    within_bounds(|| {
        let world = sound();
        let check = || verify_index_on(&world.disk, "/store".as_ref(), 1 << 20).unwrap();
        let whole = world.disk.contents("relay.redb").unwrap();
        assert_eq!(check(), Vec::<String>::new());
        assert!(world.disk.contents("relay.redb").unwrap() == whole);
        // Wherever a row says what one says.
        let row = whole.windows(14).position(|bytes| bytes == QUEUES[0].as_bytes()).unwrap();
        world.disk.edit("relay.redb", |bytes| bytes[row] ^= 1);
        let damaged = world.disk.contents("relay.redb").unwrap();
        let found = check();
        assert!(found.len() == 1 && found[0].starts_with("the index: "), "{found:?}");
        assert!(world.disk.contents("relay.redb").unwrap() == damaged, "a check mends nothing");
    });
}

#[test]
fn numbers_that_were_raised_are_no_finding() {
    let world = sound();
    let relay = world.open();
    relay.raise_arrival_numbers(Seq::new(1 << 40));
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}
