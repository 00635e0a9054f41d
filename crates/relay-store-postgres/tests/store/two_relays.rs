//! Several relays on one database.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use relay_core::{Ack, ItemId, Limits, MessageId, Pull, PushOutcome, Relay as _};
use relay_store_postgres::PostgresRelay;

use super::support::{MachineClock, database, envelope, messages, name, push, verify};

const QUEUES: usize = 50;
const CONNECTIONS: usize = 32;
const ROUNDS: u64 = 40;

/// Each thread pushes, pulls, acks and pushes again, to any of a few queues that all use.
#[test]
fn two_relays_on_hot_queues_agree_with_the_tables() {
    let Some((_server, options)) = database() else { return };
    let relays = [(); 2]
        .map(|()| PostgresRelay::open(options.clone(), Limits::default(), Arc::new(MachineClock)).unwrap());
    let (stored, acked) = (Mutex::new(HashSet::new()), Mutex::new(HashSet::new()));
    let number = AtomicU64::new(1);
    thread::scope(|scope| {
        for index in 0..2 * CONNECTIONS {
            let (relay, stored, acked, number) = (&relays[index % 2], &stored, &acked, &number);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let message = u128::from(number.fetch_add(1, Ordering::Relaxed));
                    let recipient = format!("hot{}", fastrand::usize(..QUEUES));
                    let mut pushed = envelope(&recipient, message, b"payload");
                    pushed.ttl_ms = (round % 5 == 0).then_some(1_000);
                    assert!(pollster::block_on(relay.push(pushed)).unwrap().is_stored());
                    if round % 5 != 0 {
                        assert!(stored.lock().unwrap().insert((recipient.clone(), message)));
                        assert!(!push(relay, &recipient, message).unwrap().is_stored(), "a duplicate");
                    }
                    if round % 3 == 0 {
                        ack_some(relay, &recipient, acked);
                    }
                    if round % 10 == 0 {
                        pollster::block_on(relay.sweep()).unwrap();
                    }
                }
            });
        }
    });
    thread::sleep(std::time::Duration::from_millis(1_100));
    let (stored, acked) = (stored.into_inner().unwrap(), acked.into_inner().unwrap());
    for queue in 0..QUEUES {
        let recipient = format!("hot{queue}");
        let left: HashSet<_> = messages(&relays[0], &recipient).into_iter().collect();
        let of_queue = stored.iter().filter(|(name, _)| *name == recipient).map(|(_, message)| *message);
        let expected: HashSet<_> = of_queue.filter(|message| !acked.contains(message)).collect();
        assert_eq!(left, expected, "{recipient}");
    }
    pollster::block_on(relays[1].sweep()).unwrap();
    assert_eq!(verify(&options), Vec::<String>::new());
}

/// Acks the first items of a queue. Those that are really removed are noted once.
fn ack_some(relay: &PostgresRelay, recipient: &str, acked: &Mutex<HashSet<u128>>) {
    let pull = Pull { recipient: name(recipient), after: None, items_max: std::num::NonZeroU64::new(3) };
    let page = pollster::block_on(relay.pull(pull)).unwrap();
    for item in page.items {
        let ack = Ack::new(name(recipient), vec![item.id()]).unwrap();
        let outcome = pollster::block_on(relay.ack(ack)).unwrap();
        let message = u128::from_be_bytes(*item.message_id.as_bytes());
        if outcome.deleted == 1 {
            // An expired item was not acked; of two acks, one removes it.
            assert!(acked.lock().unwrap().insert(message), "acked twice");
        }
    }
}

/// A duplicate and an ack of the same item may share a batch.
#[test]
fn a_duplicate_beside_acks_of_the_same_item_is_no_conflict() {
    let Some((_server, options)) = database() else { return };
    let relay = PostgresRelay::open(options, Limits::default(), Arc::new(MachineClock)).unwrap();
    for message in 0..60 {
        assert!(push(&relay, "alice", message).unwrap().is_stored());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| match push(&relay, "alice", message).unwrap() {
                    PushOutcome::Duplicate { conflict, .. } => assert!(!conflict),
                    PushOutcome::Stored { .. } => panic!("it was stored before"),
                });
                scope.spawn(|| {
                    let id =
                        ItemId { message_id: MessageId::from_bytes(message.to_be_bytes()), chunk_index: 0 };
                    pollster::block_on(relay.ack(Ack::new(name("alice"), vec![id]).unwrap())).unwrap();
                });
            }
        });
    }
}

#[test]
fn items_of_one_sender_stay_in_order_over_two_relays() {
    let Some((_server, options)) = database() else { return };
    let relays = [(); 2]
        .map(|()| PostgresRelay::open(options.clone(), Limits::default(), Arc::new(MachineClock)).unwrap());
    thread::scope(|scope| {
        for sender in 0..8_u128 {
            let relays = &relays;
            scope.spawn(move || {
                for number in 0..50_u128 {
                    let relay = &relays[usize::try_from(number % 2).unwrap()];
                    assert!(push(relay, "alice", sender * 1_000 + number).unwrap().is_stored());
                }
            });
        }
    });
    let got = messages(&relays[0], "alice");
    assert_eq!(got.len(), 400);
    for sender in 0..8_u128 {
        let of_sender: Vec<_> = got.iter().filter(|message| **message / 1_000 == sender).collect();
        assert!(of_sender.is_sorted(), "{of_sender:?}");
    }
    // One relay sees what the other has acked.
    let ids = got
        .iter()
        .map(|message| ItemId { message_id: MessageId::from_bytes(message.to_be_bytes()), chunk_index: 0 });
    let ack = Ack::new(name("alice"), ids.collect()).unwrap();
    assert_eq!(pollster::block_on(relays[0].ack(ack)).unwrap().deleted, 400);
    assert_eq!(messages(&relays[1], "alice"), Vec::<u128>::new());
    assert!(!push(&relays[1], "alice", 1).unwrap().is_stored(), "it was acked a moment ago");
}
