//! Windows that stay shut, open a byte at a time, or shrink: an answer holds its memory only as
//! long as its client takes it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use relay_http::Options;
use serde_json::{Value, json};

use super::wire::*;
use crate::support::options;

const MIB: usize = 1024 * 1024;

/// The grace of an answer.
const GRACE: Duration = Duration::from_secs(3);

/// How much later than that its memory may come back.
const SLACK: Duration = Duration::from_secs(10);

/// As many pages as have no room together.
const PULLS: u32 = 12;

/// As much as fits into one page.
const PAYLOAD_BYTES: usize = 9 * MIB;

/// Far more than any answer.
const WIDE: u32 = 0x7fff_0000;

/// A server with room for a few pages, and an item that makes a page of the largest size.
fn small() -> World {
    let world = World::with(Options { request_timeout: GRACE, inflight_bytes_max: 64 * MIB, ..options() });
    assert_eq!(world.push(0, &"A".repeat(PAYLOAD_BYTES)), 200);
    world
}

fn pull(stream: u32) -> Vec<u8> {
    post(stream, "/pull", &json!({"recipient": "alice"}))
}

/// A client that asks for many pages and takes them as `hold` says, which is asked for what to send
/// now and then. The pages are given up, their room comes back, and others get theirs.
fn check(what: &str, settings: &[(u16, u32)], mut hold: impl FnMut() -> Vec<u8>) {
    let world = small();
    let levels = world.levels();
    let mut connection = world.connect().begun(settings);
    let start = now();
    let pulls: Vec<u8> = (0..PULLS).flat_map(|number| pull(2 * number + 1)).collect();
    assert!(connection.send(&pulls));
    assert!(eventually(SLACK, || levels().bytes > 40.0 * MIB as f64), "{what}: {:?}", levels());
    connection.be_patient_for(Duration::from_millis(50));
    let (mut ended, mut given_up) = (BTreeSet::new(), 0);
    while ended.len() < PULLS as usize {
        assert!(now() - start < GRACE + SLACK, "{what}: {:?}", levels());
        match connection.read() {
            Ok(frame) if frame.kind == RST_STREAM => {
                assert_eq!(frame.error(), CANCEL, "{what}");
                given_up += 1;
                ended.insert(frame.stream);
            }
            Ok(frame) if frame.ends_stream() && frame.stream < 2 * PULLS => drop(ended.insert(frame.stream)),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                assert!(connection.send(&hold()));
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    assert!(eventually(SLACK, || levels().bytes == 0.0), "{what}: {:?}", levels());
    let seconds = (now() - start).as_secs_f64();
    println!("{what}: {given_up} pages are given up, and the room is back after {seconds:.1} s");
    assert!(given_up >= 6, "{what}: {given_up}");
    assert_serves(&world, what);
}

/// Others get what is large.
fn assert_serves(world: &World, what: &str) {
    assert_eq!(world.push(1, &"A".repeat(PAYLOAD_BYTES)), 200, "{what}");
    let mut connection = world.open();
    assert!(connection.send(&pull(1)));
    let page: Value = serde_json::from_slice(&connection.answer(1).body).unwrap();
    assert_eq!(page["items"][0]["ciphertext_b64"].as_str().map(str::len), Some(PAYLOAD_BYTES), "{what}");
}

#[test]
fn a_stream_window_of_nothing_holds_no_page() {
    check("no window", &[(INITIAL_WINDOW, 0)], Vec::new);
}

#[test]
fn a_connection_window_that_is_never_opened_holds_no_page() {
    check("no window of the connection", &[(INITIAL_WINDOW, WIDE)], Vec::new);
}

#[test]
fn a_window_that_opens_a_byte_at_a_time_holds_no_page() {
    check("a byte", &[(INITIAL_WINDOW, 0)], || window(1, 1));
    let mut next = (0..PULLS).cycle();
    check("a byte of each", &[(INITIAL_WINDOW, 0)], || window(2 * next.next().unwrap() + 1, 1));
}

#[test]
fn pings_and_other_requests_do_not_help_who_holds_a_page() {
    let mut stream = 2 * PULLS + 1;
    check("no window, and requests", &[(INITIAL_WINDOW, 0)], || {
        stream += 2;
        let head = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("HEAD", "/health"));
        [head, ping()].concat()
    });
}

/// What was handed on already comes to a stop when the window shrinks below it. It is small, so the
/// relay is done with it otherwise.
#[test]
fn a_window_that_shrinks_holds_no_answer() {
    const SMALL_BYTES: usize = 64 * 1024;
    let world = World::with(Options { request_timeout: GRACE, ..options() });
    let levels = world.levels();
    assert_eq!(world.push(0, &"A".repeat(SMALL_BYTES)), 200);
    let mut connection = world.connect_narrow().begun(&[(INITIAL_WINDOW, WIDE)]);
    assert!(connection.send(&window(0, WIDE)));
    // Nothing is read of the answers, so most of them wait in the relay.
    let pulls: Vec<u8> = (0..100).flat_map(|number| pull(2 * number + 1)).collect();
    assert!(connection.send(&pulls));
    assert!(eventually(SLACK, || world.server.metrics.counts().pull_total == 100), "{:?}", levels());
    assert!(connection.send(&setting(INITIAL_WINDOW, 0)));
    let (start, mut answered, mut given_up) = (now(), 0, 0);
    while answered + given_up < 100 {
        let frame = connection.read().unwrap();
        if frame.kind == RST_STREAM {
            assert_eq!(frame.error(), CANCEL);
            given_up += 1;
        }
        answered += u32::from(frame.ends_stream());
    }
    let waited = now() - start;
    println!("{answered} answers, {given_up} are given up, after {:.1} s", waited.as_secs_f64());
    assert!(given_up > 10 && waited < GRACE + SLACK, "{given_up} are given up after {waited:?}");
    assert!(eventually(SLACK, || levels().requests == 0.0 && levels().bytes == 0.0), "{:?}", levels());
}

/// Reads an answer at this pace: its status, and its bytes, or none if it is given up.
fn read_slowly(payload: &str, window_bytes: u32, pause: Duration) -> Option<Answer> {
    let world = World::with(Options { request_timeout: GRACE, ..options() });
    assert_eq!(world.push(0, payload), 200);
    let mut connection = world.connect().begun(&[(INITIAL_WINDOW, window_bytes)]);
    assert!(connection.send(&[window(0, WIDE), pull(1)].concat()));
    connection.be_patient_for(pause);
    let mut answer = Answer::default();
    let start = now();
    loop {
        assert!(now() - start < Duration::from_secs(60), "it goes on for ever");
        match connection.read() {
            Ok(frame) if frame.kind == RST_STREAM => {
                assert_eq!(frame.error(), CANCEL);
                return None;
            }
            Ok(frame) if frame.stream == 1 => {
                if answer.take(&frame) {
                    return Some(answer);
                }
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                assert!(connection.send(&window(1, window_bytes)));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn who_takes_64_kib_a_second_gets_all_and_who_takes_2_does_not() {
    let payload = "A".repeat(MIB / 4);
    let answer = read_slowly(&payload, 8 * 1024, Duration::from_millis(125)).unwrap();
    let page: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, page["items"][0]["ciphertext_b64"].as_str()), (200, Some(payload.as_str())));
    assert_eq!(read_slowly(&payload, 512, Duration::from_millis(250)), None);
}
