//! Tests of malformed frames and requests: the stream or the connection ends with an error, and
//! other clients are served.

use super::wire::*;

#[test]
fn a_connection_without_the_preface_is_closed() {
    let world = Http2Server::new();
    for beginning in [
        &b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n"[..],
        &[0; 64],
        &PREFACE[..20],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let mut connection = world.connect();
        connection.send(beginning);
        connection.finish_sending();
        let end = connection.end();
        assert!(matches!(end, End::Closed | End::GoneAway(1..)), "{end:?}");
        world.assert_serves("a bad beginning");
    }
}

fn malformed_frames() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let ping = |bytes: usize| frame(PING, 0, 0, &vec![0; bytes]);
    vec![
        (
            "a frame over the size that was agreed on",
            vec![unfinished_push(1, &[]), frame(DATA, 0, 1, &vec![0; 16_385])],
        ),
        ("a frame that claims 16 MiB", vec![frame_claiming(0xff_ffff, HEADERS, END_HEADERS, 1, &[0; 100])]),
        ("a window that grows by nothing", vec![frame(WINDOW_UPDATE, 0, 0, &number(0))]),
        ("a window that grows too far", vec![frame(WINDOW_UPDATE, 0, 0, &number(0x7fff_ffff))]),
        ("half a window update", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])]),
        ("settings of five bytes", vec![frame(SETTINGS, 0, 0, &[0; 5])]),
        ("settings of a stream", vec![frame(SETTINGS, 0, 1, &[])]),
        ("an acknowledgement that says something", vec![frame(SETTINGS, ACK, 0, &[0; 6])]),
        ("a window over 2^31", vec![setting(4, 0x8000_0000)]),
        ("frames of one byte", vec![setting(5, 1)]),
        ("frames of 2^31 bytes", vec![setting(5, 0x7fff_ffff)]),
        ("push that is neither on nor off", vec![setting(2, 2)]),
        ("a ping of seven bytes", vec![ping(7)]),
        ("a ping of nine bytes", vec![ping(9)]),
        ("a ping of a stream", vec![frame(PING, 0, 1, &[0; 8])]),
        ("a head of no stream", vec![frame(HEADERS, END_STREAM | END_HEADERS, 0, &head("GET", "/health"))]),
        (
            "a head of a stream of ours",
            vec![frame(HEADERS, END_STREAM | END_HEADERS, 2, &head("GET", "/health"))],
        ),
        ("a body of no stream", vec![frame(DATA, 0, 0, b"x")]),
        ("a body of a stream that is not begun", vec![frame(DATA, 0, 5, b"x")]),
        ("the end of a stream that is not begun", vec![frame(RST_STREAM, 0, 5, &number(8))]),
        ("a promise to the relay", vec![frame(PUSH_PROMISE, END_HEADERS, 1, &number(2))]),
        ("the rest of a head that is not begun", vec![frame(CONTINUATION, END_HEADERS, 1, &[])]),
        (
            "a head with something in between",
            vec![frame(HEADERS, END_STREAM, 1, &head("GET", "/health")), ping(8)],
        ),
        ("more padding than there is", vec![frame(HEADERS, END_HEADERS | 8, 1, &[200, 0x82])]),
        (
            "a field that is in no table",
            vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff, 0xff, 0xff, 0x0f])],
        ),
        (
            "a text that ends too late",
            vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0, 0x7f, 0xff, 0xff, 0x0f])],
        ),
        (
            "a table that grows too large",
            vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x3f, 0xff, 0xff, 0xff, 0x0f])],
        ),
    ]
}

#[test]
fn malformed_frames_end_the_connection() {
    let world = Http2Server::new();
    for (what, frames) in malformed_frames() {
        world.assert_refused(what, &frames);
    }
}

#[test]
fn malformed_requests_end_their_stream() {
    let world = Http2Server::new();
    let refuse = |what: &str, fields: Vec<u8>| {
        world.assert_refused(what, &[frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields)]);
    };
    refuse("no method", field(":path", "/health"));
    refuse("no path", [field(":method", "GET"), field(":scheme", "https")].concat());
    refuse("two paths", [head("GET", "/health"), field(":path", "/stats")].concat());
    refuse("a pseudo-field behind a field", [field("x", "y"), head("GET", "/health")].concat());
    refuse("a pseudo-field of a response", [head("GET", "/health"), field(":status", "200")].concat());
    refuse("a name in capitals", [head("GET", "/health"), field("X-Y", "z")].concat());
    refuse("a connection field", [head("GET", "/health"), field("connection", "close")].concat());
    refuse("a transfer encoding", [head("GET", "/health"), field("transfer-encoding", "chunked")].concat());
    refuse("a line break in a value", [head("GET", "/health"), field("x", "a\r\nb: c")].concat());
    refuse("a zero in a value", [head("GET", "/health"), field("x", "a\0b")].concat());
    let body = |length: &str, bytes: &[u8]| {
        vec![unfinished_push(1, &field("content-length", length)), frame(DATA, END_STREAM, 1, bytes)]
    };
    world.assert_refused("a body longer than it says", &body("1", b"{}"));
    world.assert_refused("a body shorter than it says", &body("3", b"{}"));
    world.assert_refused("a length that is none", &body("x", b"{}"));
    world.assert_refused(
        "a window of a stream that grows by nothing",
        &[unfinished_push(1, &[]), frame(WINDOW_UPDATE, 0, 1, &number(0))],
    );
    world.assert_refused(
        "a window of a stream that grows too far",
        &[unfinished_push(1, &[]), frame(WINDOW_UPDATE, 0, 1, &number(0x7fff_ffff))],
    );
    world.assert_refused(
        "a body behind the end",
        &[unfinished_push(1, &[]), frame(DATA, END_STREAM, 1, b"{"), frame(DATA, 0, 1, b"}")],
    );
    assert_eq!(world.server.metrics.counts().push_stored, 0);
}

/// A field is added to the dynamic table once, and then referenced by one byte each.
#[test]
fn a_head_that_decompresses_to_many_mib_is_refused() {
    let world = Http2Server::new();
    let value = "v".repeat(3_900);
    let length = value.len() - 127;
    let long = [
        &[0x7f, u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()],
        value.as_bytes(),
    ]
    .concat();
    let bomb = [head("GET", "/health"), vec![0x40, 1, b'x'], long, vec![0xbe; 12_000]].concat();
    world.assert_refused(
        "a head that unpacks to 46 MiB",
        &[frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)],
    );
}
