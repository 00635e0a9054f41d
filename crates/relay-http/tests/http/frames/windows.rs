//! Tests of windows that stay closed, open byte by byte, or shrink. A response holds memory only
//! while its client reads it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use relay_http::Options;
use serde_json::{Value, json};

use super::wire::*;
use crate::support::options;

const MIB: usize = 1024 * 1024;

/// The grace period of a response.
const GRACE: Duration = Duration::from_secs(3);

/// How much later than that its memory may be freed.
const SLACK: Duration = Duration::from_secs(10);

/// More pages than fit into the memory limit.
const PULLS: u32 = 12;

/// The largest payload that fits into one page.
const PAYLOAD_BYTES: usize = 9 * MIB;

/// Far more than any response.
const WIDE: u32 = 0x7fff_0000;

/// A server with memory for a few pages, and an item that fills a page.
fn server_with_one_page() -> Http2Server {
    let world =
        Http2Server::with(Options { request_timeout: GRACE, inflight_bytes_max: 64 * MIB, ..options() });
    assert_eq!(world.push(0, &"A".repeat(PAYLOAD_BYTES)), 200);
    world
}

fn pull(stream: u32) -> Vec<u8> {
    post(stream, "/pull", &json!({"recipient": "alice"}))
}

/// Runs a client that requests many pages and repeatedly sends the frames that `hold` returns.
/// Asserts that the pages are given up, that their memory is freed, and that other clients get
/// their pages.
fn check(what: &str, settings: &[(u16, u32)], mut hold: impl FnMut() -> Vec<u8>) {
    let world = server_with_one_page();
    let levels = world.levels();
    let mut connection = world.connect().with_preface(settings);
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

/// Asserts that another client gets a large page.
fn assert_serves(world: &Http2Server, what: &str) {
    assert_eq!(world.push(1, &"A".repeat(PAYLOAD_BYTES)), 200, "{what}");
    let mut connection = world.open();
    assert!(connection.send(&pull(1)));
    let page: Value = serde_json::from_slice(&connection.response(1).body).unwrap();
    assert_eq!(page["items"][0]["ciphertext_b64"].as_str().map(str::len), Some(PAYLOAD_BYTES), "{what}");
}

#[test]
fn a_closed_stream_window_holds_no_page() {
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
fn pings_and_other_requests_do_not_keep_a_held_page() {
    let mut stream = 2 * PULLS + 1;
    check("no window, and requests", &[(INITIAL_WINDOW, 0)], || {
        stream += 2;
        let head = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("HEAD", "/health"));
        [head, ping()].concat()
    });
}

/// A response that was passed to the protocol stops when the window shrinks below it. The response
/// is small, so the relay itself has finished it.
#[test]
fn a_window_that_shrinks_holds_no_response() {
    const SMALL_BYTES: usize = 64 * 1024;
    let world = Http2Server::with(Options { request_timeout: GRACE, ..options() });
    let levels = world.levels();
    assert_eq!(world.push(0, &"A".repeat(SMALL_BYTES)), 200);
    let mut connection = world.connect_narrow().with_preface(&[(INITIAL_WINDOW, WIDE)]);
    assert!(connection.send(&window(0, WIDE)));
    // The client reads no response, so most of them wait in the relay.
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

/// Reads a response at this pace; `None` if it is given up.
fn read_slowly(payload: &str, window_bytes: u32, pause: Duration) -> Option<Http2Response> {
    let world = Http2Server::with(Options { request_timeout: GRACE, ..options() });
    assert_eq!(world.push(0, payload), 200);
    let mut connection = world.connect().with_preface(&[(INITIAL_WINDOW, window_bytes)]);
    assert!(connection.send(&[window(0, WIDE), pull(1)].concat()));
    connection.be_patient_for(pause);
    let mut response = Http2Response::default();
    let start = now();
    loop {
        assert!(now() - start < Duration::from_secs(60), "it goes on for ever");
        match connection.read() {
            Ok(frame) if frame.kind == RST_STREAM => {
                assert_eq!(frame.error(), CANCEL);
                return None;
            }
            Ok(frame) if frame.stream == 1 => {
                if response.take(&frame) {
                    return Some(response);
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
fn a_client_that_reads_64_kib_a_second_gets_its_page_and_one_that_reads_2_does_not() {
    let payload = "A".repeat(MIB / 4);
    let response = read_slowly(&payload, 8 * 1024, Duration::from_millis(125)).unwrap();
    let page: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!((response.status, page["items"][0]["ciphertext_b64"].as_str()), (200, Some(payload.as_str())));
    assert_eq!(read_slowly(&payload, 512, Duration::from_millis(250)), None);
}
