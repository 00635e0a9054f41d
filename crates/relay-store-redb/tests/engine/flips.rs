//! Corruption: a single bit flips in a file of a store (in each byte of the journal, if slow tests
//! are on). The store opens or reports an error, shows only correct items, and `verify` detects a
//! loss.
//!
//! Not promised: that the index survives corruption of redb's own pages. Then whole tables may be
//! unreadable, and requests fail.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::ReadableTable as _;
use relay_core::{Ack, Envelope, PushOutcome, Recipient, Relay, Usage};
use relay_disk::{SimDisk, Survival};
use relay_store_redb::{Contents, Options, RedbRelay, verify_index_on};

use crate::index::{Index, NAMES, ROWS};
use crate::world::{
    QUEUES, World, envelope, id, payload, positions, recipient, run_slow_tests, small_options, with_timeout,
};

/// How many items were pushed, to the queues in turn, and the bytes of each.
const ITEMS: u64 = 12;
const BYTES: usize = 40;
/// The items that were acked.
const ACKED: [u64; 2] = [4, 8];

/// The length of the header of a segment. Without its header, a segment is lost.
const HEADER_BYTES: u64 = 36;

/// The effect of a flip on a store that opens.
#[derive(Debug)]
struct Effect {
    /// How many queues do not show all of their items.
    lossy_queues: usize,
    /// Whether the store takes a push to a new queue, and opens again.
    is_usable: bool,
}

/// How many flips had which effect.
#[derive(Debug, Default)]
struct Tally {
    /// The store did not open.
    refused: u64,
    lossy: u64,
    harmless: u64,
    /// Of those that opened.
    usable: u64,
}

fn world() -> World {
    World::new().with_options(Options { segment_bytes: 512, ..small_options() })
}

/// As [`world`], but every payload is a blob.
fn with_blobs() -> World {
    World::new().with_options(Options { segment_bytes: 512, blob_bytes: BYTES as u64, ..small_options() })
}

/// A store as a crash leaves it: a checkpoint contains some items, and a replay brings the others.
fn crashed(world: World) -> World {
    let relay = world.open();
    fill(&world, &relay);
    world.after_crash(Survival::All)
}

/// The same store, closed cleanly.
fn closed() -> World {
    let world = world();
    let relay = world.open();
    fill(&world, &relay);
    drop(relay);
    world
}

fn fill(world: &World, relay: &RedbRelay) {
    for number in 0..ITEMS {
        let queue = usize::try_from(number).unwrap() % QUEUES.len();
        assert!(world.block_on(relay.push(envelope(queue, number, BYTES))).unwrap().is_stored());
        if number == 5 {
            world.block_on(relay.sweep()).unwrap();
        }
    }
    for number in ACKED {
        let queue = usize::try_from(number).unwrap() % QUEUES.len();
        let ack = Ack::new(recipient(queue), vec![id(number)]).unwrap();
        assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, 1);
    }
}

#[test]
fn bits_flip_in_the_journal() {
    flip_in_the_journal(world);
}

#[test]
fn bits_flip_in_the_journal_and_in_blobs() {
    flip_in_the_journal(with_blobs);
}

fn flip_in_the_journal(new: fn() -> World) {
    with_timeout(move || {
        let world = crashed(new());
        let last = world.frames().pop().unwrap().location;
        let last_name = format!("journal-{:010}.seg", last.segment);
        let mut tally = Tally::default();
        for name in world.segments() {
            let bytes = world.disk.contents(&name).unwrap();
            for at in positions(bytes.len() as u64, 25) {
                // After the last record that a later batch confirms, corruption looks like a torn
                // write.
                let is_detectable = name != last_name || at < u64::from(last.offset);
                let effect = flip(&world, &name, at, is_detectable, &mut tally).unwrap();
                assert!(
                    effect.is_usable && (effect.lossy_queues <= 1 || at < HEADER_BYTES),
                    "{name}, byte {at}: {effect:?}"
                );
            }
        }
        eprintln!("{tally:?}");
    });
}

#[test]
fn bits_flip_in_the_index() {
    with_timeout(|| {
        let world = closed();
        let mut tally = Tally::default();
        let bytes = world.disk.contents("relay.redb").unwrap();
        let used: Vec<u64> =
            (0..).zip(&bytes).filter(|(_, byte)| !matches!(**byte, 0 | 0xff)).map(|(at, _)| at).collect();
        // All of them would take minutes.
        let sample = if run_slow_tests() { 800 } else { 150 };
        for at in used.iter().step_by(used.len().div_ceil(sample)) {
            flip(&world, "relay.redb", *at, true, &mut tally);
        }
        for at in (0..bytes.len() as u64).step_by(bytes.len() / 40) {
            flip(&world, "relay.redb", at, true, &mut tally);
        }
        eprintln!("{} of {} bytes are used, {tally:?}", used.len(), bytes.len());
        // Most used bytes belong to pages of older commits, or to redb's own tables.
        assert!(tally.harmless > 0 && tally.lossy > 0, "{tally:?}");
        assert!(tally.usable > tally.refused && tally.usable > tally.lossy, "{tally:?}");
    });
}

/// Corruption before redb wrote the page: the checksums of redb are correct, and only those of the
/// rows can detect it.
#[test]
fn bits_flip_in_live_rows() {
    with_timeout(|| {
        let world = closed();
        let rows = Index::open(&world.after_crash(Survival::All).disk).rows();
        let kinds: BTreeSet<_> = rows.iter().map(|(key, _)| key[0]).collect();
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [0, 2, 4, 5], "no queue is spilled");
        for (key, value) in rows {
            let bytes = (key.len() + value.len()) as u64;
            for at in positions(bytes, 6) {
                let mut row = [&key[..], &value].concat();
                row[usize::try_from(at).unwrap()] ^= 1 << (at % 8);
                let (new_key, new_value) = row.split_at(key.len());
                let world = world.after_crash(Survival::All);
                Index::open(&world.disk).write(|tx| {
                    let mut rows = tx.open_table(ROWS).unwrap();
                    drop(rows.remove(key.as_slice()).unwrap());
                    rows.insert(new_key, new_value).unwrap();
                });
                expect_detected(&world, &format!("byte {at} of row {key:?}"));
            }
        }
        for recipient in QUEUES {
            for bit in 0..64 + 32 {
                let world = world.after_crash(Survival::All);
                Index::open(&world.disk).write(|tx| {
                    let mut names = tx.open_table(NAMES).unwrap();
                    let (queue, checksum) = names.get(recipient).unwrap().unwrap().value();
                    let flipped =
                        (queue ^ 1_u64.checked_shl(bit).unwrap_or(0), checksum ^ checksum_flip(bit));
                    names.insert(recipient, flipped).unwrap();
                });
                expect_detected(&world, &format!("bit {bit} of the row of a recipient"));
            }
        }
    });
}

/// The flip of the checksum, whose bits follow the 64 bits of the queue number.
fn checksum_flip(bit: u32) -> u32 {
    bit.checked_sub(64).map_or(0, |bit| 1 << bit)
}

fn expect_detected(world: &World, what: &str) {
    let relay = world.open();
    assert!(!relay.verify().unwrap().is_empty(), "{what}: verify finds nothing");
    // The items that the queues show must still be correct.
    for queue in 0..QUEUES.len() {
        is_complete(world, &relay, queue);
    }
}

/// Flips a bit in a copy of the store and checks the copy. `None` if it does not open.
fn flip(world: &World, name: &str, at: u64, is_detectable: bool, tally: &mut Tally) -> Option<Effect> {
    let disk: SimDisk = world.disk.after_crash(Survival::All);
    disk.edit(name, |bytes| bytes[usize::try_from(at).unwrap()] ^= 1 << (at % 8));
    let world = world.on(disk);
    eprintln!("{name}, byte {at}");
    let page_findings = verify_index_on(&world.disk, "/store".as_ref(), world.options.cache_bytes);
    let are_pages_intact = page_findings.is_ok_and(|findings| findings.is_empty());
    let opened = catch_unwind(AssertUnwindSafe(|| world.try_open()));
    let relay = match opened.unwrap_or_else(|_| panic!("{name}, byte {at}: open panics")) {
        Ok(relay) => relay,
        Err(error) => {
            assert!(error.to_string().contains("/store"), "{error}");
            tally.refused += 1;
            return None;
        }
    };
    let lossy_queues = (0..QUEUES.len()).filter(|queue| !is_complete(&world, &relay, *queue)).count();
    let findings = relay.verify();
    let is_clean = are_pages_intact && findings.as_ref().is_ok_and(Vec::is_empty);
    let is_changed = lossy_queues > 0 || !is_all_known(&world, &relay);
    assert!(
        !is_changed || !is_clean || !is_detectable,
        "{name}, byte {at}: {lossy_queues} queues are incomplete, or answer differently, and verify finds \
         nothing"
    );
    *if is_changed { &mut tally.lossy } else { &mut tally.harmless } += 1;
    let push = Envelope { recipient: Recipient::parse("new").unwrap(), ..envelope(0, 100, BYTES) };
    let is_push_stored = world.block_on(relay.push(push)).is_ok_and(|outcome| outcome.is_stored());
    drop(relay);
    let is_usable = is_push_stored && world.try_open().is_ok();
    tally.usable += u64::from(is_usable);
    Some(Effect { lossy_queues, is_usable })
}

/// Whether the store knows every item that was pushed, acked ones included, and its counts are
/// right.
fn is_all_known(world: &World, relay: &RedbRelay) -> bool {
    let items = ITEMS - ACKED.len() as u64;
    let usage = Usage { items, bytes: items * BYTES as u64 };
    let expected = Contents { queues: QUEUES.len() as u64, usage, acked: ACKED.len() as u64 };
    let is_known = |number: u64| {
        let queue = usize::try_from(number).unwrap() % QUEUES.len();
        let pushed = world.block_on(relay.push(envelope(queue, number, BYTES)));
        matches!(pushed, Ok(PushOutcome::Duplicate { conflict: false, .. }))
    };
    relay.contents().is_ok_and(|contents| contents == expected) && (0..ITEMS).all(is_known)
}

/// Whether a queue shows exactly its live items. Every item that it shows must be correct in any
/// case. An acked item may be shown again, if the record of its ack is lost.
fn is_complete(world: &World, relay: &RedbRelay, queue: usize) -> bool {
    let Ok(shown) = world.pull_all(relay, queue) else { return false };
    assert!(shown.is_sorted_by(|a, b| a.0 < b.0), "out of order");
    for (number, shown) in &shown {
        let own_queue = usize::try_from(*number).unwrap() % QUEUES.len();
        assert!(
            *number < ITEMS && own_queue == queue && *shown == payload(*number, BYTES),
            "item {number} is wrong"
        );
    }
    let expected = (0..ITEMS).filter(|number| usize::try_from(*number).unwrap() % QUEUES.len() == queue);
    let expected = expected.filter(|number| !ACKED.contains(number));
    shown.into_iter().map(|item| item.0).eq(expected)
}
