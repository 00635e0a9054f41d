//! Which requests wait, and which are rejected, when the store is overloaded.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use futures_util::FutureExt;
use relay_core::{Error, Relay};
use relay_disk::Call;
use relay_store_redb::{Options, RedbRelay};

use crate::world::{World, envelope, small_options, with_timeout};

/// A store that needs a permit for each sync of the journal.
pub(crate) fn with_gated_syncs(world: &World) -> (RedbRelay, Receiver<()>, Sender<()>) {
    let (report_sync, syncs) = channel();
    let (permit, permits) = channel::<()>();
    let permits = Mutex::new(permits);
    let relay = world.open_hooked(move |call| {
        if matches!(call, Call::Sync(name) if name.starts_with("journal-")) {
            // The test may have dropped the receiver.
            let _ = report_sync.send(());
            // A dropped sender permits all syncs.
            let _ = permits.lock().unwrap().recv();
        }
        Ok(())
    });
    (relay, syncs, permit)
}

/// The next regular sweep would come only a minute later.
#[test]
fn a_sweep_waits_while_an_overloaded_store_rejects_pushes() {
    with_timeout(|| {
        let world = World::new().with_options(Options { waiting_jobs_max: 1, ..small_options() });
        let (relay, syncs, permit) = with_gated_syncs(&world);
        let mut first = Box::pin(relay.push(envelope(0, 1, 10)));
        assert!(first.as_mut().now_or_never().is_none());
        syncs.recv().unwrap();
        let mut second = Box::pin(relay.push(envelope(0, 2, 10)));
        assert!(second.as_mut().now_or_never().is_none());
        let third = relay.push(envelope(0, 3, 10)).now_or_never();
        assert!(matches!(third, Some(Err(Error::Overloaded { .. }))), "the mailbox is full");

        let mut sweep = Box::pin(relay.sweep());
        assert!(sweep.as_mut().now_or_never().is_none(), "the sweep waits for the writer");
        drop(permit);
        world.block_on(async {
            assert!(first.await.unwrap().is_stored() && second.await.unwrap().is_stored());
            sweep.await.unwrap();
        });
    });
}
