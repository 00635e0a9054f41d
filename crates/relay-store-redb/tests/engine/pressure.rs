//! What waits when the store has more to do than it can, and what does not wait for ever.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use futures_util::FutureExt;
use relay_core::{Error, Relay};
use relay_disk::Call;
use relay_store_redb::{Options, RedbRelay};

use crate::world::{World, envelope, small_options, within_bounds};

/// A store that needs a permit for each sync of the journal.
pub(crate) fn with_gated_syncs(world: &World) -> (RedbRelay, Receiver<()>, Sender<()>) {
    let (begun, syncs) = channel();
    let (permit, permits) = channel::<()>();
    let permits = Mutex::new(permits);
    let relay = world.open_hooked(move |call| {
        if matches!(call, Call::Sync(name) if name.starts_with("journal-")) {
            // Nobody may be there to hear of it any more.
            let _ = begun.send(());
            // Once nobody is left to give permits, none is needed.
            let _ = permits.lock().unwrap().recv();
        }
        Ok(())
    });
    (relay, syncs, permit)
}

/// It is the regular one, and the next one comes a minute later.
#[test]
fn a_sweep_waits_where_requests_are_turned_away() {
    within_bounds(|| {
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
        assert!(sweep.as_mut().now_or_never().is_none(), "it waits for its turn");
        drop(permit);
        world.block_on(async {
            assert!(first.await.unwrap().is_stored() && second.await.unwrap().is_stored());
            sweep.await.unwrap();
        });
    });
}
