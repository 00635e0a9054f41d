//! Tests of streams of events over HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use relay_core::Limits;
use relay_http::Options;
use serde_json::{Value, json};

use super::wire::*;
use crate::metrics::Admin;
use crate::support::{memory, options};

const SOON: Duration = Duration::from_secs(10);

/// More than any stream of these tests.
const WIDE: u32 = 0x7fff_0000;

const MIB: usize = 1024 * 1024;

fn open(stream: u32, recipient: &str) -> Vec<u8> {
    post(stream, "/stream", &json!({"recipient": recipient}))
}

/// Reads the frames of a stream until its next whole event.
fn next_event(connection: &mut Http2Connection, stream: u32, text: &mut Vec<u8>) -> Option<Value> {
    loop {
        if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            return Some(serde_json::from_slice(&line).unwrap());
        }
        let frame = connection.read().unwrap();
        if frame.stream == stream && frame.kind == DATA {
            text.extend_from_slice(&frame.payload);
            if frame.ends_stream() {
                return None;
            }
        }
    }
}

#[test]
fn events_arrive_over_http_2_and_a_shutdown_ends_them() {
    let mut world = Http2Server::new();
    let mut connection = world.connect().with_preface(&[(INITIAL_WINDOW, WIDE)]);
    assert!(connection.send(&window(0, WIDE)));
    assert!(connection.send(&open(1, "alice")));
    let mut text = Vec::new();
    for number in 0..5 {
        assert_eq!(world.push(number, "aGVsbG8="), 200);
        let event = next_event(&mut connection, 1, &mut text).unwrap();
        assert_eq!(event["items"][0]["meta"]["chunk_index"], number);
    }
    let large = "A".repeat(4 * MIB);
    assert_eq!(world.push(5, &large), 200);
    let event = next_event(&mut connection, 1, &mut text).unwrap();
    assert_eq!(event["items"][0]["ciphertext_b64"], large);
    world.server.shut_down();
    assert_eq!(next_event(&mut connection, 1, &mut text), Some(json!({"bye": "draining"})));
    assert_eq!(next_event(&mut connection, 1, &mut text), None);
    world.server.wait_within(SOON);
}

#[test]
fn a_reset_stream_and_a_closed_connection_free_their_places() {
    let relay = memory(Limits::default());
    let world = Http2Server::of(Arc::clone(&relay), options());
    let admin = Admin::start(&relay, &world.server.metrics);
    let mut connection = world.open();
    for number in 0..8 {
        assert!(connection.send(&open(2 * number + 1, "alice")));
    }
    admin.await_waiting(8);
    assert!(connection.send(&open(17, "alice")));
    assert_eq!(connection.response(17).status, 429);
    assert!(connection.send(&reset(5)));
    admin.await_waiting(7);
    assert!(connection.send(&open(19, "alice")));
    admin.await_waiting(8);
    drop(connection);
    admin.await_waiting(0);
}

/// A client that never opens its windows holds one page for each stream, until it is given up.
#[test]
fn a_closed_window_holds_one_page_and_is_given_up() {
    let grace = Duration::from_secs(3);
    let relay = memory(Limits { page_items_max: 1, ..Limits::default() });
    let options = Options { request_timeout: grace, inflight_bytes_max: 64 * MIB, ..options() };
    let world = Http2Server::of(Arc::clone(&relay), options);
    let levels = world.levels();
    for number in 0..4 {
        assert_eq!(world.push(number, &"A".repeat(4 * MIB)), 200);
    }
    let start = now();
    let mut connection = world.connect().with_preface(&[(INITIAL_WINDOW, 1000)]);
    assert!(connection.send(&open(1, "alice")));
    assert!(eventually(SOON, || levels().bytes > 2.5 * MIB as f64), "{:?}", levels());
    assert!(levels().bytes < 3.5 * MIB as f64, "{:?}", levels());
    assert_eq!(connection.until(|frame| (frame.kind == RST_STREAM).then(|| frame.error())), Ok(CANCEL));
    assert!(now() - start < grace + SOON);
    assert!(eventually(SOON, || levels().bytes == 0.0), "{:?}", levels());
}

/// A stream that has sent everything is not cut off, however short the grace period is.
#[test]
fn a_stream_may_be_silent_for_longer_than_a_response_may_take() {
    let world = Http2Server::with(Options { request_timeout: Duration::from_millis(500), ..options() });
    let mut connection = world.open();
    assert!(connection.send(&open(1, "alice")));
    let mut text = Vec::new();
    for number in 0..3 {
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(world.push(number, "aGVsbG8="), 200);
        let event = next_event(&mut connection, 1, &mut text).unwrap();
        assert_eq!(event["items"][0]["meta"]["chunk_index"], number);
    }
}
