//! One request in two formats means the same, or has the same mistake.

use std::fmt::Debug;

use ::base64::Engine as _;
use proptest::collection;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use relay_core::{Recipient, Seq};
use serde_json::json;

use super::*;
use crate::api::base64::STANDARD;
use crate::api::cursor::CursorKey;
use crate::api::{decode_ack, decode_pull, decode_purge, decode_stream};

/// The code and details of an error, and its text, without the position.
fn outline(error: &ApiError) -> (Json, String) {
    let mut body = error.error_body().body()["error"].take();
    for position in ["line", "column", "offset"] {
        if let Some(details) = body["details"].as_object_mut() {
            details.remove(position);
        }
    }
    let message = checked(error).replace("CBOR", "JSON").replace("ciphertext_b64", "ciphertext");
    body["message"] = Json::Null;
    (body, message.split(" at ").next().unwrap().to_owned())
}

/// Asserts that both formats of a request mean the same. Returns whether it is accepted.
#[track_caller]
fn both<T: Debug>(json: &Json, decode: impl Fn(&Encoded) -> Result<T, ApiError>) -> bool {
    let shown = |result: Result<T, ApiError>| {
        result.map(|value| format!("{value:?}")).map_err(|error| outline(&error))
    };
    let of_json = shown(decode(&Encoded::new(Format::Json, json.to_string().into())));
    let of_cbor = shown(decode(&encoded(&bytes_of(&twin(json)))));
    assert_eq!(of_json, of_cbor, "{json}");
    of_json.is_ok()
}

/// Values that some field refuses.
fn odd_value() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        (i64::MIN..0).prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
        Just(json!([])),
        Just(json!({"m4rk3d": [1, {}]})),
    ]
}

fn meta_value() -> impl Strategy<Value = Json> {
    let number = || prop_oneof![0_u64..4, Just(u64::from(u32::MAX)), any::<u64>()];
    let fields = (".{0,40}", any::<u64>(), number(), number(), any::<u64>());
    fields.prop_map(|(kind, total_len, chunk_index, chunk_count, sent_ms)| {
        json!({"kind": kind, "total_len": total_len, "chunk_index": chunk_index, "chunk_count": chunk_count, "sent_ms": sent_ms})
    })
}

fn push_value() -> impl Strategy<Value = Json> {
    let id = prop_oneof![
        4 => any::<u128>().prop_map(|id| format!("{id:032x}")),
        1 => Just("urn:uuid:6F2C2F0E-8C6B-4C29-9B1F-0A6A7C9B1D11".to_owned()),
        1 => ".{0,4}",
    ];
    let proof = prop_oneof![Just(Json::Null), "[A-Za-z0-9_-]{43}".prop_map(Json::from)];
    let ttl = option::weighted(0.5, prop_oneof![0..3_u64, any::<u64>()]);
    let fields = (".{0,200}", id, collection::vec(any::<u8>(), 0..80), meta_value(), proof, ttl);
    let push = fields.prop_map(|(recipient, id, payload, meta, proof, ttl)| {
        let payload = STANDARD.encode(payload);
        json!({"recipient": recipient, "message_id": id, "ciphertext_b64": payload, "meta": meta, "proof": proof, "ttl_seconds": ttl})
    });
    let names = vec!["recipient", "message_id", "meta", "proof", "ttl_seconds", "y"];
    let change = (select(names), option::of(odd_value()));
    (push, option::weighted(0.3, change)).prop_map(|(mut push, change)| {
        match change {
            Some((name, Some(value))) => push[name] = value,
            Some((name, None)) => drop(push.as_object_mut().unwrap().remove(name)),
            None => {}
        }
        push
    })
}

/// A push with any bytes as the value of an unknown field.
fn damaged_push() -> impl Strategy<Value = Vec<u8>> {
    collection::vec(any::<u8>(), 1..12).prop_map(|bytes| {
        let mut body = bytes_of(&push());
        body.pop();
        [body, bytes].concat()
    })
}

proptest! {
    #[test]
    fn a_push_has_the_same_outcome(push in push_value()) {
        both(&push, |body| decode_push(body, PAYLOAD_MAX));
    }

    #[test]
    fn a_batch_has_the_same_outcome(
        items in collection::vec(prop_oneof![4 => push_value(), 1 => odd_value()], 0..6),
    ) {
        both(&json!({"items": items}), |body| {
            let items = decode_batch(body, PAYLOAD_MAX, 2 * PAYLOAD_MAX)?;
            Ok(items.into_iter().map(|item| item.map_err(|error| outline(&error))).collect::<Vec<_>>())
        });
    }

    /// What another decoder calls malformed is never accepted.
    #[test]
    fn what_is_accepted_is_well_formed(bytes in damaged_push()) {
        if decode(&bytes).is_ok() {
            let value = ciphertext_of(&bytes);
            prop_assert_eq!(value, Some(b"hello".to_vec()), "{:02x?}", bytes);
        }
    }
}

/// The payload of a push, as another decoder sees it.
fn ciphertext_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let Value::Map(fields) = ciborium::from_reader(bytes).ok()? else { return None };
    fields.into_iter().find(|(name, _)| *name == text("ciphertext"))?.1.into_bytes().ok()
}

#[test]
fn wrong_requests_have_the_same_mistake() {
    let cursors = CursorKey::new(&[7; 32]);
    for (name, value) in [
        ("recipient", json!(7)),
        ("recipient", json!("  ")),
        ("cursor", json!([])),
        ("cursor", json!("m4rk3d")),
        ("max", json!(0)),
        ("max", json!(-1)),
        ("max", json!("m4rk3d")),
        ("wait_ms", json!(true)),
        ("tail", json!(1)),
        ("keepalive_ms", json!({})),
    ] {
        let mut request = json!({"recipient": "alice"});
        request[name] = value;
        both(&request, |body| decode_pull(body, &cursors));
        both(&request, |body| decode_stream(body, &cursors));
    }
    let id = "6f2c2f0e8c6b4c299b1f0a6a7c9b1d11";
    for (ack, is_good) in [
        (json!([]), true),
        (json!([{"message_id": id, "chunk_index": 3}, {"message_id": id, "chunk_index": 3}]), true),
        (json!([{"message_id": "x", "chunk_index": 3}]), false),
        (json!([{"message_id": id}]), false),
        (json!([[id, 3]]), false),
        (json!([{"message_id": id, "chunk_index": 4_294_967_296_u64}]), false),
        (json!(7), false),
        (json!(null), false),
    ] {
        let request = json!({"recipient": "alice", "ack": ack});
        assert_eq!(both(&request, |body| decode_ack(body, &cursors)), is_good);
    }
    let cursor = cursors.encode(&Recipient::parse("alice").unwrap(), Seq::new(7));
    for (cursor, is_good) in
        [(json!(cursor), true), (json!(null), false), (json!("m4rk3d"), false), (json!(7), false)]
    {
        let request = json!({"recipient": "alice", "ack_before": cursor});
        assert_eq!(both(&request, |body| decode_ack(body, &cursors)), is_good);
    }
    for (recipient, is_good) in [(json!("alice"), true), (json!(" "), false), (json!(null), false)] {
        assert_eq!(both(&json!({"recipient": recipient}), decode_purge), is_good);
    }
    for whole in [json!([]), json!(null), json!("m4rk3d"), json!(7), json!({}), json!(true)] {
        assert!(!both(&whole, |body| decode_push(body, PAYLOAD_MAX)));
        assert!(!both(&whole, |body| decode_ack(body, &cursors)));
    }
}
