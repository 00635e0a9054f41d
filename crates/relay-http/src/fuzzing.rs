//! What fuzzers, benches and the tests of the load generator run: the wire types without a socket.
//! Compiled with the feature `fuzzing` alone; nothing of it is part of a running relay, and nothing
//! is promised to stay.

use std::io::Write as _;
use std::net::IpAddr;

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderValue, X_FORWARDED_FOR};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use relay_core::{Ack, Envelope, Item, Page, Recipient, Seq, Timestamp};
use serde_json::Value;

use crate::api;
use crate::api::cursor::CursorKey;
use crate::connection::framing::Framing;
use crate::limits::forwarded;
use crate::service::body;

const PAYLOAD_BYTES_MAX: u64 = 4096;
const UNPACKED_BYTES_MAX: usize = 64 * 1024;

/// The key of the cursors in fuzz/corpus.
const CURSOR_KEY: [u8; 32] = [7; 32];

/// The item that the body of a push stands for.
pub fn decode_push(json: &[u8], payload_bytes_max: u64) -> Option<Envelope> {
    api::decode_push(json, payload_bytes_max).ok()
}

/// The text of a cursor.
pub fn encode_cursor(cursors: &CursorKey, recipient: &Recipient, seq: Seq) -> String {
    cursors.encode(recipient, seq)
}

/// Where a cursor of this recipient stands.
pub fn decode_cursor(cursors: &CursorKey, recipient: &Recipient, text: &str) -> Option<Seq> {
    cursors.decode(recipient, text).ok()
}

/// The items that the body of an ack names.
pub fn decode_ack(json: &[u8]) -> Option<Ack> {
    api::decode_ack(json).ok()
}

/// The body of the answer to a pull, in the pieces in which it is sent.
pub fn encode_page(
    cursors: &CursorKey,
    recipient: &Recipient,
    page: Page,
) -> impl Iterator<Item = Bytes> + use<> {
    let mut page = api::PageJson::new(cursors, recipient, page);
    std::iter::from_fn(move || page.next_piece())
}

/// The body of a push. What a pull would show of it is what was pushed.
pub fn push(data: &[u8]) {
    let Ok(envelope) = api::decode_push(data, PAYLOAD_BYTES_MAX) else { return };
    assert!(envelope.payload.len() as u64 <= PAYLOAD_BYTES_MAX);
    let page = Page { items: vec![item(&envelope)], next: Some(Seq::new(7)), remaining: 1 };
    let mut json = api::PageJson::new(&CursorKey::new(&CURSOR_KEY), &envelope.recipient, page);
    let shown: Vec<u8> = std::iter::from_fn(|| json.next_piece()).flatten().collect();
    let shown: Value = serde_json::from_slice(&shown).expect("a page is JSON whatever was pushed");
    let shown = shown.pointer("/items/0").expect("a page of one item");
    assert_eq!(shown.pointer("/recipient").and_then(Value::as_str), Some(envelope.recipient.as_str()));
    assert_eq!(shown.pointer("/meta/kind").and_then(Value::as_str), Some(envelope.kind.as_str()));
    assert_eq!(shown.pointer("/meta/total_len").and_then(Value::as_u64), Some(envelope.total_len));
    let payload = shown.pointer("/ciphertext_b64").and_then(Value::as_str).map(|text| STANDARD.decode(text));
    assert!(payload.is_some_and(|payload| payload.is_ok_and(|payload| payload == envelope.payload)));
}

fn item(envelope: &Envelope) -> Item<Bytes> {
    Item {
        seq: Seq::new(7),
        message_id: envelope.message_id,
        chunk: envelope.chunk,
        kind: envelope.kind.clone(),
        total_len: envelope.total_len,
        sent_ms: envelope.sent_ms,
        arrival: Timestamp::from_ms(1),
        deadline: Timestamp::from_ms(2),
        payload_bytes: envelope.payload_bytes(),
        body: envelope.payload.clone(),
    }
}

/// The body of a pull.
pub fn pull(data: &[u8]) {
    let cursors = CursorKey::new(&CURSOR_KEY);
    let Ok(pull) = api::decode_pull(data, &cursors) else { return };
    if let Some(after) = pull.after {
        assert_eq!(cursors.decode(&pull.recipient, &cursors.encode(&pull.recipient, after)), Ok(after));
    }
}

/// The body of an ack.
pub fn ack(data: &[u8]) {
    let Ok(ack) = api::decode_ack(data) else { return };
    assert!(ack.items().len() <= Ack::ITEMS_MAX);
}

/// A recipient of as many bytes as the first one tells, and the text of a cursor.
pub fn cursor(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let (recipient, text) = rest.split_at(usize::from(*length).min(rest.len()));
    let Some(recipient) = std::str::from_utf8(recipient).ok().and_then(|name| Recipient::parse(name).ok())
    else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let cursors = CursorKey::new(&CURSOR_KEY);
    if let Ok(seq) = cursors.decode(&recipient, text) {
        // One of 0.0.3 means the begin of the queue; ours has one form only.
        assert!(seq == Seq::ZERO || cursors.encode(&recipient, seq) == text, "{text} is read as {seq:?}");
    }
    let mut number = [0; 8];
    for (byte, given) in number.iter_mut().zip(text.bytes()) {
        *byte = given;
    }
    let seq = Seq::new(u64::from_be_bytes(number));
    assert_eq!(cursors.decode(&recipient, &cursors.encode(&recipient, seq)), Ok(seq));
}

/// A packed body, and bytes that are packed first.
pub fn gzip(data: &[u8]) {
    if let Some(unpacked) = body::unpack(data, UNPACKED_BYTES_MAX) {
        assert!(unpacked.len() <= UNPACKED_BYTES_MAX);
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(data).expect("a vector takes whatever is written to it");
    let packed = packed.finish().expect("a vector takes whatever is written to it");
    let expected = (data.len() <= UNPACKED_BYTES_MAX).then_some(data);
    assert_eq!(body::unpack(&packed, UNPACKED_BYTES_MAX).as_deref(), expected);
}

/// Base64 by the instructions of the processor, which reads and writes what the plain way does.
pub fn base64(data: &[u8]) {
    let text = STANDARD.encode(data);
    assert_eq!(api::PROCESSOR.encode(data), text);
    assert_eq!(api::PROCESSOR.decode(&text).as_deref(), Ok(data));
    assert_eq!(api::PROCESSOR.decode(data).ok(), STANDARD.decode(data).ok());
}

/// Lines of `X-Forwarded-For` or `Forwarded`, as the first byte tells. Whatever a client puts
/// there, it does not pass for what the proxy adds.
pub fn forwarded(data: &[u8]) {
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("it is a network"));
    let (proxy, client, stranger) = (address("10.0.0.1"), address("198.51.100.7"), address("192.0.2.1"));
    let Some((first, lines)) = data.split_first() else { return };
    let (name, added) =
        if first & 1 == 0 { (X_FORWARDED_FOR, "198.51.100.7") } else { (FORWARDED, "for=198.51.100.7") };
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(name.clone(), line);
    }
    assert_eq!(forwarded::client_address(stranger, &headers, &trusted), stranger, "a stranger is believed");
    // Whoever this is, the words of a client are no reason to panic.
    forwarded::client_address(proxy, &headers, &trusted);
    let last = headers.get_all(&name).last().map_or(Vec::new(), |line| line.as_bytes().to_vec());
    let mut on_its_own = headers.clone();
    on_its_own.append(name.clone(), HeaderValue::from_static(added));
    assert_eq!(forwarded::client_address(proxy, &on_its_own, &trusted), client, "the proxy is not believed");
    if let Ok(line) = HeaderValue::from_bytes(&[&last[..], b", ", added.as_bytes()].concat()) {
        let mut appended = HeaderMap::new();
        appended.append(name, line);
        let found = forwarded::client_address(proxy, &appended, &trusted);
        // Who opens a quote and does not close it makes the line unreadable, and is counted with
        // the proxy.
        assert!(found == client || found == proxy, "the client says that it is {found}");
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}

/// What a client sends over HTTP/1.1. Wherever a read may end, the same of it is handed on, and the
/// same is refused.
pub fn framing(data: &[u8]) {
    let whole = framed(data, data.len().max(1));
    for piece in [1, 2, 3, 7, 64] {
        let in_pieces = framed(data, piece);
        assert_eq!(in_pieces.is_some(), whole.is_some(), "pieces of {piece} are refused otherwise");
        assert!(whole.is_none() || in_pieces == whole, "pieces of {piece} are handed on otherwise");
    }
}

/// The requests of this input, one behind the other, when it comes in pieces of so many bytes.
/// None: it is refused.
fn framed(data: &[u8], piece: usize) -> Option<Vec<u8>> {
    let (mut framing, mut waiting, mut handed_on) = (Framing::new(), Vec::new(), Vec::new());
    for bytes in data.chunks(piece) {
        waiting.extend_from_slice(bytes);
        loop {
            let read = framing.read(&mut waiting).ok()?;
            handed_on.extend(waiting.drain(..read));
            let is_next = framing.is_complete();
            framing.next_request();
            if read == 0 && !is_next {
                break;
            }
        }
    }
    Some(handed_on)
}
