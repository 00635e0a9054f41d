//! Scenarios of messages: their order, chunks, ids and times.

use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use relay_tests::{Process, at_length, eventually};
use serde_json::{Value, json};

use super::driver::{Driver, Language, quick};
use crate::crowds::ShippedRelay;

/// A relay with its store in a directory that lives as long.
pub(super) struct Relay {
    pub(super) process: Process,
    pub(super) directory: tempfile::TempDir,
}

impl Relay {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start_on(crate::PROGRAM, directory.path(), &[]).unwrap();
        Self { process, directory }
    }

    pub(super) fn url(&self) -> &str {
        &self.process.base_url
    }

    /// Pushes one chunk, as any other client may.
    fn push_chunk(&self, message: &str, index: u64, count: u64, payload: &[u8]) {
        let body = json!({"recipient": "alice", "message_id": message,
            "ciphertext_b64": BASE64_STANDARD.encode(payload),
            "meta": {"kind": "opaque", "total_len": 6, "chunk_index": index, "chunk_count": count,
                "sent_ms": 0}});
        assert_eq!(self.process.connect().unwrap().post("/push", &body).unwrap().status, 200);
    }

    /// Waits until a queue is empty.
    pub(super) fn is_emptied(&self, recipient: &str) {
        is_emptied(&self.process, recipient);
    }
}

fn is_emptied(relay: &Process, recipient: &str) {
    let emptied = eventually(|| {
        let items = relay.connect().ok()?.pull_all(recipient).ok()?.ok()?;
        items.is_empty().then_some(())
    });
    assert!(emptied.is_some(), "{recipient} still has items");
}

pub(super) fn messages_arrive_once_and_in_order_by_waiting_pulls(language: Language) {
    messages_arrive_once_and_in_order(language, "wait");
}

pub(super) fn messages_arrive_once_and_in_order_by_a_stream(language: Language) {
    messages_arrive_once_and_in_order(language, "stream");
}

fn messages_arrive_once_and_in_order(language: Language, transport: &str) {
    let relay = Relay::start();
    let Some(mut receiver) = Driver::plain(language, relay.url()) else { return };
    let mut sender = Driver::plain(language, relay.url()).unwrap();
    // Some are there before, some come while it waits.
    for number in 0..50_u8 {
        sender.push("alice", &[number]);
    }
    receiver.deliver("alice", transport, true);
    for number in 50..200_u8 {
        sender.push("alice", &[number; 100]);
    }
    for number in 0..200_u8 {
        assert_eq!(receiver.message().0[0], number);
        receiver.wait_for("acked");
    }
    relay.is_emptied("alice");
    assert!(receiver.is_quiet());
    receiver.close();
    sender.close();
}

pub(super) fn a_large_message_comes_back_whole(language: Language) {
    let relay = Relay::start();
    let Some(mut client) = Driver::plain(language, relay.url()) else { return };
    let payload: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    client.deliver("alice", "wait", true);
    let id = client.push("alice", &payload);
    assert!(client.message() == (payload, id));
    client.wait_for("acked");
    assert_eq!(client.push("alice", b""), client.message().1, "an empty one");
    client.close();
    relay.is_emptied("alice");
}

pub(super) fn interleaved_chunks_make_their_messages(language: Language) {
    let relay = Relay::start();
    let Some(mut client) = Driver::plain(language, relay.url()) else { return };
    let [one, two, lost] = [1, 2, 3].map(relay_tests::client::message_id);
    relay.push_chunk(&lost, 0, 2, b"never");
    relay.push_chunk(&one, 2, 3, b"56");
    relay.push_chunk(&two, 0, 2, b"abc");
    client.deliver("alice", "wait", true);
    relay.push_chunk(&one, 0, 3, b"12");
    relay.push_chunk(&two, 1, 2, b"def");
    relay.push_chunk(&one, 0, 3, b"12");
    relay.push_chunk(&one, 1, 3, b"34");
    assert_eq!(client.message(), (b"abcdef".to_vec(), two));
    assert_eq!(client.message(), (b"123456".to_vec(), one));
    assert!(client.is_quiet());
    client.close();
    let left = relay.process.connect().unwrap().pull_all("alice").unwrap().unwrap();
    assert_eq!(left.len(), 1, "the message without its second chunk stays until it expires");
}

pub(super) fn an_impossible_number_of_chunks_is_skipped(language: Language) {
    let relay = Relay::start();
    let Some(mut client) = Driver::plain(language, relay.url()) else { return };
    relay.push_chunk(&relay_tests::client::message_id(1), 0, 4_000_000_000, b"huge");
    relay.push_chunk(&relay_tests::client::message_id(2), 0, 1, b"normal");
    client.deliver("alice", "wait", true);
    assert_eq!(client.message().0, b"normal");
    client.wait_for("acked");
    assert_eq!(client.wait_for("skipped")["reason"], "malformed");
    client.close();
    let left = relay.process.connect().unwrap().pull_all("alice").unwrap().unwrap();
    assert_eq!(left.len(), 1, "it stays until it expires");
}

pub(super) fn chunks_of_another_length_are_skipped(language: Language) {
    let relay = Relay::start();
    let Some(mut client) = Driver::plain(language, relay.url()) else { return };
    // Both say that the message has six bytes.
    relay.push_chunk(&relay_tests::client::message_id(1), 0, 2, b"ab");
    relay.push_chunk(&relay_tests::client::message_id(1), 1, 2, b"cd");
    client.deliver("alice", "wait", true);
    assert_eq!(client.wait_for("skipped")["reason"], "malformed");
    client.close();
}

pub(super) fn a_message_id_that_is_pushed_twice_arrives_once(language: Language) {
    let relay = Relay::start();
    let Some(mut client) = Driver::plain(language, relay.url()) else { return };
    let id = json!({"message_id": relay_tests::client::message_id(7)});
    client.push_with("alice", b"hello", &id);
    client.push_with("alice", b"hello", &id);
    client.deliver("alice", "wait", true);
    assert_eq!(client.message().0, b"hello");
    client.wait_for("acked");
    client.push_with("alice", b"hello", &id);
    assert!(client.is_quiet());
    client.close();
}

/// A relay that forgets acked messages at once stores the push again. The deliveries that acked it
/// do not hand it out again, and ack it. Later ones have never seen it.
pub(super) fn a_push_after_the_dedup_window_is_a_new_message_to_new_deliveries(language: Language) {
    let relay = ShippedRelay::with("relay.dedup_window_seconds = 0\n");
    let url = &relay.process.base_url;
    let Some(mut client) = Driver::plain(language, url) else { return };
    let id = json!({"message_id": relay_tests::client::message_id(7)});
    client.deliver("alice", "wait", true);
    client.push_with("alice", b"hello", &id);
    assert_eq!(client.message().0, b"hello");
    client.wait_for("acked");
    client.push_with("alice", b"hello", &id);
    client.push("alice", b"behind it");
    assert_eq!(client.message().0, b"behind it");
    client.wait_for("acked");
    is_emptied(&relay.process, "alice");
    client.close();
    let mut client = Driver::plain(language, url).unwrap();
    client.push_with("alice", b"hello", &id);
    client.deliver("alice", "wait", true);
    assert_eq!(client.message().0, b"hello");
    client.close();
}

/// The rest of a message that was given up completes it.
pub(super) fn chunks_that_come_after_the_age_of_a_message_complete_it(language: Language) {
    let relay = Relay::start();
    let options = json!({"partial_age_ms": 200, "wait_ms": 5_000, "ack_delay_ms": 20});
    let Some(mut client) = Driver::open(language, relay.url(), &options, &json!({})) else { return };
    let id = relay_tests::client::message_id(1);
    relay.push_chunk(&id, 0, 3, b"12");
    relay.push_chunk(&id, 1, 3, b"34");
    client.deliver("alice", "wait", true);
    assert_eq!(client.wait_for("skipped")["reason"], "incomplete");
    relay.push_chunk(&id, 2, 3, b"56");
    assert_eq!(client.message(), (b"123456".to_vec(), id));
    client.wait_for("acked");
    client.close();
    relay.is_emptied("alice");
}

pub(super) fn an_item_that_expires_before_its_ack_is_acked(language: Language) {
    let relay = Relay::start();
    let Some(mut client) = Driver::plain(language, relay.url()) else { return };
    client.deliver("alice", "wait", false);
    client.push_with("alice", b"short", &json!({"ttl_seconds": 1}));
    let (_, id) = client.message();
    thread::sleep(Duration::from_millis(1_500));
    relay.is_emptied("alice");
    client.send(&json!({"op": "ack", "message_id": id}));
    assert_eq!(client.wait_for("acked")["message_id"], id);
    client.close();
}

pub(super) fn what_is_not_acked_comes_again(language: Language) {
    let relay = Relay::start();
    let Some(mut client) = Driver::plain(language, relay.url()) else { return };
    let ids: Vec<String> = (0..4_u8).map(|number| client.push("alice", &[number])).collect();
    client.deliver("alice", "wait", false);
    let got: Vec<String> = (0..4).map(|_| client.message().1).collect();
    assert_eq!(got, ids);
    for id in &ids[1..3] {
        client.send(&json!({"op": "ack", "message_id": id}));
        client.wait_for("acked");
    }
    client.close();
    let mut again = Driver::plain(language, relay.url()).unwrap();
    again.deliver("alice", "wait", true);
    assert_eq!([again.message().1, again.message().1], [ids[0].clone(), ids[3].clone()]);
    again.close();
    relay.is_emptied("alice");
}

/// What memory may grow between the first fifth of the messages and the last one.
const GROWTH_BYTES: u64 = 24 << 20;

pub(super) fn memory_stays_flat_over_many_messages(language: Language) {
    const BATCH: u64 = 250;
    let relay = Relay::start();
    let Some(mut client) = Driver::open(language, relay.url(), &quick(), &json!({})) else { return };
    client.send(&json!({"op": "deliver", "recipient": "alice", "transport": "wait", "auto_ack": true, "digest": true}));
    let (batches, mut first) = (at_length(400, 8), 0);
    let mut connection = relay.process.connect().unwrap();
    for batch in 0..batches {
        let items: Vec<Value> = (0..BATCH)
            .map(|number| relay_tests::push_body("alice", u128::from(batch * BATCH + number), &[7; 4_096]))
            .collect();
        assert_eq!(connection.post("/push/batch", &json!({ "items": items })).unwrap().status, 200);
        for _ in 0..BATCH {
            client.wait_for("acked");
        }
        assert_eq!(client.events().len() as u64, BATCH, "one message for each");
        if batch == batches / 5 {
            first = client.memory_bytes();
        }
    }
    let last = client.memory_bytes();
    assert!(last < first + GROWTH_BYTES, "{language:?}: {first} grew to {last}");
    client.close();
    relay.is_emptied("alice");
}
