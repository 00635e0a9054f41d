//! A store opens only for a caller whose recipients it can find, and a caller with the wrong ones
//! changes nothing.

use redb::ReadableTable as _;
use relay_core::Relay as _;
use relay_disk::Disk as _;
use relay_store_redb::{KeyId, Naming, OpenError, Options, RecipientNames};

use crate::index::{Index, META};
use crate::world::{World, envelope, small_options};

pub(crate) const KEY: KeyId = KeyId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8]);
const OTHER: KeyId = KeyId::from_bytes([8, 7, 6, 5, 4, 3, 2, 1]);

const PLAIN: RecipientNames = RecipientNames::Plain;
const HASHED: RecipientNames = RecipientNames::Keyed { id: KEY, hash_new: true };
const KEYED: RecipientNames = RecipientNames::Keyed { id: KEY, hash_new: false };
const OTHER_KEY: RecipientNames = RecipientNames::Keyed { id: OTHER, hash_new: true };
const ANY: RecipientNames = RecipientNames::AsStored;

pub(crate) fn named(world: World, recipients: RecipientNames) -> World {
    world.with_options(Options { recipients, ..small_options() })
}

/// The naming of a store that is opened once, or why it does not open.
fn naming(world: &World, recipients: RecipientNames) -> Result<Naming, OpenError> {
    let world = named(world.on(world.disk.clone()), recipients);
    world.try_open().map(|relay| relay.naming())
}

/// A closed store that had a queue.
fn used(recipients: RecipientNames) -> World {
    let world = named(World::new(), recipients);
    let relay = world.open();
    assert!(world.block_on(relay.push(envelope(0, 1, 10))).unwrap().is_stored());
    drop(relay);
    world
}

fn number(world: &World, name: &str) -> Option<u64> {
    let mut found = None;
    Index::open(&world.disk).write(|tx| {
        found = tx.open_table(META).unwrap().get(name).unwrap().map(|number| number.value());
    });
    found
}

#[test]
fn a_store_without_queues_takes_what_its_caller_wants() {
    let world = World::new();
    for (names, expected) in [
        (ANY, Naming::Plain),
        (HASHED, Naming::Hashed(KEY)),
        (ANY, Naming::Hashed(KEY)),
        (OTHER_KEY, Naming::Hashed(OTHER)),
        (KEYED, Naming::Plain),
        (HASHED, Naming::Hashed(KEY)),
        (PLAIN, Naming::Plain),
    ] {
        assert_eq!(naming(&world, names).unwrap(), expected, "{names:?}");
    }
}

#[test]
fn a_plain_store_stays_plain_and_readable_for_earlier_builds() {
    let world = used(PLAIN);
    for names in [HASHED, KEYED, OTHER_KEY, ANY, PLAIN] {
        assert_eq!(naming(&world, names).unwrap(), Naming::Plain, "{names:?}");
    }
    assert_eq!((number(&world, "index_format"), number(&world, "recipients_key")), (Some(1), None));
}

#[test]
fn a_hashed_store_opens_only_with_its_key_and_an_earlier_build_refuses_it() {
    let world = used(HASHED);
    for names in [HASHED, KEYED, ANY] {
        assert_eq!(naming(&world, names).unwrap(), Naming::Hashed(KEY), "{names:?}");
    }
    // Builds that know format 1 only refuse every other one.
    let key = Some(0x0102_0304_0506_0708);
    assert_eq!((number(&world, "index_format"), number(&world, "recipients_key")), (Some(2), key));

    let names = world.disk.list().unwrap();
    let contents = || names.iter().map(|name| world.disk.contents(name)).collect::<Vec<_>>();
    let before = contents();
    let other = naming(&world, OTHER_KEY).unwrap_err();
    assert!(matches!(other, OpenError::OtherKey { stored: KEY, given: OTHER, .. }), "{other}");
    assert!(other.to_string().contains("0102030405060708"), "{other}");
    assert!(matches!(naming(&world, PLAIN), Err(OpenError::KeyNeeded { stored: KEY, .. })));
    assert!(contents() == before && world.disk.list().unwrap() == names, "a refused open changed a file");
}

/// What is only in the journal counts as well.
#[test]
fn a_crash_before_the_first_checkpoint_makes_no_store_a_new_one() {
    let world = named(World::new(), HASHED);
    let relay = world.open();
    assert!(world.block_on(relay.push(envelope(0, 1, 10))).unwrap().is_stored());
    let crashed = world.after_crash(relay_disk::Survival::None);
    assert!(matches!(naming(&crashed, OTHER_KEY), Err(OpenError::OtherKey { .. })));
    drop(relay);
}

#[test]
fn a_corrupt_key_id_is_no_other_key() {
    let world = used(HASHED);
    Index::open(&world.disk).write(|tx| {
        tx.open_table(META).unwrap().insert("recipients_key", 0x0807_0605_0403_0201).unwrap();
    });
    assert!(matches!(naming(&world, OTHER_KEY), Err(OpenError::Store { .. })));
    Index::open(&world.disk).write(|tx| {
        tx.open_table(META).unwrap().remove("recipients_key").unwrap();
    });
    assert!(matches!(naming(&world, HASHED), Err(OpenError::Store { .. })));
}
