//! Entry points for fuzzers, benches and the load generator: parsers and encoders without a socket.
//! Only the feature `fuzzing` compiles them. They are not part of a running relay, and not stable.

use std::io::Write as _;
use std::net::IpAddr;

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderValue, X_FORWARDED_FOR};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use relay_core::{Ack, Envelope, Item, Page, Recipient, Seq, Timestamp};
use serde_json::{Value, json};

use crate::api;
use crate::api::cursor::CursorKey;
use crate::api::format::{Encoded, Format};
use crate::connection::framing::Framing;
use crate::limits::forwarded;
use crate::limits::peer::Peers;
use crate::service::body;

const PAYLOAD_BYTES_MAX: u64 = 4096;

/// More than two of these payloads.
const BATCH_BYTES_MAX: u64 = 2 * PAYLOAD_BYTES_MAX + 1;
const UNPACKED_BYTES_MAX: usize = 64 * 1024;

/// The key of the cursors in fuzz/corpus.
const CURSOR_KEY: [u8; 32] = [7; 32];

/// The item in the body of a push.
pub fn decode_push(json: &[u8], payload_bytes_max: u64) -> Option<Envelope> {
    api::decode_push(&self::json(json), payload_bytes_max).ok().map(|item| item.envelope)
}

/// The item in the body of a push in CBOR.
pub fn decode_push_cbor(cbor: &[u8], payload_bytes_max: u64) -> Option<Envelope> {
    let body = Encoded::new(Format::Cbor, cbor.to_vec());
    api::decode_push(&body, payload_bytes_max).ok().map(|item| item.envelope)
}

/// How many items a batch has that are all valid.
pub fn batch_items(is_cbor: bool, bytes: &[u8]) -> Option<usize> {
    let body = Encoded::new(if is_cbor { Format::Cbor } else { Format::Json }, bytes.to_vec());
    let items = api::decode_batch(&body, u64::MAX, u64::MAX).ok()?;
    items.into_iter().collect::<Result<Vec<_>, _>>().ok().map(|items| items.len())
}

/// The text of a cursor.
pub fn encode_cursor(cursors: &CursorKey, recipient: &Recipient, seq: Seq) -> String {
    cursors.encode(recipient, seq)
}

/// The position that a cursor of this recipient stands for.
pub fn decode_cursor(cursors: &CursorKey, recipient: &Recipient, text: &str) -> Option<Seq> {
    cursors.decode(recipient, text).ok()
}

/// The items in the body of an ack.
pub fn decode_ack(json: &[u8]) -> Option<Ack> {
    api::decode_ack(&self::json(json), &CursorKey::new(&CURSOR_KEY)).ok()
}

/// The body of the response to a pull, in the pieces in which it is sent.
pub fn encode_page(
    cursors: &CursorKey,
    recipient: &Recipient,
    page: Page,
) -> impl Iterator<Item = Bytes> + use<> {
    encode_page_as(Format::Json, cursors, recipient, page)
}

fn encode_page_as(
    format: Format,
    cursors: &CursorKey,
    recipient: &Recipient,
    page: Page,
) -> impl Iterator<Item = Bytes> + use<> {
    let mut page = api::EncodedPage::new(format, cursors, recipient, page);
    std::iter::from_fn(move || page.next_piece())
}

/// Parses the body of a push. The page of a pull must contain the same item.
pub fn push(data: &[u8]) {
    let Ok(item) = api::decode_push(&json(data), PAYLOAD_BYTES_MAX) else { return };
    check_push(&item.envelope);
}

/// Parses the body of a batch. Each item that parses is as good as one that came alone.
pub fn batch(data: &[u8]) {
    check_batch(&json(data));
}

/// Parses a body of any request in CBOR. An item must be the same that its JSON stands for.
pub fn cbor(data: &[u8]) {
    let (cursors, body) = (CursorKey::new(&CURSOR_KEY), Encoded::new(Format::Cbor, data.to_vec()));
    if let Ok(item) = api::decode_push(&body, PAYLOAD_BYTES_MAX) {
        check_push(&item.envelope);
        let pushed = api::decode_push(&json(json_push(&item.envelope).as_bytes()), PAYLOAD_BYTES_MAX);
        assert_eq!(pushed.ok().map(|item| item.envelope), Some(item.envelope));
    }
    check_batch(&body);
    if let Ok(ack) = api::decode_ack(&body, &cursors) {
        assert!(ack.items().len() <= Ack::ITEMS_MAX);
    }
    // The results do not matter, but no body may cause a panic.
    drop((api::decode_pull(&body, &cursors), api::decode_stream(&body, &cursors)));
    drop(api::decode_purge(&body));
}

fn json(data: &[u8]) -> Encoded {
    Encoded::new(Format::Json, data.to_vec())
}

/// The body of a push in JSON.
fn json_push(envelope: &Envelope) -> String {
    let meta = json!({
        "kind": envelope.kind.as_str(),
        "total_len": envelope.total_len,
        "chunk_index": envelope.chunk.index(),
        "chunk_count": envelope.chunk.count(),
        "sent_ms": envelope.sent_ms,
    });
    let payload = STANDARD.encode(&envelope.payload);
    let (recipient, message_id) = (envelope.recipient.as_str(), envelope.message_id.to_string());
    json!({"recipient": recipient, "message_id": message_id, "ciphertext_b64": payload, "meta": meta})
        .to_string()
}

fn check_batch(body: &Encoded) {
    let Ok(items) = api::decode_batch(body, PAYLOAD_BYTES_MAX, BATCH_BYTES_MAX) else { return };
    let envelopes = items.iter().flatten().map(|item| &item.envelope);
    assert!(envelopes.clone().map(Envelope::payload_bytes).sum::<u64>() <= BATCH_BYTES_MAX);
    envelopes.for_each(check_push);
}

/// Whether an item is shown to its recipient as it was pushed.
fn check_push(envelope: &Envelope) {
    assert!(envelope.payload.len() as u64 <= PAYLOAD_BYTES_MAX);
    let page = || Page { items: vec![item(envelope)], next: Some(Seq::new(7)), remaining: 1 };
    let cursors = CursorKey::new(&CURSOR_KEY);
    let shown = |format| -> Vec<u8> {
        encode_page_as(format, &cursors, &envelope.recipient, page()).flatten().collect()
    };
    let in_cbor = shown(Format::Cbor);
    let has = |bytes: &[u8]| bytes.is_empty() || memchr::memmem::find(&in_cbor, bytes).is_some();
    assert!(has(&envelope.payload) && has(envelope.recipient.as_str().as_bytes()));
    cbor4ii::serde::from_slice::<cbor4ii::core::Value>(&in_cbor).expect("a page is CBOR");
    let shown: Value = serde_json::from_slice(&shown(Format::Json)).expect("a page is JSON");
    let shown = shown.pointer("/items/0").expect("the page has an item");
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

/// Parses the body of a pull. Its cursor must keep its meaning when it is encoded again.
pub fn pull(data: &[u8]) {
    let cursors = CursorKey::new(&CURSOR_KEY);
    let Ok(request) = api::decode_pull(&json(data), &cursors) else { return };
    let pull = request.pull;
    if let Some(after) = pull.after {
        assert_eq!(cursors.decode(&pull.recipient, &cursors.encode(&pull.recipient, after)), Ok(after));
    }
}

/// Parses the body of an ack, and that of a purge.
pub fn ack(data: &[u8]) {
    let cursors = CursorKey::new(&CURSOR_KEY);
    if let Ok(purge) = api::decode_purge(&json(data)) {
        assert!(purge.items().is_empty() && purge.through().is_some());
    }
    let Ok(ack) = api::decode_ack(&json(data), &cursors) else { return };
    assert!(ack.items().len() <= Ack::ITEMS_MAX);
    if let Some(through) = ack.through() {
        let recipient = ack.recipient();
        assert_eq!(cursors.decode(recipient, &cursors.encode(recipient, through)), Ok(through));
    }
}

/// Decodes a cursor. The first byte is the length of the recipient, and the rest the cursor.
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
        // A cursor of 0.0.3 means the start of the queue. Other cursors have only one form.
        assert!(seq == Seq::ZERO || cursors.encode(&recipient, seq) == text, "{text} decodes to {seq:?}");
    }
    let mut number = [0; 8];
    for (byte, given) in number.iter_mut().zip(text.bytes()) {
        *byte = given;
    }
    let seq = Seq::new(u64::from_be_bytes(number));
    assert_eq!(cursors.decode(&recipient, &cursors.encode(&recipient, seq)), Ok(seq));
}

/// Unpacks the data, and packs and unpacks it.
pub fn gzip(data: &[u8]) {
    if let Some(unpacked) = body::unpack(data, UNPACKED_BYTES_MAX) {
        assert!(unpacked.len() <= UNPACKED_BYTES_MAX);
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(data).expect("writing to a vector does not fail");
    let packed = packed.finish().expect("writing to a vector does not fail");
    let expected = (data.len() <= UNPACKED_BYTES_MAX).then_some(data);
    assert_eq!(body::unpack(&packed, UNPACKED_BYTES_MAX).as_deref(), expected);
}

/// Compares the vectorized base64 with the scalar one.
pub fn base64(data: &[u8]) {
    let text = STANDARD.encode(data);
    assert_eq!(api::SIMD_BASE64.encode(data), text);
    assert_eq!(api::SIMD_BASE64.decode(&text).as_deref(), Ok(data));
    assert_eq!(api::SIMD_BASE64.decode(data).ok(), STANDARD.decode(data).ok());
}

/// Parses lines of `X-Forwarded-For` or `Forwarded`; the first byte selects the header. No line of
/// a client may hide the element of the proxy.
pub fn forwarded(data: &[u8]) {
    let networks = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("the network is valid"));
    let trusted = Peers { networks: networks.to_vec(), unix: false };
    let (proxy, client, stranger) = (address("10.0.0.1"), address("198.51.100.7"), address("192.0.2.1"));
    let Some((first, lines)) = data.split_first() else { return };
    let (name, added) =
        if first & 1 == 0 { (X_FORWARDED_FOR, "198.51.100.7") } else { (FORWARDED, "for=198.51.100.7") };
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(name.clone(), line);
    }
    assert_eq!(
        forwarded::client_address(stranger, &headers, &trusted),
        stranger,
        "an untrusted peer is believed"
    );
    // The result does not matter, but no line may cause a panic.
    forwarded::client_address(proxy, &headers, &trusted);
    let last = headers.get_all(&name).last().map_or(Vec::new(), |line| line.as_bytes().to_vec());
    let mut separate = headers.clone();
    separate.append(name.clone(), HeaderValue::from_static(added));
    assert_eq!(forwarded::client_address(proxy, &separate, &trusted), client, "the proxy is not believed");
    if let Ok(line) = HeaderValue::from_bytes(&[&last[..], b", ", added.as_bytes()].concat()) {
        let mut appended = HeaderMap::new();
        appended.append(name, line);
        let found = forwarded::client_address(proxy, &appended, &trusted);
        // A client with an open quote makes the line unreadable, and counts as the proxy.
        assert!(found == client || found == proxy, "the client passes for {found}");
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("the address is valid")
}

/// Frames the input of an HTTP/1.1 connection. The result must not depend on how the input is cut
/// into reads.
pub fn framing(data: &[u8]) {
    let expected = passed_on(data, data.len().max(1));
    for piece in [1, 2, 3, 7, 64] {
        assert!(passed_on(data, piece) == expected, "pieces of {piece} bytes have another result");
    }
}

/// What is passed on of the input if it arrives in pieces of this size. `None` if it is refused.
fn passed_on(data: &[u8], piece: usize) -> Option<Vec<u8>> {
    let (mut framing, mut waiting, mut passed_on) = (Framing::new(), Vec::new(), Vec::new());
    for bytes in data.chunks(piece) {
        waiting.extend_from_slice(bytes);
        loop {
            let read = framing.read(&mut waiting).ok()?;
            passed_on.extend(waiting.drain(..read));
            let is_next = framing.is_complete();
            framing.next_request();
            if read == 0 && !is_next {
                break;
            }
        }
    }
    Some(passed_on)
}
