//! A waiter is woken when an item has arrived: after every reader sees it, and only if it was
//! stored.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use relay_core::{Pull, Relay, Waiter};
use relay_store_redb::RedbRelay;

use crate::world::{World, envelope, recipient, with_timeout};

fn is_woken(waiter: &mut Waiter) -> bool {
    pin!(waiter.woken()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn waiter(relay: &RedbRelay, queue: usize) -> Waiter {
    relay.waiter(&recipient(queue)).unwrap().unwrap()
}

/// One thread pushes an item, and the other one sleeps until it has it. A wake-up before the item
/// is visible would leave both waiting for ever.
#[test]
fn a_woken_waiter_finds_the_item() {
    with_timeout(|| {
        let world = World::with_blobs();
        let relay = Arc::new(world.open());
        let (acknowledge, acknowledged) = std::sync::mpsc::channel();
        let pusher = std::thread::spawn({
            let relay = Arc::clone(&relay);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for number in 0..300 {
                    // Some of them become blobs.
                    let pushed = relay.push(envelope(0, number, (number % 300) as usize));
                    assert!(runtime.block_on(pushed).unwrap().is_stored());
                    acknowledged.recv().unwrap();
                }
            }
        });
        world.block_on(async {
            let mut after = None;
            let mut waiter = waiter(&relay, 0);
            for _ in 0..300 {
                loop {
                    let pull = Pull { recipient: recipient(0), after, items_max: None };
                    let page = relay.pull(pull).await.unwrap();
                    if let Some(last) = page.items.last() {
                        after = Some(last.seq);
                        break;
                    }
                    waiter.woken().await;
                }
                acknowledge.send(()).unwrap();
            }
        });
        pusher.join().unwrap();
    });
}

#[test]
fn a_queue_shows_whether_somebody_waits() {
    let world = World::new();
    let relay = world.open();
    let waiter = waiter(&relay, 0);
    assert!(relay.has_waiter(&recipient(0)) && !relay.has_waiter(&recipient(1)));
    drop(waiter);
    assert!(!relay.has_waiter(&recipient(0)));
}

#[test]
fn what_is_not_stored_wakes_nobody() {
    with_timeout(check_who_is_woken);
}

fn check_who_is_woken() {
    let world = World::new();
    let (relay, is_failing) = world.open_with_failing_syncs();
    world.block_on(relay.push(envelope(0, 1, 10))).unwrap();
    let (mut of_queue, mut of_other) = (waiter(&relay, 0), waiter(&relay, 1));
    // The store wakes after it has answered, so it may still have been busy with the first push.
    world.block_on(relay.push(envelope(2, 1, 10))).unwrap();
    is_woken(&mut of_queue);

    assert!(!world.block_on(relay.push(envelope(0, 1, 10))).unwrap().is_stored(), "a duplicate");
    is_failing.store(true, Ordering::SeqCst);
    world.block_on(relay.push(envelope(0, 2, 10))).unwrap_err();
    assert!(!is_woken(&mut of_queue));

    is_failing.store(false, Ordering::SeqCst);
    world.block_on(relay.push(envelope(0, 3, 10))).unwrap();
    world.block_on(of_queue.woken());
    assert!(!is_woken(&mut of_other));
}
