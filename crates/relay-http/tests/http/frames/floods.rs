//! Floods of frames, by the names under which they became known: each ends its connection with an
//! error after a number of frames that no client comes near, and others are served as if nothing
//! had been.

use std::time::Duration;

use super::wire::*;

/// Far more than anybody sends.
const FLOOD: usize = 20_000;

/// As many frames for nothing are borne at once, and as many more each second, with a good measure
/// on top: the client is ahead of the relay by what it sends in between two signs of life.
const BURST: usize = 2_000;
const PER_SECOND: usize = 200;

const PIECE: usize = 100;

/// Sends the flood in pieces, each with a sign of life behind it that is waited for. Tells how it
/// ends and how many frames that took.
fn flood(connection: &mut Connection, make: &dyn Fn(u32) -> Vec<u8>) -> (End, usize) {
    let numbers: Vec<u32> = (0..u32::try_from(FLOOD).unwrap()).collect();
    let mut sent = 0;
    for piece in numbers.chunks(PIECE) {
        let frames: Vec<u8> = piece.iter().flat_map(|number| make(*number)).chain(ping()).collect();
        sent += piece.len();
        let is_sent = connection.send(&frames);
        let end = connection.until(|frame| match frame.kind {
            GOAWAY => Some(End::GoneAway(frame.error())),
            PING if frame.flags == ACK && frame.payload == SIGN_OF_LIFE && is_sent => Some(End::Alive),
            _ => None,
        });
        let end = end.unwrap_or_else(|end| end);
        if end != End::Alive {
            return (end, sent);
        }
    }
    (End::Alive, sent)
}

/// The flood ends with one of these errors, and in time. Its beginning is behind `before`.
fn check(what: &str, before: &[u8], errors: &[u32], make: &dyn Fn(u32) -> Vec<u8>) {
    let world = World::new();
    let levels = world.levels();
    let start = now();
    let mut connection = world.open();
    assert!(connection.send(before));
    let (end, frames) = flood(&mut connection, make);
    let seconds = usize::try_from((now() - start).as_secs()).unwrap() + 1;
    assert!(errors.iter().any(|error| end == End::GoneAway(*error)), "{what}: {end:?} after {frames} frames");
    let bound = BURST + PER_SECOND * seconds;
    assert!(frames <= bound, "{what}: {frames} frames in {seconds} s");
    world.assert_serves(what);
    // It is over, whether its client follows or not.
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

/// The same with a wait in between, so that each request is at work when it is taken back.
#[test]
fn rapid_reset_of_what_is_at_work() {
    let world = World::new();
    let mut connection = world.open();
    let start = now();
    for number in 0..5_000 {
        let is_sent =
            connection.send(&[begun(stream(number), &field("content-length", "2")), ping()].concat());
        match connection.end() {
            End::Alive if is_sent => {}
            End::GoneAway(ENHANCE_YOUR_CALM) => break,
            end => panic!("{end:?}"),
        }
        connection.send(&reset(stream(number)));
        let seconds = usize::try_from((now() - start).as_secs()).unwrap() + 1;
        assert!((number as usize) < BURST + PER_SECOND * seconds, "{number} requests are taken back");
    }
    world.assert_serves("requests that are taken back");
}

/// CVE-2025-8671, "MadeYouReset": it is the server that resets, for mistakes that are of one stream
/// alone.
#[test]
fn made_you_reset() {
    let calm = &[ENHANCE_YOUR_CALM];
    let twice =
        |number, mistake: Vec<u8>| [begun(stream(number), &field("content-length", "2")), mistake].concat();
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

/// Requests that are refused for their number cost work as well.
#[test]
fn streams_over_the_bound() {
    check("requests", &[], &[ENHANCE_YOUR_CALM], &|number| {
        begun(stream(number), &field("content-length", "2"))
    });
}

#[test]
fn requests_that_cannot_be_read() {
    let two_hosts = [head("GET", "/health"), field("host", "localhost").repeat(2)].concat();
    check("requests that are no good", &[], &[ENHANCE_YOUR_CALM], &|number| {
        frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &two_hosts)
    });
}

/// CVE-2024-27316 and its like.
#[test]
fn continuation_without_end() {
    let world = World::new();
    for (what, piece) in
        [("in empty pieces", vec![]), ("in pieces", field("x", "y")), ("of many MiB", vec![0; 16_000])]
    {
        let mut frames = vec![frame(HEADERS, END_STREAM, 1, &head("GET", "/health"))];
        frames.extend((0..2_000).map(|_| frame(CONTINUATION, 0, 1, &piece)));
        let end = world.say(&frames);
        // Who goes on sending may lose the word.
        let is_error = matches!(end, End::GoneAway(ENHANCE_YOUR_CALM | PROTOCOL_ERROR | 9) | End::Closed);
        assert!(is_error, "a head {what}: {end:?}");
        world.assert_serves(what);
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

/// CVE-2019-9518: frames that carry nothing and end nothing.
#[test]
fn empty_bodies() {
    let body = [begun(1, &[]), begun(3, &[])].concat();
    let errors = &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR];
    check("empty pieces of a body", &body, errors, &|_| frame(DATA, 0, 1, &[]));
    check("pieces of padding", &body, errors, &|_| frame(DATA, PADDED, 1, &[0]));
    check("pieces of a byte", &body, errors, &|_| frame(DATA, 0, 1, b" "));
}

/// CVE-2019-9511 and CVE-2019-9517 in small.
#[test]
fn tiny_windows() {
    check("windows of one byte", &[], &[ENHANCE_YOUR_CALM], &|_| window(0, 1));
    check("windows of a stream", &begun(1, &[]), &[ENHANCE_YOUR_CALM], &|_| window(1, 1));
}

/// CVE-2019-9513.
#[test]
fn priorities_and_what_nobody_knows() {
    let calm = &[ENHANCE_YOUR_CALM];
    check("priorities", &[], calm, &|number| frame(PRIORITY, 0, stream(number), &[0, 0, 0, 0, 7]));
    check("unknown frames", &[], calm, &|number| frame(99, 0, number, b"?"));
    check("resets of what is over", &get(1), &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR], &|_| reset(1));
}

/// CVE-2019-9516: heads and fields of no length.
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
