//! Tests of batches of pushes: each item has its own result, and one request stores all of them.

use std::num::NonZeroU64;
use std::sync::Arc;

use relay_auth::Digest;
use relay_core::{Limits, Relay as _};
use relay_http::{Options, RateLimit};
use serde_json::{Value, json};

use crate::auth::{encode, locked_to_reader, name_of, post, secret};
use crate::limits::rate_limit;
use crate::metrics::Admin;
use crate::support::{Client, Server, envelope, memory, options, push_of};

fn batch(items: &[Value]) -> Value {
    json!({"items": items})
}

fn item(recipient: &str, number: u32) -> Value {
    push_of(recipient, number, "aGVsbG8=")
}

/// The chunk indices of the items of a queue.
fn numbers(server: &Server, recipient: &str) -> Vec<u64> {
    let page = server.post("/pull", &json!({"recipient": recipient})).ok();
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["meta"]["chunk_index"].as_u64().unwrap()).collect()
}

fn results(server: &Server, items: &[Value]) -> Vec<Value> {
    let mut response = server.post("/push/batch", &batch(items)).ok();
    let Value::Array(results) = response["results"].take() else { panic!("{response}") };
    assert_eq!(results.len(), items.len());
    results
}

#[test]
fn the_items_of_a_batch_arrive_in_order_each_in_its_queue() {
    let server = Server::start();
    let items: Vec<_> =
        (0..100).map(|number| item(["alice", "bob", "carol"][number as usize % 3], number)).collect();
    for (index, result) in results(&server, &items).iter().enumerate() {
        let len = index as u64 / 3 + 1;
        assert_eq!(result, &json!({"stored": true, "queue_len": len, "queue_bytes": len * 5}));
    }
    assert_eq!(numbers(&server, "bob"), (0..100).filter(|number| number % 3 == 1).collect::<Vec<_>>());
    assert_eq!(results(&server, &[]), [] as [Value; 0]);
}

#[test]
fn a_bad_item_fails_alone_and_says_why() {
    let limits = Limits { queue_items_max: 3, message_bytes_max: 5, ..Limits::default() };
    let server = Server::with(memory(limits.clone()), Options { limits, ..options() });
    let mut no_uuid = item("alice", 1);
    no_uuid["message_id"] = json!("x");
    let items = [
        item("alice", 0),
        no_uuid,
        json!({"recipient": 7}),
        item("alice", 0),
        push_of("alice", 0, "d29ybGQ="),
        push_of("alice", 1, "aGVsbG8h"),
        json!(null),
        item("alice", 2),
        item("alice", 3),
        item("alice", 4),
        item("bob", 0),
    ];
    let results = results(&server, &items);
    let code = |index: usize| results[index]["error"]["code"].as_str().unwrap_or("none");
    assert_eq!(results[0], json!({"stored": true, "queue_len": 1, "queue_bytes": 5}));
    assert_eq!((code(1), &results[1]["error"]["details"]["field"]), ("invalid_input", &json!("message_id")));
    assert_eq!((code(2), &results[2]["error"]["details"]["field"]), ("invalid_input", &json!("recipient")));
    assert_eq!(results[3], json!({"stored": false, "duplicate": true, "queue_len": 1, "queue_bytes": 5}));
    assert_eq!(results[4]["conflict"], true);
    assert_eq!((code(5), &results[5]["error"]["details"]["limit"]), ("message_too_large", &json!(5)));
    assert_eq!(code(6), "invalid_input");
    assert_eq!((code(7), code(8)), ("none", "none"));
    let full = json!({"reason": "count", "limit": 3, "used": 3});
    assert_eq!((code(9), &results[9]["error"]["details"]), ("quota_exceeded", &full));
    assert_eq!(results[10]["stored"], true);
    assert_eq!(numbers(&server, "alice"), [0, 2, 3]);
}

#[test]
fn a_batch_with_too_many_items_or_bytes_stores_nothing() {
    let server = Server::with(memory(Limits::default()), Options { batch_bytes_max: 1280, ..options() });
    let many: Vec<_> = (0..257).map(|number| item("alice", number)).collect();
    let refused = server.post("/push/batch", &batch(&many));
    assert_eq!(refused.assert_error(400, "invalid_input")["field"], "items");
    assert_eq!(results(&server, &many[..256]).len(), 256);
    let mut large = many[..256].to_vec();
    large[255] = push_of("bob", 0, "aGVsbG8h");
    let refused = server.post("/push/batch", &batch(&large));
    assert_eq!(refused.assert_error(413, "message_too_large")["limit"], 1280);
    let endless = push_of("bob", 0, &"A".repeat(4 * 1024 * 1024));
    let refused = server.post("/push/batch", &batch(&[endless]));
    assert_eq!(refused.assert_error(413, "message_too_large")["limit"], 1280);
    assert!(refused.body.contains("the body is too large"), "it is not read: {}", refused.body);
    for body in ["", "{", "[]", "{}", r#"{"items":7}"#, r#"{"items":[{]}"#] {
        let refused = server.connect().post("/push/batch", body);
        refused.assert_error(400, "invalid_input");
    }
    assert_eq!(numbers(&server, "bob"), [] as [u64; 0]);
}

#[test]
fn each_item_counts_as_a_push_in_the_metrics() {
    let relay = memory(Limits { queue_items_max: 2, ..Limits::default() });
    let server = Server::with(Arc::clone(&relay), options());
    let admin = Admin::start(&relay, &server.metrics);
    let items = [item("alice", 0), item("alice", 0), item("alice", 1), item("alice", 2), json!({})];
    results(&server, &items);
    let samples = admin.scrape();
    let pushes = |outcome: &str| samples.of(&format!("relay_pushes_total{{outcome=\"{outcome}\"}}"));
    assert_eq!([pushes("stored"), pushes("duplicate"), pushes("failed")], [2.0, 1.0, 2.0]);
    assert_eq!(samples.of(r#"relay_requests_total{endpoint="push/batch",code="ok"}"#), 1.0);
    let errors = |code: &str| samples.of(&format!("relay_batch_item_errors_total{{code=\"{code}\"}}"));
    assert_eq!([errors("quota_exceeded"), errors("invalid_input")], [1.0, 1.0]);
}

#[test]
fn a_batch_is_one_request_to_the_rate_limit_and_its_items_delay_the_next_one() {
    let limit = RateLimit { push_items_per_second: NonZeroU64::new(2), ..rate_limit(9, 1000, &[]) };
    let server = Server::with(memory(Limits::default()), Options { rate_limit: Some(limit), ..options() });
    let items: Vec<_> = (0..40).map(|number| item("alice", number)).collect();
    let response = server.post("/push/batch", &batch(&items));
    assert_eq!(response.ok()["results"].as_array().unwrap().len(), 40);
    assert_eq!(response.header("ratelimit"), Some(r#""push";r=8;t=1"#), "one token of nine");
    let refused = server.post("/push", &item("alice", 41));
    assert_eq!(refused.assert_error(429, "rate_limited")["bucket"], "items");
    // Two a second, sixteen seconds at once.
    assert_eq!(refused.header("ratelimit-policy"), Some(r#""items";q=32;w=16"#));
    server.post("/pull", &json!({"recipient": "alice"})).ok();
}

#[test]
fn the_rate_limit_of_a_recipient_refuses_single_items() {
    let per_recipient = std::num::NonZeroU32::new(1);
    let limit = RateLimit { push_per_recipient_rps: per_recipient, ..rate_limit(8, 1000, &[]) };
    let server = Server::with(memory(Limits::default()), Options { rate_limit: Some(limit), ..options() });
    let mut items: Vec<_> = (0..6).map(|number| item("alice", number)).collect();
    items.push(item("bob", 0));
    let results = results(&server, &items);
    // One address has half of the burst of eight.
    assert!(results[..4].iter().all(|result| result["stored"] == true), "{results:?}");
    assert_eq!(results[4]["error"]["details"]["bucket"], "recipient", "{results:?}");
    assert!(results[4]["error"]["details"]["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0));
    assert_eq!(results[6]["stored"], true);
}

#[test]
fn large_items_of_a_batch_are_stored_too() {
    let server = Server::start();
    let payload = "A".repeat(3 * 1024 * 1024);
    let items: Vec<_> = (0..4).map(|number| push_of("alice", number, &payload)).collect();
    assert!(results(&server, &items).iter().all(|result| result["stored"] == true));
    assert_eq!(numbers(&server, "alice").len(), 3, "a page has 8 MiB");
}

/// Relays without a way of their own to push several items push one after the other.
#[test]
fn the_default_of_the_trait_answers_in_order() {
    let relay = memory(Limits { queue_items_max: 1, ..Limits::default() });
    let envelopes = (0..3).map(|number| envelope("alice", number)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcomes = runtime.block_on(relay.push_all(envelopes)).unwrap();
    assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false]);
}

/// A name with the reader's lock of one secret, and the senders' lock of another one.
fn locked_for_senders(reader: u8, sender: u8) -> String {
    format!("{}+sha256:{}", name_of(reader), encode(Digest::of_send_secret(&[sender; 32]).as_bytes()))
}

fn with_proof(mut item: Value, secret: u8) -> Value {
    item["proof"] = encode([secret; 32]).into();
    item
}

#[test]
fn each_item_shows_the_secret_of_its_own_send_lock() {
    let server = Server::with(memory(Limits::default()), locked_to_reader());
    let [one, other] = [locked_for_senders(1, 2), locked_for_senders(3, 4)];
    let mut wrong_type = item(&one, 5);
    wrong_type["proof"] = json!(7);
    let mut malformed = item(&one, 6);
    malformed["proof"] = json!("short");
    let items = [
        with_proof(item(&one, 0), 2),
        item(&one, 1),
        with_proof(item(&one, 2), 4),
        with_proof(item(&other, 3), 4),
        with_proof(item("alice", 4), 2),
        wrong_type,
        malformed,
        // The reader's secret opens no send lock.
        with_proof(item(&one, 7), 1),
    ];
    let results = results(&server, &items);
    let stored: Vec<_> = results.iter().map(|result| result["stored"] == true).collect();
    assert_eq!(stored, [true, false, false, true, true, false, false, false], "{results:?}");
    let reason = |index: usize| results[index]["error"]["details"]["reason"].as_str().unwrap_or("none");
    assert_eq!([1, 2, 6, 7].map(reason), ["no_proof", "wrong_proof", "malformed_proof", "wrong_proof"]);
    assert_eq!(results[5]["error"]["details"]["field"], "proof");
    // A sender does not learn how full the queue is, and everybody may know that of a plain one.
    assert_eq!((&results[0]["queue_len"], &results[4]["queue_len"]), (&json!(0), &json!(1)));
}

#[test]
fn the_proof_of_an_item_goes_before_that_of_the_head_and_a_push_may_carry_one() {
    let server = Server::with(memory(Limits::default()), locked_to_reader());
    let mut client = server.connect();
    let name = locked_for_senders(1, 2);
    let push = |client: &mut Client, headers: &str, item: Value| post(client, "/push", headers, &item).status;
    assert_eq!(push(&mut client, "", with_proof(item(&name, 0), 2)), 200);
    assert_eq!(push(&mut client, &secret(2), item(&name, 1)), 200);
    assert_eq!(push(&mut client, &secret(9), with_proof(item(&name, 2), 2)), 200);
    assert_eq!(push(&mut client, &secret(2), with_proof(item(&name, 3), 9)), 403);
    // Where there is no send lock, the field means nothing.
    assert_eq!(push(&mut client, "", with_proof(item("alice", 4), 9)), 200);
    assert_eq!(push(&mut client, "", with_proof(item(&name_of(1), 5), 9)), 200);
}

/// A batch with many wrong proofs is one request, so it bans nobody and introduces no name.
#[test]
fn wrong_proofs_in_one_batch_ban_nobody() {
    let limit = rate_limit(1000, 1000, &[]);
    let server =
        Server::with(memory(Limits::default()), Options { rate_limit: Some(limit), ..locked_to_reader() });
    let name = locked_for_senders(1, 2);
    let items: Vec<_> = (0..256).map(|number| with_proof(item(&name, number), 9)).collect();
    for _ in 0..5 {
        assert!(results(&server, &items).iter().all(|result| result["error"]["code"] == "forbidden"));
    }
    assert_eq!(results(&server, &[with_proof(item(&name, 0), 2)])[0]["stored"], true);
}
