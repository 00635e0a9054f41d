//! The end of a connection that is no fault: a client learns from a GOAWAY that it has to go
//! elsewhere, and loses nothing by it.

use std::num::NonZeroU32;
use std::time::Duration;

use relay_http::{Options, RateLimit};
use serde_json::{Value, json};

use super::wire::*;
use crate::limits::rate_limit;
use crate::support::{Gate, memory, options, push_of};

/// How much longer than its time anything may take.
const SLACK: Duration = Duration::from_secs(5);

/// An end without a fault, and the close behind it.
fn assert_ends_well(connection: &mut Connection, what: &str) {
    assert_eq!(connection.goodbye(), End::GoneAway(NO_ERROR), "{what}");
    assert_eq!(connection.until(|_| None::<()>), Err(End::Closed), "{what}");
}

/// Sends pings until the end, one each 50 ms.
fn ping_until_the_end(connection: &mut Connection) {
    connection.be_patient_for(Duration::from_millis(50));
    loop {
        match connection.goodbye() {
            End::Silent => drop(connection.send(&ping())),
            end => {
                assert_eq!(end, End::GoneAway(NO_ERROR));
                return;
            }
        }
    }
}

#[test]
fn a_connection_rests_for_its_keep_alive_whatever_else_it_says() {
    let keep_alive = Duration::from_millis(2500);
    let world = World::with(Options { request_timeout: Duration::from_millis(500), keep_alive, ..options() });
    for has_pings in [false, true] {
        let mut connection = world.open();
        assert!(connection.send(&get(1)));
        assert_eq!(connection.answer(1).status, 200);
        let start = now();
        if has_pings {
            ping_until_the_end(&mut connection);
        } else {
            assert_ends_well(&mut connection, "a rest");
        }
        let rested = now() - start;
        let expected = keep_alive - Duration::from_millis(200)..keep_alive + SLACK;
        assert!(expected.contains(&rested), "with pings {has_pings}: {rested:?}");
    }
}

#[test]
fn the_first_request_has_to_come_soon_whatever_else_is_said() {
    let request_timeout = Duration::from_millis(1000);
    let world = World::with(Options { request_timeout, keep_alive: Duration::from_secs(60), ..options() });
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
    // Nor is there a beginning without end.
    let mut connection = world.connect();
    assert!(connection.send(&PREFACE[..10]));
    connection.assert_closed();
}

#[test]
fn a_drain_tells_at_once_and_what_is_in_work_is_answered() {
    let (gate, arrivals) = Gate::new();
    let let_go = gate.let_go.clone();
    let mut world = World::of(gate, options());
    let [mut resting, mut busy] = [world.open(), world.open()];
    assert!(resting.send(&get(1)));
    assert_eq!(resting.answer(1).status, 200);
    assert!(busy.send(&post(1, "/push", &push_of("alice", 0, "aGVsbG8="))));
    arrivals.recv().unwrap();

    world.server.shut_down();
    assert_ends_well(&mut resting, "a connection that rests");
    assert_eq!(busy.goodbye(), End::GoneAway(NO_ERROR));
    // What comes in spite of it is sent away, and does not hold up the rest.
    assert!(busy.send(&post(3, "/push", &push_of("alice", 1, "aGVsbG8="))));
    busy.answer(3).assert_error(503, "draining");
    let_go.add_permits(1);
    assert_eq!(busy.answer(1).status, 200);
    busy.assert_closed();
    world.server.wait_within(SLACK);
}

/// The last bytes are with the protocol, not with the client, when the relay is done with the
/// request.
#[test]
fn a_drain_waits_for_the_last_byte() {
    let mut world = World::new();
    let payload = "A".repeat(4 * 1024 * 1024);
    assert_eq!(world.push(0, &payload), 200);
    let mut connection = world.connect_narrow().begun(&[(INITIAL_WINDOW, 0x7fff_0000)]);
    let pull = post(1, "/pull", &json!({"recipient": "alice"}));
    assert!(connection.send(&[window(0, 0x7fff_0000), pull].concat()));
    world.server.wait_for_pulls(1);
    world.server.shut_down();
    let page: Value = serde_json::from_slice(&connection.answer(1).body).unwrap();
    assert!(page["items"][0]["ciphertext_b64"] == payload.as_str());
    connection.assert_closed();
    world.server.wait_within(SLACK);
}

#[test]
fn a_connection_gets_only_so_old() {
    let (gate, arrivals) = Gate::new();
    let let_go = gate.let_go.clone();
    let world = World::of(gate, Options { connection_age_max: Duration::from_millis(700), ..options() });
    let mut resting = world.open();
    assert!(resting.send(&get(1)));
    assert_eq!(resting.answer(1).status, 200);
    assert_ends_well(&mut resting, "a connection that rests");
    let mut busy = world.open();
    assert!(busy.send(&post(1, "/push", &push_of("alice", 0, "aGVsbG8="))));
    arrivals.recv().unwrap();
    assert_eq!(busy.goodbye(), End::GoneAway(NO_ERROR));
    let_go.add_permits(1);
    assert_eq!(busy.answer(1).status, 200);
    busy.assert_closed();
}

/// A client that does not follow, but always has a request in work, cannot stay.
#[test]
fn who_goes_on_asking_is_served_no_longer() {
    let (gate, arrivals) = Gate::new();
    let world = World::of(
        gate,
        Options {
            connection_age_max: Duration::from_millis(500),
            request_timeout: Duration::from_secs(3),
            ..options()
        },
    );
    let mut connection = world.open();
    let pull = json!({"recipient": "alice"});
    let slow = |stream: u32| begun(stream, &field("content-length", "2"));
    assert!(connection.send(&slow(1)));
    assert_eq!(connection.goodbye(), End::GoneAway(NO_ERROR));
    let start = now();
    connection.be_patient_for(Duration::from_millis(100));
    let mut refused = 0;
    for number in 1.. {
        assert!(now() - start < Duration::from_secs(20), "it is served for ever");
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
    let world = World::of(memory(Default::default()), Options { rate_limit: Some(limit), ..options() });
    let mut connection = world.open();
    let start = now();
    let stats = |stream: u32| frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("GET", "/stats"));
    let end = (0..).find_map(|round: u32| {
        assert!(now() - start < Duration::from_secs(20), "it is never banned");
        let requests: Vec<u8> = (0..50).flat_map(|number| stats(2 * (50 * round + number) + 1)).collect();
        connection.send(&requests);
        let mut answered = 0;
        let end = connection.until(|frame| {
            answered += u32::from(frame.ends_stream());
            if frame.kind == GOAWAY { Some(Some(frame.error())) } else { (answered == 50).then_some(None) }
        });
        end.expect("it is told of its end")
    });
    assert_eq!(end, Some(NO_ERROR));
    connection.assert_closed();
}
