//! Rot: single bits flip in every file of a store, at every byte of the journal in a full run. The
//! store opens or says why not; what it shows is right; what it lost is told by a recount.
//!
//! Not promised: that the index survives damage to pages of redb itself. Then whole tables may be
//! out of reach, and requests fail.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use relay_core::{Ack, Envelope, PushOutcome, Recipient, Relay, Usage};
use relay_disk::{SimDisk, Survival};
use relay_store_redb::{Contents, Options, RedbRelay, verify_index_on};

use crate::world::{
    Index, QUEUES, World, envelope, id, payload, positions, recipient, run_slow_tests, small_options,
    within_bounds,
};

/// So many items were pushed, to the queues in turn, of so many bytes each.
const ITEMS: u64 = 12;
const BYTES: usize = 40;
/// These were acked.
const ACKED: [u64; 2] = [4, 8];

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const NAMES: TableDefinition<'_, &str, (u64, u32)> = TableDefinition::new("names");

/// The header of a segment; with it the whole segment is lost.
const HEADER_BYTES: u64 = 36;

/// What is left after a flip.
#[derive(Debug)]
struct Left {
    /// How many queues do not show what they should.
    lost: usize,
    /// Whether a new queue can be used, and the store opened again.
    goes_on: bool,
}

/// What became of many.
#[derive(Debug, Default)]
struct Tally {
    refused: u64,
    lossy: u64,
    unharmed: u64,
    /// Of those that were not refused.
    goes_on: u64,
}

fn world() -> World {
    World::new().with_options(Options { segment_bytes: 512, ..small_options() })
}

/// The same, where every payload has a file of its own.
fn aside() -> World {
    World::new().with_options(Options { segment_bytes: 512, blob_bytes: BYTES as u64, ..small_options() })
}

/// A store with some items behind a checkpoint and some to be replayed, as a dying process leaves
/// it.
fn unclean(world: World) -> World {
    let relay = world.open();
    fill(&world, &relay);
    world.after_crash(Survival::All)
}

/// The same, closed.
fn clean() -> World {
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
fn bits_flip_in_the_journal_and_in_payload_files() {
    flip_in_the_journal(aside);
}

fn flip_in_the_journal(new: fn() -> World) {
    within_bounds(move || {
        let world = unclean(new());
        let last = world.frames().pop().unwrap().location;
        let last_name = format!("journal-{:010}.seg", last.segment);
        let mut tally = Tally::default();
        for name in world.segments() {
            let bytes = world.disk.contents(&name).unwrap();
            for at in positions(bytes.len() as u64, 25) {
                // Behind the last sync that a later batch shows, rot cannot be told from a torn
                // tail.
                let is_told = name != last_name || at < u64::from(last.offset);
                let left = flip(&world, &name, at, is_told, &mut tally).unwrap();
                assert!(left.goes_on && (left.lost <= 1 || at < HEADER_BYTES), "{name}, byte {at}: {left:?}");
            }
        }
        eprintln!("{tally:?}");
    });
}

#[test]
fn bits_flip_in_the_index() {
    within_bounds(|| {
        let world = clean();
        let mut tally = Tally::default();
        let bytes = world.disk.contents("relay.redb").unwrap();
        let used: Vec<u64> =
            (0..).zip(&bytes).filter(|(_, byte)| !matches!(**byte, 0 | 0xff)).map(|(at, _)| at).collect();
        // Each of them would take minutes.
        let sample = if run_slow_tests() { 800 } else { 150 };
        for at in used.iter().step_by(used.len().div_ceil(sample)) {
            flip(&world, "relay.redb", *at, true, &mut tally);
        }
        for at in (0..bytes.len() as u64).step_by(bytes.len() / 40) {
            flip(&world, "relay.redb", at, true, &mut tally);
        }
        eprintln!("{} of {} bytes are used, {tally:?}", used.len(), bytes.len());
        // Most of what is used are pages of older commits, and redb's own books.
        assert!(tally.unharmed > 0 && tally.lossy > 0, "{tally:?}");
        assert!(tally.goes_on > tally.refused && tally.goes_on > tally.lossy, "{tally:?}");
    });
}

/// Rot that came before redb wrote its page: the checksums of pages are right, and those of our
/// rows have to tell.
#[test]
fn bits_flip_in_live_rows() {
    within_bounds(|| {
        let world = clean();
        let rows = rows(&world);
        let kinds: BTreeSet<_> = rows.iter().map(|(key, _)| key[0]).collect();
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [0, 2, 4, 5], "no queue is deep");
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
                expect_told(&world, &format!("byte {at} of row {key:?}"));
            }
        }
        for name in QUEUES {
            for bit in 0..64 + 32 {
                let world = world.after_crash(Survival::All);
                Index::open(&world.disk).write(|tx| {
                    let mut names = tx.open_table(NAMES).unwrap();
                    let (queue, checksum) = names.get(name).unwrap().unwrap().value();
                    let flipped = (queue ^ 1_u64.checked_shl(bit).unwrap_or(0), checksum ^ flip_behind(bit));
                    names.insert(name, flipped).unwrap();
                });
                expect_told(&world, &format!("bit {bit} of a name"));
            }
        }
    });
}

/// The bit of the checksum, which follows the 64 of the number.
fn flip_behind(bit: u32) -> u32 {
    bit.checked_sub(64).map_or(0, |bit| 1 << bit)
}

fn rows(world: &World) -> Vec<(Vec<u8>, Vec<u8>)> {
    let index = Index::open(&world.after_crash(Survival::All).disk);
    let tx = index.database().begin_read().unwrap();
    let rows = tx.open_table(ROWS).unwrap();
    let rows = rows.iter().unwrap().map(Result::unwrap);
    rows.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect()
}

fn expect_told(world: &World, what: &str) {
    let relay = world.open();
    assert!(!relay.verify().unwrap().is_empty(), "{what}: verify finds nothing");
    // What is shown is right, as far as it is shown.
    for queue in 0..QUEUES.len() {
        is_unharmed(world, &relay, queue);
    }
}

/// Flips a bit of a copy and looks at what is left. `None` if it does not open.
fn flip(world: &World, name: &str, at: u64, is_told: bool, tally: &mut Tally) -> Option<Left> {
    let disk: SimDisk = world.disk.after_crash(Survival::All);
    disk.edit(name, |bytes| bytes[usize::try_from(at).unwrap()] ^= 1 << (at % 8));
    let world = world.on(disk);
    eprintln!("{name}, byte {at}");
    let are_pages_whole = verify_index_on(&world.disk, "/store".as_ref(), world.options.cache_bytes);
    let are_pages_whole = are_pages_whole.is_ok_and(|findings| findings.is_empty());
    let opened = catch_unwind(AssertUnwindSafe(|| world.try_open()));
    let relay = match opened.unwrap_or_else(|_| panic!("{name}, byte {at}: a panic out of open")) {
        Ok(relay) => relay,
        Err(error) => {
            assert!(error.to_string().contains("/store"), "{error}");
            tally.refused += 1;
            return None;
        }
    };
    let lost = (0..QUEUES.len()).filter(|queue| !is_unharmed(&world, &relay, *queue)).count();
    let findings = relay.verify();
    let is_clean = are_pages_whole && findings.as_ref().is_ok_and(Vec::is_empty);
    let is_changed = lost > 0 || !is_all_known(&world, &relay);
    assert!(
        !is_changed || !is_clean || !is_told,
        "{name}, byte {at}: {lost} queues suffer, or are not answered as before, and verify finds nothing"
    );
    *if is_changed { &mut tally.lossy } else { &mut tally.unharmed } += 1;
    let fresh = Envelope { recipient: Recipient::parse("fresh").unwrap(), ..envelope(0, 100, BYTES) };
    let is_fresh_stored = world.block_on(relay.push(fresh)).is_ok_and(|outcome| outcome.is_stored());
    drop(relay);
    let goes_on = is_fresh_stored && world.try_open().is_ok();
    tally.goes_on += u64::from(goes_on);
    Some(Left { lost, goes_on })
}

/// Whether the store knows of every item that was pushed, acked ones included, and counts what it
/// holds as before.
fn is_all_known(world: &World, relay: &RedbRelay) -> bool {
    let left = ITEMS - ACKED.len() as u64;
    let usage = Usage { items: left, bytes: left * BYTES as u64 };
    let expected = Contents { queues: QUEUES.len() as u64, usage, acked: ACKED.len() as u64 };
    let is_known = |number: u64| {
        let queue = usize::try_from(number).unwrap() % QUEUES.len();
        let pushed = world.block_on(relay.push(envelope(queue, number, BYTES)));
        matches!(pushed, Ok(PushOutcome::Duplicate { conflict: false, .. }))
    };
    relay.contents().is_ok_and(|contents| contents == expected) && (0..ITEMS).all(is_known)
}

/// Whether a queue shows all that it should. What it shows must be right in any case; an acked item
/// may be back, when the record of its ack is lost.
fn is_unharmed(world: &World, relay: &RedbRelay, queue: usize) -> bool {
    let Ok(shown) = world.pull_all(relay, queue) else { return false };
    assert!(shown.is_sorted_by(|a, b| a.0 < b.0), "out of order");
    for (number, shown) in &shown {
        let own = usize::try_from(*number).unwrap() % QUEUES.len();
        assert!(
            *number < ITEMS && own == queue && *shown == payload(*number, BYTES),
            "item {number} is wrong"
        );
    }
    let expected = (0..ITEMS).filter(|number| usize::try_from(*number).unwrap() % QUEUES.len() == queue);
    let expected = expected.filter(|number| !ACKED.contains(number));
    shown.into_iter().map(|item| item.0).eq(expected)
}
