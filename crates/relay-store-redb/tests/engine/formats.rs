//! The store refuses files of another format with a helpful error, and leaves them unchanged.

use relay_disk::{Disk, SimDisk, Survival};
use relay_store_redb::OpenError;

use crate::index::{Index, META};
use crate::story::{Ledger, OnFailure, STORY};
use crate::world::World;

/// The error of an open, which must change no file.
fn refusal(world: &World) -> String {
    let names = world.disk.list().unwrap();
    let files: Vec<_> = names.iter().map(|name| world.disk.contents(name)).collect();
    let error = world.try_open().unwrap_err();
    for (name, contents) in names.iter().zip(files) {
        // redb changes a file by opening it.
        let is_opened = matches!(error, OpenError::Store { .. }) && name == "relay.redb";
        assert!(is_opened || world.disk.contents(name) == contents, "{name} was changed");
    }
    assert_eq!(world.disk.list().unwrap(), names);
    error.to_string()
}

/// Changes the meta table of the index.
fn edit_meta(world: &World, change: impl FnOnce(&mut redb::Table<'_, &str, u64>)) {
    Index::open(&world.disk).write(|tx| {
        change(&mut tx.open_table(META).unwrap());
    });
}

/// Gives a segment the format from before the first release.
fn predate(world: &World, segment: &str) {
    world.disk.edit(segment, |bytes| {
        bytes[..8].copy_from_slice(b"relayjnl");
        let checksum = crc32c::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&checksum.to_le_bytes());
    });
}

/// A closed store with some items.
fn filled() -> World {
    let world = World::new();
    let relay = world.open();
    assert!(Ledger::default().run(&world, &relay, &STORY[..1], OnFailure::Stop));
    drop(relay);
    world
}

const EARLIER: &str = "the store in /store was written by an earlier build of this program, and nothing in it was changed; use `relay-bin export` with the build that wrote it, then `relay-bin import` here, into another directory";

#[test]
fn a_store_of_an_earlier_build_is_refused_and_unchanged() {
    for (name, format) in (1..=8).map(|format| ("format", format)).chain([("store_format", 1)]) {
        let world = filled();
        edit_meta(&world, |meta| {
            meta.remove("index_format").unwrap();
            meta.insert(name, format).unwrap();
        });
        for segment in world.segments() {
            predate(&world, &segment);
        }
        world.disk.create("relay.redb.new").unwrap().write_all_at(&[b"half of an index"], 0).unwrap();
        assert_eq!(refusal(&world), EARLIER, "format {format}");
        // Also after a crash, when redb would repair the file.
        let world = world.after_crash(Survival::All);
        assert_eq!(refusal(&world), EARLIER, "format {format}");
    }
}

#[test]
fn the_oldest_format_is_refused() {
    let world = World::new();
    world.disk.create("relay.redb").unwrap();
    Index::open(&world.disk).write(|tx| {
        tx.open_table(META).unwrap().insert("format", 1).unwrap();
        tx.open_table(redb::TableDefinition::<&str, u64>::new("queues")).unwrap().insert("alice", 1).unwrap();
    });
    assert_eq!(refusal(&world), EARLIER);
}

#[test]
fn another_redb_database_is_refused() {
    let world = World::new();
    world.disk.create("relay.redb").unwrap();
    Index::open(&world.disk).write(|tx| {
        tx.open_table(redb::TableDefinition::<&str, u64>::new("queues")).unwrap().insert("alice", 1).unwrap();
    });
    assert_eq!(
        refusal(&world),
        "the store in /store has format 0, and this program reads formats 1 to 2 only"
    );
}

#[test]
fn a_journal_of_an_earlier_build_is_refused() {
    let world = filled();
    predate(&world, &world.segments().pop().unwrap());
    let refused = refusal(&world);
    assert!(refused.contains("was written by an earlier build of this program"), "{refused}");
}

#[test]
fn a_newer_store_is_refused() {
    let world = filled();
    edit_meta(&world, |meta| {
        meta.insert("index_format", 3).unwrap();
    });
    assert_eq!(
        refusal(&world),
        "the store in /store has format 3, and this program reads formats 1 to 2 only"
    );
}

#[test]
fn a_newer_journal_is_refused() {
    let world = filled();
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
    let world = filled();
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
fn a_file_that_is_no_database_is_refused() {
    let world = World::on(&World::new(), SimDisk::new());
    world.disk.create("relay.redb").unwrap().write_all_at(&[b"this is no database"], 0).unwrap();
    let refused = refusal(&world);
    assert!(refused.starts_with("the store in /store cannot be opened: "), "{refused}");
}
