//! Known HTTP/2 floods. Each ends its connection with an error, after far more frames than any real
//! client sends, and other clients are served.

use std::time::Duration;

use super::wire::*;

/// Far more frames than any client sends.
const FLOOD: usize = 20_000;

/// The relay tolerates this many useless frames at once, and so many more each second, plus a
/// margin: the client is ahead by the frames that it sends between two pings.
const BURST: usize = 2_000;
const PER_SECOND: usize = 200;

const PIECE: usize = 100;

/// Sends the flood in pieces and waits for a ping after each. Returns how it ends and after how
/// many frames.
fn flood(connection: &mut Http2Connection, make: &dyn Fn(u32) -> Vec<u8>) -> (End, usize) {
    let numbers: Vec<u32> = (0..u32::try_from(FLOOD).unwrap()).collect();
    let mut sent = 0;
    for piece in numbers.chunks(PIECE) {
        let frames: Vec<u8> = piece.iter().flat_map(|number| make(*number)).chain(ping()).collect();
        sent += piece.len();
        let is_sent = connection.send(&frames);
        let end = connection.until(|frame| match frame.kind {
            GOAWAY => Some(End::GoneAway(frame.error())),
            PING if frame.flags == ACK && frame.payload == PING_PAYLOAD && is_sent => Some(End::Alive),
            _ => None,
        });
        let end = end.unwrap_or_else(|end| end);
        if end != End::Alive {
            return (end, sent);
        }
    }
    (End::Alive, sent)
}

/// Asserts that the flood ends with one of these errors and in time. `first_frames` is sent first.
fn check(what: &str, first_frames: &[u8], errors: &[u32], make: &dyn Fn(u32) -> Vec<u8>) {
    let server = Http2Server::new();
    let levels = server.levels();
    let start = now();
    let mut connection = server.open();
    assert!(connection.send(first_frames));
    let (end, frames) = flood(&mut connection, make);
    let seconds = usize::try_from((now() - start).as_secs()).unwrap() + 1;
    assert!(errors.iter().any(|error| end == End::GoneAway(*error)), "{what}: {end:?} after {frames} frames");
    let bound = BURST + PER_SECOND * seconds;
    assert!(frames <= bound, "{what}: {frames} frames in {seconds} s");
    server.assert_serves(what);
    // The connection is over even if the client continues.
    let is_over = || levels() == Levels { connections: 0.0, requests: 0.0, bytes: 0.0 };
    assert!(eventually(Duration::from_secs(10), is_over), "{what}: {:?}", levels());
}

fn stream(number: u32) -> u32 {
    2 * number + 1
}

/// CVE-2023-44487.
#[test]
fn rapid_reset() {
    let pair = |number| [get(stream(number)), reset(stream(number))].concat();
    check("requests that are taken back", &[], &[ENHANCE_YOUR_CALM], &pair);
}

/// Rapid reset with a pause, so that each request is in progress when it is reset.
#[test]
fn rapid_reset_of_requests_in_progress() {
    let server = Http2Server::new();
    let mut connection = server.open();
    let start = now();
    for number in 0..5_000 {
        let is_sent = connection
            .send(&[unfinished_push(stream(number), &field("content-length", "2")), ping()].concat());
        match connection.end() {
            End::Alive if is_sent => {}
            End::GoneAway(ENHANCE_YOUR_CALM) => break,
            end => panic!("{end:?}"),
        }
        connection.send(&reset(stream(number)));
        let seconds = usize::try_from((now() - start).as_secs()).unwrap() + 1;
        assert!((number as usize) < BURST + PER_SECOND * seconds, "{number} requests are taken back");
    }
    server.assert_serves("requests that are taken back");
}

/// CVE-2025-8671, "MadeYouReset": the server resets streams because of stream errors.
#[test]
fn made_you_reset() {
    let calm = &[ENHANCE_YOUR_CALM];
    let twice = |number, mistake: Vec<u8>| {
        [unfinished_push(stream(number), &field("content-length", "2")), mistake].concat()
    };
    check("windows by nothing", &[], &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR], &|number| {
        twice(number, window(stream(number), 0))
    });
    check("windows too far", &[], calm, &|number| twice(number, window(stream(number), 0x7fff_ffff)));
    check("bodies too long", &[], calm, &|number| twice(number, frame(DATA, 0, stream(number), b"{  }")));
    check("bodies too short", &[], calm, &|number| {
        twice(number, frame(DATA, END_STREAM, stream(number), b"{"))
    });
    check("heads that are wrong", &[], calm, &|number| {
        frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &field(":path", "/health"))
    });
}

/// Refused streams cost work as well.
#[test]
fn streams_over_the_bound() {
    check("requests", &[], &[ENHANCE_YOUR_CALM], &|number| {
        unfinished_push(stream(number), &field("content-length", "2"))
    });
}

#[test]
fn malformed_requests() {
    let two_hosts = [head("GET", "/health"), field("host", "localhost").repeat(2)].concat();
    check("requests that are no good", &[], &[ENHANCE_YOUR_CALM], &|number| {
        frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &two_hosts)
    });
}

/// CVE-2024-27316 and similar.
#[test]
fn continuation_without_end() {
    let server = Http2Server::new();
    for (what, piece) in
        [("in empty pieces", vec![]), ("in pieces", field("x", "y")), ("of many MiB", vec![0; 16_000])]
    {
        let mut frames = vec![frame(HEADERS, END_STREAM, 1, &head("GET", "/health"))];
        frames.extend((0..2_000).map(|_| frame(CONTINUATION, 0, 1, &piece)));
        let end = server.say(&frames);
        // A client that keeps sending may lose the GOAWAY frame.
        let is_error = matches!(end, End::GoneAway(ENHANCE_YOUR_CALM | PROTOCOL_ERROR | 9) | End::Closed);
        assert!(is_error, "a head {what}: {end:?}");
        server.assert_serves(what);
    }
}

/// CVE-2019-9512, CVE-2019-9515.
#[test]
fn pings_and_settings() {
    let calm = &[ENHANCE_YOUR_CALM];
    check("pings", &[], calm, &|number| frame(PING, 0, 0, &u64::from(number).to_be_bytes()));
    check("answers to pings", &[], calm, &|_| frame(PING, ACK, 0, &[0; 8]));
    check("settings", &[], calm, &|_| frame(SETTINGS, 0, 0, &[]));
    check("settings that change", &[], calm, &|number| setting(INITIAL_WINDOW, number));
}

/// CVE-2019-9518: empty frames that do not end a stream.
#[test]
fn empty_bodies() {
    let body = [unfinished_push(1, &[]), unfinished_push(3, &[])].concat();
    let errors = &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR];
    check("empty pieces of a body", &body, errors, &|_| frame(DATA, 0, 1, &[]));
    check("pieces of padding", &body, errors, &|_| frame(DATA, PADDED, 1, &[0]));
    check("pieces of a byte", &body, errors, &|_| frame(DATA, 0, 1, b" "));
}

/// CVE-2019-9511 and CVE-2019-9517, on a small scale.
#[test]
fn tiny_windows() {
    check("windows of one byte", &[], &[ENHANCE_YOUR_CALM], &|_| window(0, 1));
    check("windows of a stream", &unfinished_push(1, &[]), &[ENHANCE_YOUR_CALM], &|_| window(1, 1));
}

/// CVE-2019-9513.
#[test]
fn priorities_and_unknown_frames() {
    let calm = &[ENHANCE_YOUR_CALM];
    check("priorities", &[], calm, &|number| frame(PRIORITY, 0, stream(number), &[0, 0, 0, 0, 7]));
    check("unknown frames", &[], calm, &|number| frame(99, 0, number, b"?"));
    check("resets of what is over", &get(1), &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR], &|_| reset(1));
}

/// CVE-2019-9516: heads and fields of length zero.
#[test]
fn heads_of_padding() {
    let errors = &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR];
    check("heads of padding", &[], errors, &|number| {
        frame(HEADERS, END_STREAM | END_HEADERS | PADDED, stream(number), &[&[200], &[0; 200][..]].concat())
    });
    check("fields without a name", &[], errors, &|number| {
        let fields = [head("GET", "/health"), field("", "").repeat(50)].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &fields)
    });
}
