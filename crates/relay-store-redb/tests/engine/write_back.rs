//! What the index is written back with, ahead of its sync, is a hint where the disk knows no such
//! thing, and a failure where the disk fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use relay_disk::Call;

use crate::story::{Ledger, Manner, STORY, Step};
use crate::world::{World, within_bounds};

#[test]
fn a_disk_that_does_not_write_back_is_asked_once_for_each_file() {
    within_bounds(|| {
        let world = World::new();
        let (asked, files) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, counted_files) = (Arc::clone(&asked), Arc::clone(&files));
        let relay = world.open_hooked(move |call| match call {
            Call::WriteBack(_) => {
                counted.fetch_add(1, Ordering::SeqCst);
                Err(io::ErrorKind::Unsupported.into())
            }
            Call::Create("relay.redb.new") => {
                counted_files.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            _ => Ok(()),
        });
        let mut ledger = Ledger::default();
        assert!(ledger.tell(&world, &relay, STORY, Manner::Once));
        world.block_on(relay.compact()).unwrap();
        ledger.audit(&world, &relay);
        drop(relay);
        assert_eq!(asked.load(Ordering::SeqCst), files.load(Ordering::SeqCst));
        ledger.audit(&world, &world.open());
    });
}

/// The sync that follows may say that all is well.
#[test]
fn a_checkpoint_that_cannot_be_written_back_has_failed() {
    within_bounds(|| {
        let world = World::new();
        let fails = Arc::new(AtomicBool::new(false));
        let is_failing = Arc::clone(&fails);
        let relay = world.open_hooked(move |call| match call {
            Call::WriteBack("relay.redb" | "relay.redb.new") if is_failing.swap(false, Ordering::SeqCst) => {
                Err(io::Error::other("this is to fail"))
            }
            _ => Ok(()),
        });
        let mut ledger = Ledger::default();
        assert!(ledger.tell(&world, &relay, &[Step::Push(6, 100)], Manner::Once));
        fails.store(true, Ordering::SeqCst);
        world.block_on(relay.snapshots().take()).unwrap_err();
        assert!(!fails.load(Ordering::SeqCst));
        drop(world.block_on(relay.snapshots().take()).unwrap());
        ledger.audit(&world, &relay);
    });
}
