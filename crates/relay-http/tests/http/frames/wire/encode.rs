//! Constants of HTTP/2, and encoders for the frames that a client sends.

use serde_json::Value;

pub(in crate::frames) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(in crate::frames) const DATA: u8 = 0;
pub(in crate::frames) const HEADERS: u8 = 1;
pub(in crate::frames) const PRIORITY: u8 = 2;
pub(in crate::frames) const RST_STREAM: u8 = 3;
pub(in crate::frames) const SETTINGS: u8 = 4;
pub(in crate::frames) const PUSH_PROMISE: u8 = 5;
pub(in crate::frames) const PING: u8 = 6;
pub(in crate::frames) const GOAWAY: u8 = 7;
pub(in crate::frames) const WINDOW_UPDATE: u8 = 8;
pub(in crate::frames) const CONTINUATION: u8 = 9;

pub(in crate::frames) const ACK: u8 = 1;
pub(in crate::frames) const END_STREAM: u8 = 1;
pub(in crate::frames) const END_HEADERS: u8 = 4;
pub(in crate::frames) const PADDED: u8 = 8;

pub(in crate::frames) const TABLE_SIZE: u16 = 1;
pub(in crate::frames) const STREAMS_MAX: u16 = 3;
pub(in crate::frames) const INITIAL_WINDOW: u16 = 4;
pub(in crate::frames) const HEAD_MAX: u16 = 6;

pub(in crate::frames) const NO_ERROR: u32 = 0;
pub(in crate::frames) const PROTOCOL_ERROR: u32 = 1;
pub(in crate::frames) const REFUSED_STREAM: u32 = 7;
pub(in crate::frames) const CANCEL: u32 = 8;
pub(in crate::frames) const ENHANCE_YOUR_CALM: u32 = 11;

pub(in crate::frames) const PING_PAYLOAD: &[u8] = b"are you?";

pub(in crate::frames) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame_claiming(payload.len(), kind, flags, stream, payload)
}

/// A frame whose header claims this length.
pub(in crate::frames) fn frame_claiming(
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field as an HPACK literal.
pub(in crate::frames) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// The pseudo-header fields of a request.
pub(in crate::frames) fn head(method: &str, path: &str) -> Vec<u8> {
    [
        field(":method", method),
        field(":scheme", "https"),
        field(":authority", "localhost"),
        field(":path", path),
    ]
    .concat()
}

pub(in crate::frames) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("GET", "/health"))
}

/// The head of a push, without its body.
pub(in crate::frames) fn unfinished_push(stream: u32, fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[&head("POST", "/push"), fields].concat())
}

/// A request with a body in one frame.
pub(in crate::frames) fn post(stream: u32, path: &str, body: &Value) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, &head("POST", path));
    [head, frame(DATA, END_STREAM, stream, body.to_string().as_bytes())].concat()
}

pub(in crate::frames) fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

pub(in crate::frames) fn setting(id: u16, value: u32) -> Vec<u8> {
    all_settings(&[(id, value)])
}

pub(in crate::frames) fn all_settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &number(*value)].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// Opens the window of a stream, or for 0 of the connection, by `more` bytes.
pub(in crate::frames) fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &number(more))
}

pub(in crate::frames) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &number(CANCEL))
}

pub(in crate::frames) fn ping() -> Vec<u8> {
    frame(PING, 0, 0, PING_PAYLOAD)
}
