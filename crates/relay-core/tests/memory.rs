//! The memory bound of a relay in memory. It counts everything, refuses new items when it is full,
//! and still serves all other requests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use relay_core::testing::ManualClock;
use relay_core::{
    Ack, Chunk, Envelope, Error, Kind, Limits, MemoryRelay, MessageId, PushOutcome, Recipient, Rejection,
    Relay,
};

const BYTES_MAX: u64 = 1 << 20;

const DEDUP_WINDOW_MS: u64 = 1000;

fn relay(clock: &Arc<ManualClock>) -> MemoryRelay {
    let limits = Limits { dedup_window_ms: DEDUP_WINDOW_MS, queue_items_max: 5000, ..Limits::default() };
    MemoryRelay::new(limits, Arc::clone(clock) as _).with_bytes_max(BYTES_MAX)
}

fn envelope(recipient: &str, message: u128, payload_bytes: usize) -> Envelope {
    Envelope {
        recipient: Recipient::parse(recipient).unwrap(),
        message_id: MessageId::from_bytes(message.to_be_bytes()),
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 0,
        sent_ms: 0,
        ttl_ms: None,
        payload: Bytes::from(vec![7; payload_bytes]),
    }
}

fn ack(relay: &MemoryRelay, recipient: &str, messages: impl IntoIterator<Item = u128>) -> u64 {
    let items = messages.into_iter().map(|message| envelope(recipient, message, 0).id()).collect();
    let ack = Ack::new(Recipient::parse(recipient).unwrap(), items).unwrap();
    pollster::block_on(relay.ack(ack)).unwrap().deleted
}

/// Pushes until the relay is full. It returns the number of stored items.
fn fill(relay: &MemoryRelay, envelope: impl Fn(u128) -> Envelope) -> u128 {
    for message in 0.. {
        match relay.push_now(envelope(message)) {
            Ok(outcome) => assert!(outcome.is_stored()),
            Err(Error::StorageFull) => return message,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("the relay has a bound")
}

fn bytes(relay: &MemoryRelay) -> u64 {
    let figures = relay.figures();
    assert_eq!(relay.verify(), Vec::<String>::new());
    figures.live.unwrap().bytes
}

/// The title, the pushed items, and the maximum number of them that fits.
type Case<'a> = (&'static str, &'a dyn Fn(u128) -> Envelope, u128);

#[test]
fn the_bound_counts_payloads_items_recipients_and_kinds() {
    let long = "r".repeat(500);
    let cases: [Case<'_>; 4] = [
        ("payloads", &|message| envelope("alice", message, 50_000), 18),
        ("empty items", &|message| envelope("alice", message, 0), 2000),
        ("recipients", &|message| envelope(&format!("{long} {message}"), 0, 0), 350),
        (
            "kinds",
            &|message| Envelope { kind: Kind::parse(&"k".repeat(64)).unwrap(), ..envelope("a", message, 0) },
            1600,
        ),
    ];
    for (what, envelope, at_most) in cases {
        let relay = relay(&Arc::default());
        let stored = fill(&relay, envelope);
        assert!((at_most / 3..=at_most).contains(&stored), "{what}: {stored}");
        assert!((BYTES_MAX / 10 * 8..=BYTES_MAX).contains(&bytes(&relay)), "{what}");
    }
}

#[test]
fn the_bound_counts_acked_item_ids_until_their_window_ends() {
    let clock = Arc::<ManualClock>::default();
    let relay = relay(&clock);
    let mut item_ids = 0_u128;
    loop {
        match relay.push_now(envelope("alice", item_ids, 0)) {
            Ok(_) => assert_eq!(ack(&relay, "alice", [item_ids]), 1),
            Err(Error::StorageFull) => break,
            Err(error) => panic!("{error}"),
        }
        item_ids += 1;
    }
    assert!((2000..5000).contains(&item_ids), "{item_ids}");
    assert_eq!(relay.figures().live.unwrap().items, 0);
    assert!(bytes(&relay) > BYTES_MAX / 10 * 9);
    clock.advance_ms(DEDUP_WINDOW_MS);
    pollster::block_on(relay.sweep()).unwrap();
    assert_eq!(bytes(&relay), 0, "an empty queue is forgotten");
    assert!(relay.push_now(envelope("alice", 0, 0)).unwrap().is_stored());
}

#[test]
fn a_full_relay_refuses_only_new_items() {
    let clock = Arc::<ManualClock>::default();
    let relay = relay(&clock);
    assert!(!relay.is_full());
    let stored = fill(&relay, |message| envelope("alice", message, 10_000));
    assert!(relay.is_full() && relay.figures().is_full == Some(true));
    assert_eq!(relay.figures().space.unwrap().store_bytes_max, BYTES_MAX);

    let outcome = relay.push_now(envelope("alice", 0, 10_000)).unwrap();
    assert!(
        matches!(outcome, PushOutcome::Duplicate { conflict: false, .. }),
        "a full relay recognises duplicates"
    );
    let limit = Limits::default().message_bytes_max;
    let refused = relay.push_now(envelope("alice", stored, usize::try_from(limit).unwrap() + 1)).unwrap_err();
    assert!(
        matches!(refused, Error::Rejected(Rejection::MessageTooLarge { .. })),
        "other refusals take precedence"
    );

    // One ack is not enough, so that the state does not change with each ack.
    assert_eq!(ack(&relay, "alice", [0]), 1);
    assert!(relay.is_full());
    assert!(matches!(relay.push_now(envelope("bob", 0, 0)), Err(Error::StorageFull)));
    assert_eq!(ack(&relay, "alice", 1..10), 9);
    assert!(!relay.is_full());
    assert!(relay.push_now(envelope("bob", 0, 0)).unwrap().is_stored());
    assert_eq!(relay.verify(), Vec::<String>::new());
}

#[test]
fn a_sweep_frees_the_memory_of_expired_items() {
    let clock = Arc::<ManualClock>::default();
    let relay = relay(&clock);
    fill(&relay, |message| envelope(&message.to_string(), message, 1000));
    clock.advance_ms(Limits::default().ttl_ms);
    pollster::block_on(relay.sweep()).unwrap();
    assert_eq!(bytes(&relay), 0);
    assert!(!relay.is_full());
}
