//! What is not this store is refused with a sentence, and left as it is.

use relay_disk::{Disk, SimDisk};
use relay_store_redb::OpenError;

use crate::story::{Ledger, Manner, STORY};
use crate::world::{Index, World};

fn refusal(world: &World) -> String {
    let names = world.disk.list().unwrap();
    let files: Vec<_> = names.iter().map(|name| world.disk.contents(name)).collect();
    let error = world.try_open().unwrap_err();
    for (name, before) in names.iter().zip(files) {
        let is_journal = name.ends_with(".seg");
        assert!(!is_journal || world.disk.contents(name) == before, "{name} was changed");
    }
    error.to_string()
}

/// A store with something in it.
fn told() -> World {
    let world = World::new();
    let relay = world.open();
    assert!(Ledger::default().tell(&world, &relay, &STORY[..1], Manner::Once));
    drop(relay);
    world
}

#[test]
fn an_older_store_is_refused() {
    let world = World::new();
    world.disk.create("relay.redb").unwrap();
    Index::open(&world.disk).write(|tx| {
        tx.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 1).unwrap();
        tx.open_table(redb::TableDefinition::<&str, u64>::new("queues")).unwrap().insert("alice", 1).unwrap();
    });
    assert_eq!(refusal(&world), "the store in /store has format 1, and this program reads format 8 only");
}

#[test]
fn a_newer_store_is_refused() {
    let world = told();
    Index::open(&world.disk).write(|tx| {
        tx.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 9).unwrap();
    });
    assert_eq!(refusal(&world), "the store in /store has format 9, and this program reads format 8 only");
}

#[test]
fn a_newer_journal_is_refused() {
    let world = told();
    let last = world.segments().pop().unwrap();
    world.disk.edit(&last, |bytes| {
        bytes[8] = 2;
        let checksum = crc32c::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&checksum.to_le_bytes());
    });
    let refused = refusal(&world);
    assert!(refused.contains("has format 2, this version reads format 1"), "{refused}");
}

#[test]
fn a_journal_without_an_index_is_refused() {
    let world = told();
    world.disk.remove("relay.redb").unwrap();
    let error = world.try_open().unwrap_err();
    assert!(matches!(error, OpenError::IndexMissing { .. }), "{error}");
    assert!(error.to_string().contains("has a journal and no index (relay.redb)"), "{error}");
    assert!(
        !world.disk.list().unwrap().contains(&"relay.redb".to_owned()),
        "an empty index would hide the loss"
    );
}

#[test]
fn what_is_no_index_is_refused() {
    let world = World::on(&World::new(), SimDisk::new());
    world.disk.create("relay.redb").unwrap().write_all_at(&[b"this is no database"], 0).unwrap();
    let refused = refusal(&world);
    assert!(refused.starts_with("the store in /store cannot be opened: "), "{refused}");
}
