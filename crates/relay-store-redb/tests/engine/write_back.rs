//! The store starts to write the index back before it syncs it. A disk that does not support this
//! is no error, but a disk that fails is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use relay_disk::Call;

use crate::story::{Ledger, OnFailure, STORY, Step};
use crate::world::{World, with_timeout};

#[test]
fn a_disk_without_write_back_is_called_once_for_each_file() {
    with_timeout(|| {
        let world = World::new();
        let (calls, files) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted_calls, counted_files) = (Arc::clone(&calls), Arc::clone(&files));
        let relay = world.open_hooked(move |call| match call {
            Call::WriteBack(_) => {
                counted_calls.fetch_add(1, Ordering::SeqCst);
                Err(io::ErrorKind::Unsupported.into())
            }
            Call::Create("relay.redb.new") => {
                counted_files.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            _ => Ok(()),
        });
        let mut ledger = Ledger::default();
        assert!(ledger.run(&world, &relay, STORY, OnFailure::Stop));
        world.block_on(relay.compact()).unwrap();
        ledger.audit(&world, &relay);
        drop(relay);
        assert_eq!(calls.load(Ordering::SeqCst), files.load(Ordering::SeqCst));
        ledger.audit(&world, &world.open());
    });
}

/// The sync after it may succeed all the same.
#[test]
fn a_checkpoint_fails_if_its_write_back_fails() {
    with_timeout(|| {
        let world = World::new();
        let is_failing = Arc::new(AtomicBool::new(false));
        let fails_once = Arc::clone(&is_failing);
        let relay = world.open_hooked(move |call| match call {
            Call::WriteBack("relay.redb" | "relay.redb.new") if fails_once.swap(false, Ordering::SeqCst) => {
                Err(io::Error::other("injected failure"))
            }
            _ => Ok(()),
        });
        let mut ledger = Ledger::default();
        assert!(ledger.run(&world, &relay, &[Step::Push(6, 100)], OnFailure::Stop));
        is_failing.store(true, Ordering::SeqCst);
        world.block_on(relay.snapshots().take()).unwrap_err();
        assert!(!is_failing.load(Ordering::SeqCst), "nothing was written back");
        drop(world.block_on(relay.snapshots().take()).unwrap());
        ledger.audit(&world, &relay);
    });
}
