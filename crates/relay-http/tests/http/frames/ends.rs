//! Tests of orderly ends: GOAWAY tells a client to reconnect, and no request is lost.

use std::num::NonZeroU32;
use std::time::Duration;

use relay_http::{Options, RateLimit};
use serde_json::{Value, json};

use super::wire::*;
use crate::limits::rate_limit;
use crate::support::{Gate, memory, options, push_of};

/// How much longer than its time limit something may take.
const SLACK: Duration = Duration::from_secs(5);

/// Asserts that the connection ends with GOAWAY without an error, and is closed.
fn assert_ends_well(connection: &mut Http2Connection, what: &str) {
    assert_eq!(connection.await_goaway(), End::GoneAway(NO_ERROR), "{what}");
    assert_eq!(connection.until(|_| None::<()>), Err(End::Closed), "{what}");
}

/// Sends a ping every 50 ms until the connection ends.
fn ping_until_the_end(connection: &mut Http2Connection) {
    connection.be_patient_for(Duration::from_millis(50));
    loop {
        match connection.await_goaway() {
            End::Silent => drop(connection.send(&ping())),
            end => {
                assert_eq!(end, End::GoneAway(NO_ERROR));
                return;
            }
        }
    }
}

#[test]
fn pings_do_not_extend_the_keep_alive_time() {
    let keep_alive = Duration::from_millis(2500);
    let world =
        Http2Server::with(Options { request_timeout: Duration::from_millis(500), keep_alive, ..options() });
    for has_pings in [false, true] {
        let mut connection = world.open();
        assert!(connection.send(&get(1)));
        assert_eq!(connection.response(1).status, 200);
        let start = now();
        if has_pings {
            ping_until_the_end(&mut connection);
        } else {
            assert_ends_well(&mut connection, "a rest");
        }
        let idle_time = now() - start;
        let expected = keep_alive - Duration::from_millis(200)..keep_alive + SLACK;
        assert!(expected.contains(&idle_time), "with pings {has_pings}: {idle_time:?}");
    }
}

#[test]
fn the_first_request_must_arrive_within_the_request_timeout() {
    let request_timeout = Duration::from_millis(1000);
    let world =
        Http2Server::with(Options { request_timeout, keep_alive: Duration::from_secs(60), ..options() });
    let start = now();
    assert_ends_well(&mut world.open(), "silence");
    ping_until_the_end(&mut world.open());
    let half = frame(HEADERS, END_STREAM, 1, &head("GET", "/health"));
    let mut connection = world.open();
    assert!(connection.send(&half));
    assert_ends_well(&mut connection, "half a head");
    let waited = now() - start;
    assert!(
        (3 * request_timeout - request_timeout / 4..3 * request_timeout + SLACK).contains(&waited),
        "{waited:?}"
    );
    // An incomplete preface has a time limit, too.
    let mut connection = world.connect();
    assert!(connection.send(&PREFACE[..10]));
    connection.assert_closed();
}

#[test]
fn a_drain_sends_goaway_at_once_and_answers_requests_in_progress() {
    let (gate, arrivals) = Gate::new();
    let let_go = gate.let_go.clone();
    let mut world = Http2Server::of(gate, options());
    let [mut idle, mut busy] = [world.open(), world.open()];
    assert!(idle.send(&get(1)));
    assert_eq!(idle.response(1).status, 200);
    assert!(busy.send(&post(1, "/push", &push_of("alice", 0, "aGVsbG8="))));
    arrivals.recv().unwrap();

    world.server.shut_down();
    assert_ends_well(&mut idle, "a connection that rests");
    assert_eq!(busy.await_goaway(), End::GoneAway(NO_ERROR));
    // Later requests are refused, and do not delay those in progress.
    assert!(busy.send(&post(3, "/push", &push_of("alice", 1, "aGVsbG8="))));
    busy.response(3).assert_error(503, "draining");
    let_go.add_permits(1);
    assert_eq!(busy.response(1).status, 200);
    busy.assert_closed();
    world.server.wait_within(SLACK);
}

/// When the relay has finished a request, its last bytes may still be in the protocol.
#[test]
fn a_drain_waits_for_the_last_byte() {
    let mut world = Http2Server::new();
    let payload = "A".repeat(4 * 1024 * 1024);
    assert_eq!(world.push(0, &payload), 200);
    let mut connection = world.connect_narrow().with_preface(&[(INITIAL_WINDOW, 0x7fff_0000)]);
    let pull = post(1, "/pull", &json!({"recipient": "alice"}));
    assert!(connection.send(&[window(0, 0x7fff_0000), pull].concat()));
    world.server.wait_for_pulls(1);
    world.server.shut_down();
    let page: Value = serde_json::from_slice(&connection.response(1).body).unwrap();
    assert!(page["items"][0]["ciphertext_b64"] == payload.as_str());
    connection.assert_closed();
    world.server.wait_within(SLACK);
}

#[test]
fn a_connection_ends_at_its_maximum_age() {
    let (gate, arrivals) = Gate::new();
    let let_go = gate.let_go.clone();
    let world =
        Http2Server::of(gate, Options { connection_age_max: Duration::from_millis(700), ..options() });
    let mut idle = world.open();
    assert!(idle.send(&get(1)));
    assert_eq!(idle.response(1).status, 200);
    assert_ends_well(&mut idle, "a connection that rests");
    let mut busy = world.open();
    assert!(busy.send(&post(1, "/push", &push_of("alice", 0, "aGVsbG8="))));
    arrivals.recv().unwrap();
    assert_eq!(busy.await_goaway(), End::GoneAway(NO_ERROR));
    let_go.add_permits(1);
    assert_eq!(busy.response(1).status, 200);
    busy.assert_closed();
}

/// A client that ignores GOAWAY and always has a request in progress is closed.
#[test]
fn a_client_that_ignores_goaway_is_closed() {
    let (gate, arrivals) = Gate::new();
    let world = Http2Server::of(
        gate,
        Options {
            connection_age_max: Duration::from_millis(500),
            request_timeout: Duration::from_secs(3),
            ..options()
        },
    );
    let mut connection = world.open();
    let pull = json!({"recipient": "alice"});
    let slow = |stream: u32| unfinished_push(stream, &field("content-length", "2"));
    assert!(connection.send(&slow(1)));
    assert_eq!(connection.await_goaway(), End::GoneAway(NO_ERROR));
    let start = now();
    connection.be_patient_for(Duration::from_millis(100));
    let mut refused = 0;
    for number in 1.. {
        assert!(now() - start < Duration::from_secs(20), "the client is served for ever");
        if !connection.send(&[slow(4 * number + 1), post(4 * number + 3, "/pull", &pull)].concat()) {
            break;
        }
        let end = connection.until(|frame| {
            refused += u32::from(frame.kind == RST_STREAM && frame.error() == REFUSED_STREAM);
            None::<()>
        });
        if end == Err(End::Closed) {
            break;
        }
    }
    println!("closed after {:?}, {refused} requests refused", now() - start);
    drop(arrivals);
}

#[test]
fn a_ban_ends_the_connection() {
    let limit = RateLimit { ban_threshold: NonZeroU32::MIN, ..rate_limit(1, 1, &[]) };
    let world = Http2Server::of(memory(Default::default()), Options { rate_limit: Some(limit), ..options() });
    let mut connection = world.open();
    let start = now();
    let stats = |stream: u32| frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("GET", "/stats"));
    let end = (0..).find_map(|round: u32| {
        assert!(now() - start < Duration::from_secs(20), "the client is never banned");
        let requests: Vec<u8> = (0..50).flat_map(|number| stats(2 * (50 * round + number) + 1)).collect();
        connection.send(&requests);
        let mut answered = 0;
        let end = connection.until(|frame| {
            answered += u32::from(frame.ends_stream());
            if frame.kind == GOAWAY { Some(Some(frame.error())) } else { (answered == 50).then_some(None) }
        });
        end.expect("the connection ended without GOAWAY")
    });
    assert_eq!(end, Some(NO_ERROR));
    connection.assert_closed();
}
