//! Hashing the recipients of a plain store: clients notice nothing, nothing on disk names anybody,
//! and after a crash or a failed call at any point the store is the plain one or the hashed one.

use std::io;
use std::path::Path;

use bytes::Bytes;
use relay_core::{Ack, Item, PushOutcome, Recipient, Relay as _, Seq};
use relay_disk::{Class, Disk as _, Fault, Survival};
use relay_store_redb::{Contents, HashError, Naming, Options, RecipientNames, RedbRelay};

use crate::naming::KEY;
use crate::world::{
    QUEUES, World, envelope, id, positions, push_many, recipient, small_options, with_timeout,
};

/// A part of every recipient, and of nothing else in a store.
const NAME_PART: &[u8] = b"queue-of-";

/// Stands in for a hash: it contains no part of the recipient.
fn hash(recipient: &Recipient) -> Recipient {
    let text: String = recipient.as_str().bytes().rev().map(|byte| format!("{:02x}", byte ^ 0x5a)).collect();
    Recipient::parse(&text).unwrap()
}

/// What clients can see of a store, except for pushes.
#[derive(PartialEq)]
struct Seen {
    queues: Vec<Vec<Item<Bytes>>>,
    contents: Contents,
    last: Seq,
}

/// The items that [`filled`] has acked: the queue and number of each.
const ACKED: [(usize, u64); 4] = [(0, 3), (0, 60), (1, 201), (2, 300)];

fn options(recipients: RecipientNames) -> Options {
    Options { blob_bytes: 250, segment_bytes: 1024, recipients, ..small_options() }
}

/// A closed plain store: a spilled queue with holes, an inline queue with blobs, and a queue that
/// only remembers.
fn filled() -> World {
    let world = World::with_blobs();
    let relay = world.open();
    world.block_on(async {
        push_many(&relay, 0..80, 20).await;
        for (queue, number, bytes) in [(1, 200, 30), (1, 201, 300), (1, 202, 300), (2, 300, 5)] {
            assert!(relay.push(envelope(queue, number, bytes)).await.unwrap().is_stored());
        }
        for (queue, number) in ACKED {
            let ack = Ack::new(recipient(queue), vec![id(number)]).unwrap();
            assert_eq!(relay.ack(ack).await.unwrap().deleted, 1);
        }
    });
    drop(relay);
    let world = world.with_options(options(RecipientNames::AsStored));
    assert!(names_somebody(&world));
    world
}

/// Whether any byte of any file belongs to a recipient.
fn names_somebody(world: &World) -> bool {
    let contents = world.disk.list().unwrap().into_iter().map(|name| world.disk.contents(&name).unwrap());
    contents.into_iter().any(|bytes| bytes.windows(NAME_PART.len()).any(|part| part == NAME_PART))
}

fn name(relay: &RedbRelay, queue: usize) -> Recipient {
    match relay.naming() {
        Naming::Plain => recipient(queue),
        Naming::Hashed(_) => hash(&recipient(queue)),
    }
}

fn see(world: &World, relay: &RedbRelay) -> Seen {
    let pull = |queue| {
        let (mut items, mut after) = (Vec::new(), None);
        loop {
            let pull = relay_core::Pull { recipient: name(relay, queue), after, items_max: None };
            let page = world.block_on(relay.pull(pull)).unwrap();
            items.extend(page.items);
            after = page.next;
            if after.is_none() {
                return items;
            }
        }
    };
    let queues = (0..QUEUES.len()).map(pull).collect();
    Seen { queues, contents: relay.contents().unwrap(), last: relay.last_arrival_number() }
}

/// Pushes everything again that was ever pushed, and something new.
fn push_again(world: &World, relay: &RedbRelay) {
    let push = |queue, number, bytes| {
        let envelope =
            relay_core::Envelope { recipient: name(relay, queue), ..envelope(queue, number, bytes) };
        world.block_on(relay.push(envelope)).unwrap()
    };
    for (queue, number) in ACKED {
        let outcome = push(queue, number, 1);
        assert!(matches!(outcome, PushOutcome::Duplicate { conflict: false, .. }), "{number}: {outcome:?}");
    }
    assert!(matches!(push(1, 202, 300), PushOutcome::Duplicate { conflict: false, .. }));
    assert!(matches!(push(1, 202, 299), PushOutcome::Duplicate { conflict: true, .. }));
    assert!(matches!(push(0, 79, 20), PushOutcome::Duplicate { conflict: false, .. }));
    let before = relay.last_arrival_number();
    assert!(push(2, 400, 300).is_stored());
    assert!(relay.last_arrival_number() > before);
}

fn convert(world: &World) -> Result<(), HashError> {
    let relay = world.try_open().map_err(|_| HashError::Overtaken)?;
    world.block_on(relay.hash_recipients(Path::new("/store"), KEY, &hash, &mut |_| ()))
}

/// Checks that the store holds what it did, whichever it is. Returns whether it is hashed.
fn expect_whole(world: &World, expected: &Seen) -> bool {
    let relay = world.open();
    assert!(see(world, &relay) == *expected, "{:?}: something is different", relay.naming());
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    let is_hashed = relay.naming() == Naming::Hashed(KEY);
    drop(relay);
    let names = world.disk.list().unwrap();
    assert!(!names.iter().any(|name| name.ends_with(".hashed")), "{names:?}");
    assert_eq!(names_somebody(world), !is_hashed, "{names:?}");
    is_hashed
}

#[test]
fn clients_notice_nothing_and_nothing_names_anybody() {
    with_timeout(|| {
        let world = filled();
        let expected = see(&world, &world.open());
        assert!(
            expected.queues[0].len() == 78 && expected.queues[1].len() == 2 && expected.contents.acked == 4
        );
        convert(&world).unwrap();
        assert!(!names_somebody(&world));
        assert!(expect_whole(&world, &expected));
        // A second run changes nothing.
        convert(&world).unwrap();
        assert!(expect_whole(&world, &expected));
        let relay = world.open();
        push_again(&world, &relay);
        world.block_on(relay.compact()).unwrap();
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
        drop(relay);
        assert!(!names_somebody(&world));
    });
}

#[test]
fn an_empty_store_is_hashed_as_well() {
    with_timeout(|| {
        let world = filled();
        let relay = world.open();
        world.clock.advance_ms(1_000_000);
        world.block_on(relay.sweep()).unwrap();
        let expected = see(&world, &relay);
        assert_eq!((expected.contents.queues, expected.last > Seq::ZERO), (0, true));
        drop(relay);
        convert(&world).unwrap();
        assert!(expect_whole(&world, &expected));
    });
}

#[test]
fn after_a_power_cut_the_store_is_the_plain_one_or_the_hashed_one() {
    with_timeout(|| {
        let world = filled();
        let expected = see(&world, &world.open());
        let on_copy = || world.after_crash(Survival::All);
        let reference = on_copy();
        let (syncs, writes) = (reference.disk.syncs(), reference.disk.writes());
        convert(&reference).unwrap();
        let (syncs, writes) = (reference.disk.syncs() - syncs, reference.disk.writes() - writes);
        let (mut plain, mut hashed, mut unfinished) = (0, 0, 0);
        let cuts = positions(syncs, 60).map(|n| (n, true)).chain(positions(writes, 60).map(|n| (n, false)));
        for (n, is_sync) in cuts {
            for survival in [Survival::None, Survival::All, Survival::Torn(n)] {
                let copy = on_copy();
                if is_sync {
                    copy.disk.cut_at_sync(n);
                } else {
                    copy.disk.cut_at_write(n);
                }
                drop(convert(&copy));
                let copy = copy.after_crash(survival);
                let is_staged = copy.disk.list().unwrap().iter().any(|name| name.ends_with(".seg.hashed"));
                if expect_whole(&copy, &expected) {
                    hashed += 1;
                    unfinished += u32::from(is_staged);
                } else {
                    plain += 1;
                }
                convert(&copy).unwrap();
                assert!(expect_whole(&copy, &expected), "cut {n}");
            }
        }
        assert!(plain > 0 && hashed > 0 && unfinished > 0, "{plain}, {hashed}, {unfinished}");
    });
}

#[test]
fn after_a_failed_call_the_store_is_the_plain_one_or_the_hashed_one() {
    with_timeout(|| {
        let world = filled();
        let expected = see(&world, &world.open());
        let reference = world.after_crash(Survival::All);
        let calls = reference.disk.calls();
        convert(&reference).unwrap();
        let calls = reference.disk.calls() - calls;
        let (mut failed, mut hashed) = (0, 0);
        for at in positions(calls, 150) {
            let copy = world.after_crash(Survival::All);
            copy.disk.fail(Fault { at, ..Fault::next(None, io::ErrorKind::Other) });
            failed += u64::from(convert(&copy).is_err());
            copy.disk.heal();
            // Also if power is lost before the next attempt.
            for survival in [Survival::None, Survival::Torn(at)] {
                expect_whole(&copy.after_crash(survival), &expected);
            }
            hashed += u64::from(expect_whole(&copy, &expected));
            convert(&copy).unwrap();
            assert!(expect_whole(&copy, &expected), "call {at}");
        }
        assert!(failed > 0 && hashed > 0, "{failed} failed, {hashed} hashed");
    });
}

#[test]
fn a_corrupt_item_or_a_full_disk_is_refused_and_changes_nothing() {
    with_timeout(|| {
        let world = filled();
        let expected = see(&world, &world.open());
        world.disk.space_limit(Some(world.disk.bytes_used() + 10_000));
        assert!(matches!(convert(&world), Err(HashError::NoSpace { .. })));
        world.disk.space_limit(None);
        assert!(!expect_whole(&world, &expected));

        let blob = world.blob_files().pop().unwrap();
        world.disk.edit(&blob, |bytes| *bytes.last_mut().unwrap() ^= 1);
        let error = convert(&world).unwrap_err();
        assert!(matches!(error, HashError::Corrupted(_)), "{error}");
        world.disk.edit(&blob, |bytes| *bytes.last_mut().unwrap() ^= 1);
        assert!(!expect_whole(&world, &expected));
    });
}

#[test]
fn another_key_is_refused() {
    let world = filled();
    convert(&world).unwrap();
    let relay = world.open();
    let other = relay_store_redb::KeyId::from_bytes([9; 8]);
    let error = world.block_on(relay.hash_recipients(Path::new("/store"), other, &hash, &mut |_| ()));
    assert!(matches!(error, Err(HashError::OtherKey { stored: KEY, .. })));
}

/// A failed sync of the names leaves the exchange pending. If a later start deleted the plain store
/// before the exchange is durable, a power cut could leave neither.
#[test]
fn after_a_failed_exchange_a_power_cut_leaves_one_of_the_stores() {
    with_timeout(|| {
        let world = filled();
        let expected = see(&world, &world.open());
        // A copy whose conversion fails at this sync.
        let failed_at = |at| {
            let copy = world.after_crash(Survival::All);
            copy.disk.fail(Fault { at, ..Fault::next(Some(Class::Sync), io::ErrorKind::Other) });
            let is_exchange = matches!(convert(&copy), Err(HashError::Exchange(_)));
            copy.disk.heal();
            is_exchange.then_some(copy)
        };
        let at = (0..1000).find(|at| failed_at(*at).is_some()).unwrap();
        for (cut, seed) in (0..40).flat_map(|cut| (0..4).map(move |seed| (cut, seed))) {
            let copy = failed_at(at).unwrap();
            copy.disk.cut_at_write(cut);
            drop(copy.try_open());
            expect_whole(&copy.after_crash(Survival::Torn(seed)), &expected);
        }
    });
}
