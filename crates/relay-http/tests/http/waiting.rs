//! Tests of pulls that wait for an item: what ends a wait, what it holds, and how many there may
//! be.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use relay_core::{
    Ack, AckOutcome, Envelope, Error, Limits, MemoryRelay, Page, Pull, PushOutcome, Relay, Swept,
};
use relay_http::Options;
use serde_json::{Value, json};

use crate::limits::{now, rate_limit};
use crate::metrics::Admin;
use crate::support::{Client, Response, Server, Strict, memory, options, post_head, push_of};

/// Far less than the waits of these tests.
const SOON: Duration = Duration::from_secs(5);

/// A pull that waits longer than any test takes.
fn waiting_pull(recipient: &str) -> Value {
    json!({"recipient": recipient, "wait_ms": 50_000})
}

/// Sends a pull, and does not read the response.
fn begin(server: &Server, pull: &Value) -> Client {
    let mut client = server.connect();
    let body = pull.to_string();
    client.send(post_head("/pull", "", body.len()) + &body);
    client
}

fn push(server: &Server, recipient: &str, number: u32) {
    server.post("/push", &push_of(recipient, number, "aGVsbG8=")).ok();
}

/// The chunk indices of a page.
fn numbers(response: &Response) -> Vec<u64> {
    let page = response.ok();
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["meta"]["chunk_index"].as_u64().unwrap()).collect()
}

#[test]
fn an_arrival_ends_the_wait_of_every_client_of_its_queue() {
    let server = Server::start();
    let mut waiting = [0, 1, 2].map(|_| begin(&server, &waiting_pull("alice")));
    let mut of_bob = begin(&server, &waiting_pull("bob"));
    server.wait_for_pulls(4);
    of_bob.assert_silent();
    let pushed = now();
    push(&server, "alice", 0);
    for client in &mut waiting {
        assert_eq!(numbers(&client.response()), [0]);
    }
    assert!(now() - pushed < SOON);
    of_bob.assert_silent();
    push(&server, "bob", 1);
    assert_eq!(numbers(&of_bob.response()), [1]);
}

#[test]
fn a_pull_waits_only_if_nothing_follows_its_cursor() {
    let server = Server::start();
    push(&server, "alice", 0);
    let first = server.post("/pull", &json!({"recipient": "alice", "wait_ms": 50_000, "tail": true}));
    assert_eq!(numbers(&first), [0]);
    let cursor = first.ok()["next_cursor"].clone();
    let mut second = begin(&server, &json!({"recipient": "alice", "wait_ms": 50_000, "cursor": cursor}));
    second.assert_silent();
    push(&server, "alice", 1);
    assert_eq!(numbers(&second.response()), [1]);
}

#[test]
fn a_wait_ends_with_an_empty_page_when_its_time_is_over() {
    let server = Server::with(
        memory(Limits::default()),
        Options { pull_wait_max: Duration::from_millis(700), ..options() },
    );
    for (wait_ms, expected_ms) in [(json!(300), 300), (json!(u64::MAX), 700), (json!(null), 0), (json!(0), 0)]
    {
        let start = now();
        let response = server.post("/pull", &json!({"recipient": "alice", "wait_ms": wait_ms}));
        let elapsed = now() - start;
        assert_eq!(response.ok(), json!({"items": [], "next_cursor": null, "remaining_estimate": 0}));
        let expected = Duration::from_millis(expected_ms);
        assert!((expected..expected + SOON).contains(&elapsed), "{wait_ms}: {elapsed:?}");
    }
}

#[test]
fn without_a_time_limit_in_the_options_no_pull_waits() {
    let server =
        Server::with(memory(Limits::default()), Options { pull_wait_max: Duration::ZERO, ..options() });
    let start = now();
    assert_eq!(numbers(&server.post("/pull", &waiting_pull("alice"))), [0_u64; 0]);
    assert!(now() - start < SOON);
}

#[test]
fn the_cursor_of_the_last_page_continues_after_it() {
    let server = Server::start();
    let pull = |cursor: &Value, max: Option<u32>, tail: bool| {
        let request = json!({"recipient": "alice", "cursor": cursor, "max": max, "tail": tail});
        let response = server.post("/pull", &request);
        (numbers(&response), response.ok()["next_cursor"].clone())
    };
    assert_eq!(pull(&Value::Null, None, true), (vec![], Value::Null), "nothing has ever arrived");
    (0..3).for_each(|number| push(&server, "alice", number));
    let (first, after_two) = pull(&Value::Null, Some(2), true);
    assert_eq!(first, [0, 1]);
    assert_eq!(pull(&Value::Null, Some(2), false), (first, after_two.clone()), "a page in the middle");
    let (last, end) = pull(&after_two, None, true);
    assert_eq!(last, [2]);
    assert_eq!(pull(&after_two, None, false), (vec![2], Value::Null));
    assert_eq!(pull(&end, None, true), (vec![], end.clone()), "an empty page has the cursor of its request");
    assert_eq!(pull(&end, None, false), (vec![], Value::Null));
    push(&server, "alice", 3);
    assert_eq!(pull(&end, None, false).0, [3]);
}

#[test]
fn a_wrong_type_names_the_field() {
    let server = Server::start();
    let refuse = |field: &str, value: Value, expected: &str| {
        let mut request = json!({"recipient": "alice"});
        request[field] = value;
        let response = server.post("/pull", &request);
        assert_eq!(response.assert_error(400, "invalid_input")["field"], field, "{request}");
        assert!(response.body.contains(expected), "{}", response.body);
    };
    for value in [json!("5"), json!(-1), json!(1.5), json!(true), json!([1]), json!({})] {
        refuse("wait_ms", value, "wait_ms: expected a whole number from 0 to 18446744073709551615, found");
    }
    for value in [json!("true"), json!(1), json!([]), json!({})] {
        refuse("tail", value, "tail: expected true or false, found");
    }
}

#[test]
fn a_client_that_hangs_up_frees_its_place_at_once() {
    let relay = memory(Limits::default());
    let server = Server::with(Arc::clone(&relay), options());
    let admin = Admin::start(&relay, &server.metrics);
    let mut eight: Vec<_> = (0..8).map(|_| begin(&server, &waiting_pull("alice"))).collect();
    admin.await_waiting(8);
    let refused = server.post("/pull", &waiting_pull("alice"));
    let details = refused.assert_error(429, "rate_limited");
    assert_eq!((&details["bucket"], refused.header("retry-after")), (&json!("waiting"), Some("1")));
    assert_eq!(refused.header("ratelimit"), Some(r#""waiting";r=0;t=1"#));
    server.post("/pull", &json!({"recipient": "alice"})).ok();
    drop(eight.pop());
    admin.await_waiting(7);
    eight.push(begin(&server, &waiting_pull("alice")));
    admin.await_waiting(8);
    // A client that only closes its sending side still gets its response.
    let mut half_closed = eight.pop().unwrap();
    half_closed.finish_sending();
    assert_eq!(numbers(&half_closed.response()), [0_u64; 0]);
    admin.await_waiting(7);
}

#[test]
fn a_shutdown_answers_every_wait() {
    let mut server = Server::start();
    let mut waiting: Vec<_> =
        (0..50).map(|queue| begin(&server, &waiting_pull(&queue.to_string()))).collect();
    server.wait_for_pulls(50);
    let start = now();
    server.shut_down();
    for client in &mut waiting {
        let response = client.response();
        assert_eq!(numbers(&response), [0_u64; 0]);
        assert!(response.closes());
    }
    server.wait_within(SOON);
    assert!(now() - start < SOON);
}

/// The budget takes one page or body of its size at a time.
#[test]
fn waiting_pulls_hold_no_memory_of_the_budget_and_no_place_of_a_reader() {
    let relay = memory(Limits::default());
    let server = Server::with(Arc::clone(&relay), Options { inflight_bytes_max: 64 * 1024, ..options() });
    let admin = Admin::start(&relay, &server.metrics);
    let _waiting: Vec<_> = (0..300).map(|queue| begin(&server, &waiting_pull(&queue.to_string()))).collect();
    admin.await_waiting(300);
    assert_eq!(admin.scrape().of("relay_inflight_bytes"), 0.0);
    let payload = "A".repeat(40 * 1024);
    server.post("/push", &push_of("alice", 0, &payload)).ok();
    assert_eq!(numbers(&server.post("/pull", &json!({"recipient": "alice"}))), [0]);
}

#[test]
fn a_waiting_connection_is_not_closed_to_make_room() {
    let two = NonZeroUsize::new(2).unwrap();
    let server = Server::with(memory(Limits::default()), Options { connections_max: two, ..options() });
    let mut waiting = begin(&server, &waiting_pull("alice"));
    server.wait_for_pulls(1);
    let mut idle = server.connect();
    idle.post("/pull", r#"{"recipient":"bob"}"#).ok();
    push(&server, "bob", 0);
    idle.assert_gone();
    push(&server, "alice", 1);
    assert_eq!(numbers(&waiting.response()), [1]);
}

/// Otherwise some addresses could keep all others from connecting, for as long as a stream may
/// last.
#[test]
fn waits_leave_connections_for_other_requests() {
    let relay = memory(Limits::default());
    let connections_max = NonZeroUsize::new(16).unwrap();
    let server = Server::with(Arc::clone(&relay), Options { connections_max, ..options() });
    let admin = Admin::start(&relay, &server.metrics);
    let mut waiting: Vec<_> =
        (0..15).map(|queue| begin(&server, &waiting_pull(&queue.to_string()))).collect();
    admin.await_waiting(15);
    for path in ["/pull", "/stream"] {
        let refused = server.post(path, &waiting_pull("alice"));
        assert_eq!(refused.assert_error(429, "rate_limited")["bucket"], "waiting");
    }
    push(&server, "0", 1);
    assert_eq!(numbers(&waiting[0].response()), [1]);
}

#[test]
fn over_http_1_the_waits_of_an_address_are_bounded_by_its_connections() {
    let relay = memory(Limits::default());
    let places = NonZeroUsize::new(5).unwrap();
    let options = Options { connections_per_address_max: places, ..options() };
    let server = Server::with(
        Arc::clone(&relay),
        Options { rate_limit: Some(rate_limit(1000, 1000, &[])), ..options },
    );
    let admin = Admin::start(&relay, &server.metrics);
    let mut waiting: Vec<_> = (0..5).map(|queue| begin(&server, &waiting_pull(&queue.to_string()))).collect();
    admin.await_waiting(5);
    // All connections of the address are busy, so there is none for a sixth wait.
    server.connect().assert_gone();
    waiting.pop();
    admin.await_waiting(4);
    waiting.push(begin(&server, &waiting_pull("alice")));
    admin.await_waiting(5);
}

#[test]
fn a_wait_counts_once_in_the_rate_limit_and_not_in_the_time_of_requests() {
    let relay = memory(Limits::default());
    // Two tokens, and another one in a second.
    let limit = rate_limit(2, 1000, &[]);
    let server = Server::with(Arc::clone(&relay), Options { rate_limit: Some(limit), ..options() });
    let admin = Admin::start(&relay, &server.metrics);
    let mut client = server.connect();
    let waited = client.post("/pull", r#"{"recipient":"alice","wait_ms":100}"#);
    assert_eq!(numbers(&waited), [0_u64; 0]);
    let samples = admin.scrape();
    assert_eq!(samples.of(r#"relay_requests_total{endpoint="pull",code="ok"}"#), 1.0);
    assert_eq!(samples.of(r#"relay_request_seconds_count{endpoint="pull"}"#), 0.0);
    client.post("/pull", r#"{"recipient":"alice"}"#).ok();
    assert_eq!(admin.scrape().of(r#"relay_request_seconds_count{endpoint="pull"}"#), 1.0);
    let third = client.post("/pull", r#"{"recipient":"alice"}"#);
    assert_eq!(third.assert_error(429, "rate_limited")["bucket"], "pull");
}

#[test]
fn what_is_there_is_read_even_if_too_many_wait() {
    let relay = memory(Limits::default());
    let server = Server::with(Arc::clone(&relay), options());
    let admin = Admin::start(&relay, &server.metrics);
    let after_first = {
        push(&server, "alice", 0);
        let page = server.post("/pull", &json!({"recipient": "alice", "tail": true})).ok();
        page["next_cursor"].clone()
    };
    let waiting = json!({"recipient": "alice", "wait_ms": 50_000, "cursor": after_first});
    let _eight: Vec<_> = (0..8).map(|_| begin(&server, &waiting)).collect();
    admin.await_waiting(8);
    server.post("/pull", &waiting).assert_error(429, "rate_limited");
    assert_eq!(numbers(&server.post("/pull", &waiting_pull("alice"))), [0]);
}

#[test]
fn a_wait_delivers_nothing_after_its_proof_has_expired() {
    let relay = Strict::new();
    let server = Server::with(Arc::clone(&relay), options());
    let mut client = server.connect();
    let body = waiting_pull("alice").to_string();
    let head = post_head("/pull", "authorization: Basic b3Blbg==\r\n", body.len());
    client.send(head + &body);
    server.wait_for_pulls(1);
    client.assert_silent();
    relay.is_open.store(false, Ordering::SeqCst);
    push(&server, "alice", 0);
    client.response().assert_error(401, "unauthorized");
}

/// A relay that wakes nobody, as those of embedders may be.
struct Silent {
    inner: MemoryRelay,
    pulls: AtomicUsize,
}

impl Relay for Silent {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        self.inner.push(envelope).await
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        self.pulls.fetch_add(1, Ordering::SeqCst);
        self.inner.pull(pull).await
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        self.inner.ack(ack).await
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        self.inner.sweep().await
    }
}

#[test]
fn over_a_relay_that_wakes_nobody_a_wait_looks_once_a_second() {
    let inner = Arc::try_unwrap(memory(Limits::default())).unwrap();
    let relay = Arc::new(Silent { inner, pulls: AtomicUsize::new(0) });
    let server = Server::with(Arc::clone(&relay), options());
    let mut waiting = begin(&server, &waiting_pull("alice"));
    std::thread::sleep(Duration::from_millis(1500));
    let looks = relay.pulls.load(Ordering::SeqCst);
    assert!((1..=2).contains(&looks), "{looks} looks");
    push(&server, "alice", 0);
    assert_eq!(numbers(&waiting.response()), [0]);
}
