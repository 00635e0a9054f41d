//! Converts between JSON and CBOR with another library than the relay: a payload, which is base64
//! in JSON, is a byte string in CBOR.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciborium::Value;
use serde_json::Value as Json;

/// The bytes of a request.
pub(crate) fn from_json(json: &Json) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(&value_of(json), &mut bytes).unwrap();
    bytes
}

/// One response.
pub(crate) fn to_json(mut bytes: &[u8]) -> Json {
    let json = next(&mut bytes).unwrap();
    assert!(bytes.is_empty(), "{bytes:02x?} follow");
    json
}

/// The next value of a sequence, if all of it is there.
pub(crate) fn next(bytes: &mut &[u8]) -> Option<Json> {
    let mut rest = *bytes;
    let value: Value = ciborium::from_reader(&mut rest).ok()?;
    *bytes = rest;
    Some(json_of(&value))
}

fn value_of(json: &Json) -> Value {
    match json {
        Json::Object(fields) => {
            Value::Map(fields.iter().map(|(name, value)| field_of(name, value)).collect())
        }
        Json::Array(elements) => Value::Array(elements.iter().map(value_of).collect()),
        Json::String(text) => Value::Text(text.clone()),
        Json::Number(number) => match number.as_u64() {
            Some(number) => number.into(),
            None => number.as_i64().unwrap().into(),
        },
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Null => Value::Null,
    }
}

fn field_of(name: &str, value: &Json) -> (Value, Value) {
    match (name, value) {
        ("ciphertext_b64", Json::String(base64)) => {
            (Value::Text("ciphertext".to_owned()), Value::Bytes(STANDARD.decode(base64).unwrap()))
        }
        _ => (Value::Text(name.to_owned()), value_of(value)),
    }
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::Map(fields) => Json::Object(
            fields.iter().map(|(name, value)| (name.as_text().unwrap().to_owned(), json_of(value))).collect(),
        ),
        Value::Array(elements) => elements.iter().map(json_of).collect(),
        // The name of the field tells the two apart.
        Value::Bytes(bytes) => STANDARD.encode(bytes).into(),
        Value::Text(text) => text.clone().into(),
        Value::Integer(number) => u64::try_from(*number).unwrap().into(),
        Value::Bool(flag) => (*flag).into(),
        Value::Null => Json::Null,
        other => panic!("no response has {other:?}"),
    }
}

/// The response as it would be in JSON.
pub(crate) fn as_in_json(mut json: Json) -> Json {
    match &mut json {
        Json::Object(fields) => {
            if let Some(payload) = fields.remove("ciphertext") {
                fields.insert("ciphertext_b64".to_owned(), payload);
            }
            fields.values_mut().for_each(|value| *value = as_in_json(value.take()));
        }
        Json::Array(elements) => elements.iter_mut().for_each(|value| *value = as_in_json(value.take())),
        _ => {}
    }
    json
}
