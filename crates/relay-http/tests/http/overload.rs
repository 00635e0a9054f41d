//! Tests of overload: requests beyond the memory limit, and slow clients. Accepted requests finish,
//! all others get 503, and `/health` always answers.

use std::num::NonZeroUsize;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use relay_core::{Ack, AckOutcome, Envelope, Error, Limits, Page, Pull, PushOutcome, Relay, Swept, Usage};
use relay_http::Options;
use serde_json::json;

use crate::support::{Client, Gate, Response, Server, memory, options, post_head, push_of};

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";
const MIB: usize = 1024 * 1024;

/// Larger than a small request; two of them exceed the memory limit of these tests.
const LARGE_BYTES: usize = MIB / 2;

/// A relay that blocks a thread with every request, as with a disk that hangs.
#[derive(Default)]
struct Hanging(Arc<RwLock<()>>);

impl Hanging {
    async fn hang(&self) -> Result<(), Error> {
        let lock = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || drop(lock.read().unwrap())).await.unwrap();
        Ok(())
    }
}

impl Relay for Hanging {
    async fn push(&self, _: Envelope) -> Result<PushOutcome, Error> {
        self.hang().await?;
        Ok(PushOutcome::Stored { usage: Usage::ZERO, deadline: relay_core::Timestamp::default() })
    }

    async fn pull(&self, _: Pull) -> Result<Page, Error> {
        self.hang().await?;
        Ok(Page { items: Vec::new(), next: None, remaining: 0 })
    }

    async fn ack(&self, _: Ack) -> Result<AckOutcome, Error> {
        self.hang().await?;
        Ok(AckOutcome::default())
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        Ok(Swept::default())
    }
}

fn large_push(chunk_index: u32) -> String {
    push_of("alice", chunk_index, &"A".repeat(LARGE_BYTES)).to_string()
}

/// A server with little memory, and a client whose large push waits in the store. The client sends
/// `before` first.
fn server_with_waiting_push(before: &str) -> (Server, Arc<Gate>, Receiver<()>, Client) {
    let (gate, arrivals) = Gate::new();
    let server = Server::with(Arc::clone(&gate), Options { inflight_bytes_max: MIB, ..options() });
    let mut first = server.connect();
    let body = large_push(0);
    first.send(before);
    first.send(post_head("/push", "", body.len()));
    first.send(body);
    arrivals.recv().unwrap();
    (server, gate, arrivals, first)
}

/// Sends the head of a large push and no body.
fn announce(server: &Server) -> Response {
    let mut client = server.connect();
    client.send(post_head("/push", "", LARGE_BYTES));
    client.response()
}

fn assert_overloaded(response: &Response) {
    response.assert_error(503, "overloaded");
    assert_eq!(response.header("retry-after"), Some("1"));
}

#[test]
fn a_request_that_does_not_fit_is_refused_before_its_body_is_read() {
    let (server, gate, _arrivals, mut first) = server_with_waiting_push("");
    let response = announce(&server);
    assert_overloaded(&response);
    assert!(response.closes(), "its body is not worth reading");
    server.post("/pull", &json!({"recipient": "alice"})).ok();
    server.get("/health").ok();

    gate.let_go.add_permits(2);
    assert_eq!(first.response().ok()["stored"], true);
    assert_eq!(server.connect().post("/push", &large_push(1)).ok()["stored"], true);
}

#[test]
fn a_push_that_waits_in_the_store_is_counted_after_a_disconnect() {
    // The client does not read its first response, so its end is a reset, which the server notices.
    let (server, gate, _arrivals, first) = server_with_waiting_push(HEALTH);
    drop(first);
    while server.metrics.counts().push_failed == 0 {
        std::thread::yield_now();
    }
    assert_overloaded(&announce(&server));
    gate.let_go.add_permits(2);
    // It is not visible from outside when the store finishes the push.
    while server.connect().post("/push", &large_push(1)).status != 200 {}
}

#[test]
fn a_page_is_counted_until_it_is_sent() {
    let limits = Limits { page_bytes_max: 64 * MIB as u64, ..Limits::default() };
    let server = Server::with(memory(limits), Options { inflight_bytes_max: 32 * MIB, ..options() });
    let payload = "A".repeat(10 * MIB);
    for index in 0..3 {
        server.post("/push", &push_of("alice", index, &payload)).ok();
    }
    let pull = json!({"recipient": "alice"});
    let mut slow = server.connect();
    let body = pull.to_string();
    slow.send(post_head("/pull", "", body.len()));
    slow.send(body);
    assert_eq!(slow.response_without_body().status, 200);
    // The rest of the page, which is more than the buffers hold, waits for the client.
    assert_overloaded(&server.post("/pull", &pull));
    server.post("/pull", &json!({"recipient": "alice", "max": 1})).assert_error(503, "overloaded");
    server.post("/pull", &json!({"recipient": "bob"})).ok();
    drop(slow);
    while server.post("/pull", &pull).status != 200 {}
}

#[test]
fn a_slow_body_is_given_up_early() {
    let request_timeout = Duration::from_secs(6);
    let server = Server::with(memory(Limits::default()), Options { request_timeout, ..options() });
    let start = now();
    let mut client = server.connect();
    client.send(post_head("/push", "", 100_000));
    client.send("{\"recipient\":");
    client.response().assert_error(408, "request_timeout");
    let waited = now() - start;
    assert!(waited < request_timeout * 2 / 3, "{waited:?}");
}

#[test]
fn a_new_connection_replaces_the_one_that_is_idle_longest() {
    let connections_max = NonZeroUsize::new(2).unwrap();
    let server = Server::with(memory(Limits::default()), Options { connections_max, ..options() });
    let [mut first, mut second] = [server.connect(), server.connect()];
    for client in [&mut first, &mut second] {
        client.ask(HEALTH).ok();
    }
    let mut third = server.connect();
    third.ask(HEALTH).ok();
    first.assert_closed();
    second.ask(HEALTH).ok();
}

#[test]
fn new_connections_wait_while_none_is_idle() {
    let (gate, arrivals) = Gate::new();
    let connections_max = NonZeroUsize::new(2).unwrap();
    let server = Server::with(Arc::clone(&gate), Options { connections_max, ..options() });
    let mut busy: Vec<_> = (0..2)
        .map(|index| {
            let mut client = server.connect();
            let body = push_of("alice", index, "").to_string();
            client.send(format!("{}{body}", post_head("/push", "", body.len())));
            arrivals.recv().unwrap();
            client
        })
        .collect();
    let mut waiting = server.connect();
    waiting.send(HEALTH);
    waiting.assert_silent();
    gate.let_go.add_permits(2);
    for client in &mut busy {
        client.response().ok();
    }
    waiting.response().ok();
}

#[test]
fn an_idle_connection_is_closed_after_keep_alive() {
    let keep_alive = Duration::from_millis(300);
    let server = Server::with(memory(Limits::default()), Options { keep_alive, ..options() });
    let mut client = server.connect();
    client.ask(HEALTH).ok();
    client.assert_closed();
}

#[test]
fn a_store_that_hangs_does_not_block_other_endpoints() {
    const OF_EACH: usize = 100;
    let relay = Hanging::default();
    let lock = Arc::clone(&relay.0);
    let hanging = lock.write().unwrap();
    let server = Server::with(Arc::new(relay), options());
    let push = push_of("alice", 0, "").to_string();
    let bodies = [
        ("/push", &*push),
        ("/pull", r#"{"recipient":"alice"}"#),
        ("/ack", r#"{"recipient":"alice","ack":[]}"#),
    ];
    let mut clients: Vec<Client> = bodies
        .iter()
        .flat_map(|request| std::iter::repeat_n(request, OF_EACH))
        .map(|(path, body)| {
            let mut client = server.connect();
            client.send(post_head(path, "", body.len()));
            client.send(body);
            client
        })
        .collect();
    for _ in 0..20 {
        server.get("/health").ok();
        server.get("/ready").ok();
        server.get("/stats").ok();
    }
    drop(hanging);
    for client in &mut clients {
        client.response().ok();
    }
}

#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
fn now() -> Instant {
    Instant::now()
}
