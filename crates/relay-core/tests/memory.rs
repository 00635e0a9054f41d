//! The bound on what a relay in memory holds: whatever fills it is counted, what is new is refused
//! over it, and everything else goes on.

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
        payload: Bytes::from(vec![7; payload_bytes]),
    }
}

fn ack(relay: &MemoryRelay, recipient: &str, messages: impl IntoIterator<Item = u128>) -> u64 {
    let items = messages.into_iter().map(|message| envelope(recipient, message, 0).id()).collect();
    let ack = Ack::new(Recipient::parse(recipient).unwrap(), items).unwrap();
    pollster::block_on(relay.ack(ack)).unwrap().deleted
}

/// Pushes until the relay is full, and says how many were stored.
fn fill(relay: &MemoryRelay, envelope: impl Fn(u128) -> Envelope) -> u128 {
    for message in 0.. {
        match relay.push_now(envelope(message)) {
            Ok(outcome) => assert!(outcome.is_stored()),
            Err(Error::StorageFull) => return message,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("it has a bound")
}

fn bytes(relay: &MemoryRelay) -> u64 {
    let figures = relay.figures();
    assert_eq!(relay.verify(), Vec::<String>::new());
    figures.live.unwrap().bytes
}

/// Its name, what it pushes, and how much of that fits at most.
type Way<'a> = (&'static str, &'a dyn Fn(u128) -> Envelope, u128);

#[test]
fn whatever_fills_it_is_counted() {
    let long = "r".repeat(500);
    let ways: [Way<'_>; 4] = [
        ("payloads", &|message| envelope("alice", message, 50_000), 18),
        ("items of nothing", &|message| envelope("alice", message, 0), 2000),
        ("recipients", &|message| envelope(&format!("{long} {message}"), 0, 0), 350),
        (
            "kinds",
            &|message| Envelope { kind: Kind::parse(&"k".repeat(64)).unwrap(), ..envelope("a", message, 0) },
            1600,
        ),
    ];
    for (what, envelope, at_most) in ways {
        let relay = relay(&Arc::default());
        let stored = fill(&relay, envelope);
        assert!((at_most / 3..=at_most).contains(&stored), "{what}: {stored}");
        assert!((BYTES_MAX / 10 * 8..=BYTES_MAX).contains(&bytes(&relay)), "{what}");
    }
}

#[test]
fn acked_names_fill_it_too_and_are_freed_with_their_window() {
    let clock = Arc::<ManualClock>::default();
    let relay = relay(&clock);
    let mut names = 0_u128;
    loop {
        match relay.push_now(envelope("alice", names, 0)) {
            Ok(_) => assert_eq!(ack(&relay, "alice", [names]), 1),
            Err(Error::StorageFull) => break,
            Err(error) => panic!("{error}"),
        }
        names += 1;
    }
    assert!((2000..5000).contains(&names), "{names}");
    assert_eq!(relay.figures().live.unwrap().items, 0);
    assert!(bytes(&relay) > BYTES_MAX / 10 * 9);
    clock.advance_ms(DEDUP_WINDOW_MS);
    pollster::block_on(relay.sweep()).unwrap();
    assert_eq!(bytes(&relay), 0, "a queue that holds nothing is forgotten");
    assert!(relay.push_now(envelope("alice", 0, 0)).unwrap().is_stored());
}

#[test]
fn full_it_refuses_what_is_new_and_nothing_else() {
    let clock = Arc::<ManualClock>::default();
    let relay = relay(&clock);
    assert!(!relay.is_full());
    let stored = fill(&relay, |message| envelope("alice", message, 10_000));
    assert!(relay.is_full() && relay.figures().is_full == Some(true));

    let outcome = relay.push_now(envelope("alice", 0, 10_000)).unwrap();
    assert!(matches!(outcome, PushOutcome::Duplicate { conflict: false, .. }), "what it has is known");
    let limit = Limits::default().message_bytes_max;
    let refused = relay.push_now(envelope("alice", stored, usize::try_from(limit).unwrap() + 1)).unwrap_err();
    assert!(matches!(refused, Error::Rejected(Rejection::MessageTooLarge { .. })), "that never fits");

    // One that leaves is not enough: this must not come and go.
    assert_eq!(ack(&relay, "alice", [0]), 1);
    assert!(relay.is_full());
    assert!(matches!(relay.push_now(envelope("bob", 0, 0)), Err(Error::StorageFull)));
    assert_eq!(ack(&relay, "alice", 1..10), 9);
    assert!(!relay.is_full());
    assert!(relay.push_now(envelope("bob", 0, 0)).unwrap().is_stored());
    assert_eq!(relay.verify(), Vec::<String>::new());
}

#[test]
fn what_expires_makes_room_once_it_is_swept() {
    let clock = Arc::<ManualClock>::default();
    let relay = relay(&clock);
    fill(&relay, |message| envelope(&message.to_string(), message, 1000));
    clock.advance_ms(Limits::default().ttl_ms);
    pollster::block_on(relay.sweep()).unwrap();
    assert_eq!(bytes(&relay), 0);
    assert!(!relay.is_full());
}
