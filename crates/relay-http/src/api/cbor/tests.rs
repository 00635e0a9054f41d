//! Tests of requests in CBOR: what they mean, and what hostile ones cannot do.

mod attacks;
mod twins;

use ciborium::Value;
use relay_core::Envelope;
use serde_json::Value as Json;

use crate::api::batch::decode_batch;
use crate::api::error::ApiError;
use crate::api::format::{Encoded, Format};
use crate::api::requests::decode_push;

/// What no error may repeat.
const MARKED: &str = "m4rk3d";

const PAYLOAD_MAX: u64 = 64;

fn bytes_of(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Map(entries.into_iter().map(|(name, value)| (text(name), value)).collect())
}

fn meta() -> Value {
    map([
        ("kind", text("opaque")),
        ("total_len", 5.into()),
        ("chunk_index", 0.into()),
        ("chunk_count", 1.into()),
        ("sent_ms", u64::MAX.into()),
    ])
}

/// A push, in which the value of one field is replaced or added.
fn push_with(name: &str, value: Value) -> Value {
    let mut fields = vec![
        ("recipient", text("alice")),
        ("message_id", text("6F2C2F0E-8C6B-4C29-9B1F-0A6A7C9B1D11")),
        ("ciphertext", Value::Bytes(b"hello".to_vec())),
        ("meta", meta()),
    ];
    match fields.iter_mut().find(|(other, _)| *other == name) {
        Some(field) => field.1 = value,
        None => fields.push((name, value)),
    }
    map(fields)
}

fn push() -> Value {
    push_with("x", Value::Null)
}

fn encoded(bytes: &[u8]) -> Encoded {
    Encoded::new(Format::Cbor, bytes.to_vec())
}

/// The item of a push, or the text of the error, which must be short and repeat nothing.
fn decode(bytes: &[u8]) -> Result<Envelope, String> {
    decode_push(&encoded(bytes), PAYLOAD_MAX).map(|item| item.envelope).map_err(|error| checked(&error))
}

fn decode_value(value: &Value) -> Result<Envelope, String> {
    decode(&bytes_of(value))
}

/// For each item of a batch, the recipient or the error.
fn decode_items(bytes: &[u8]) -> Result<Vec<String>, String> {
    let items =
        decode_batch(&encoded(bytes), PAYLOAD_MAX, 4 * PAYLOAD_MAX).map_err(|error| checked(&error))?;
    let shown = |item: Result<crate::api::PushItem, ApiError>| match item {
        Ok(item) => item.envelope.recipient.as_str().to_owned(),
        Err(error) => checked(&error),
    };
    Ok(items.into_iter().map(shown).collect())
}

fn checked(error: &ApiError) -> String {
    let message = error.to_string();
    assert!(message.len() <= 200 && !message.contains(MARKED), "{message}");
    message
}

/// The same request in CBOR: what is base64 in JSON is a byte string.
fn twin(json: &Json) -> Value {
    use base64::Engine as _;
    match json {
        Json::Object(fields) => Value::Map(
            fields
                .iter()
                .map(|(name, value)| match (name.as_str(), value) {
                    ("ciphertext_b64", Json::String(base64)) => (
                        text("ciphertext"),
                        Value::Bytes(crate::api::base64::STANDARD.decode(base64).unwrap()),
                    ),
                    ("ciphertext_b64", other) => (text("ciphertext"), twin(other)),
                    (name, value) => (text(name), twin(value)),
                })
                .collect(),
        ),
        Json::Array(elements) => Value::Array(elements.iter().map(twin).collect()),
        Json::String(string) => text(string),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (_, Some(number)) => number.into(),
            _ => number.as_f64().unwrap().into(),
        },
        Json::Bool(flag) => (*flag).into(),
        Json::Null => Value::Null,
    }
}

#[test]
fn a_push_becomes_an_envelope() {
    let envelope = decode_value(&push()).unwrap();
    assert_eq!(envelope.recipient.as_str(), "alice");
    assert_eq!(envelope.message_id.to_string(), "6f2c2f0e-8c6b-4c29-9b1f-0a6a7c9b1d11");
    assert_eq!((envelope.chunk.index(), envelope.chunk.count()), (0, 1));
    assert_eq!((envelope.kind.as_str(), envelope.total_len, envelope.sent_ms), ("opaque", 5, u64::MAX));
    assert_eq!(envelope.payload, "hello");
}

/// As a human reads it in RFC 8949, so that no encoder is needed to believe it.
#[test]
fn the_bytes_of_a_push_are_those_of_the_standard() {
    let bytes = [
        &b"\xa4\x69recipient\x65alice\x6amessage_id\x78\x246f2c2f0e-8c6b-4c29-9b1f-0a6a7c9b1d11"[..],
        b"\x6aciphertext\x45hello",
        b"\x64meta\xa5\x64kind\x66opaque\x69total_len\x05\x6bchunk_index\x00\x6bchunk_count\x01",
        b"\x67sent_ms\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    ]
    .concat();
    assert_eq!(decode(&bytes), decode_value(&push()));
}

#[test]
fn a_large_payload_shares_the_memory_of_its_body_and_a_small_one_does_not() {
    let shares = |payload: usize, rest: usize, spare: usize| {
        let request = push_with("ciphertext", Value::Bytes(vec![7; payload]));
        let Value::Map(mut fields) = request else { unreachable!() };
        fields.push((text("x"), Value::Bytes(vec![0; rest])));
        let mut bytes = bytes_of(&Value::Map(fields));
        bytes.shrink_to_fit();
        bytes.reserve_exact(spare);
        let body = Encoded::new(Format::Cbor, bytes);
        let envelope = decode_push(&body, u64::MAX).unwrap().envelope;
        assert!(envelope.payload == vec![7; payload]);
        body.bytes.as_ptr_range().contains(&envelope.payload.as_ptr())
    };
    let mib = 1024 * 1024;
    assert!(shares(mib, 0, 0));
    assert!(shares(mib, mib / 20, 0));
    assert!(!shares(mib, mib / 8, 0), "unknown fields would be kept");
    assert!(!shares(mib, 0, mib / 8), "unused memory would be kept");
    assert!(!shares(5, mib, 0));
}

#[test]
fn a_bad_item_of_a_batch_fails_alone() {
    let batch = |items: Vec<Value>| bytes_of(&map([("x", Value::Null), ("items", Value::Array(items))]));
    let good = push();
    assert_eq!(decode_items(&batch(vec![])), Ok(vec![]));
    assert_eq!(decode_items(&batch(vec![good.clone(), good.clone()])).unwrap(), ["alice", "alice"]);
    for (bad, expected) in [
        (push_with("recipient", 7.into()), "recipient: expected a string, found a number at offset 11"),
        (push_with("message_id", text("x")), "message_id: not a UUID"),
        (push_with("ciphertext", Value::Bytes(vec![0; 65])), "larger than 64 bytes"),
        (push_with("ciphertext", text("aGVsbG8=")), "ciphertext: expected a byte string, found a string"),
        (Value::Map(vec![]), "missing field `recipient` at offset 0"),
        (Value::Map(vec![(0.into(), 0.into())]), "a key that is not a text string at offset 1"),
        (Value::Null, "the body: expected an object, found null at offset 0"),
        (Value::Array(vec![good.clone()]), "the body: expected an object, found an array"),
    ] {
        let mut items = vec![good.clone(), Value::Null, good.clone()];
        items[1] = bad;
        let found = decode_items(&batch(items)).unwrap();
        assert!(found[1].contains(expected), "{}", found[1]);
        assert_eq!((&*found[0], &*found[2]), ("alice", "alice"));
    }
}
