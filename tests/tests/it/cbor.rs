//! The whole relay with clients that speak CBOR, beside clients that speak JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciborium::{Value, cbor};
use relay_bin::config::StorageKind;
use relay_tests::{Client, Relay};
use serde_json::json;

const AS_CBOR: [(&str, &str); 2] = [("content-type", "application/cbor"), ("accept", "application/cbor")];

/// Larger than what the relay stores beside its records.
const LARGE_BYTES: usize = 1024 * 1024;

fn post(client: &mut Client, path: &str, request: &Value) -> Value {
    let mut body = Vec::new();
    ciborium::into_writer(request, &mut body).unwrap();
    let response = client.post_bytes(path, &AS_CBOR, &body).unwrap();
    assert_eq!(response.header("content-type"), Some("application/cbor"));
    assert_eq!(response.status, 200, "{:?}", ciborium::from_reader::<Value, _>(&response.body[..]));
    ciborium::from_reader(&response.body[..]).unwrap()
}

fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    let fields = value.as_map().unwrap().iter();
    let mut found = fields.filter(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value);
    found.next().unwrap_or_else(|| panic!("no {name} in {value:?}"))
}

fn push(number: u32, payload: &[u8]) -> Value {
    cbor!({
        "recipient" => "alice",
        "message_id" => format!("00000000-0000-4000-8000-{number:012}"),
        "ciphertext" => Value::Bytes(payload.to_vec()),
        "meta" => { "kind" => "opaque", "total_len" => payload.len(), "chunk_index" => 0, "chunk_count" => 1, "sent_ms" => 7 },
    })
    .unwrap()
}

/// The payloads of a queue, as a client of each format sees them.
fn payloads(client: &mut Client) -> [Vec<Vec<u8>>; 2] {
    let page = post(client, "/pull", &cbor!({ "recipient" => "alice" }).unwrap());
    let items = field(&page, "items").as_array().unwrap();
    let in_cbor = items.iter().map(|item| field(item, "ciphertext").as_bytes().unwrap().clone()).collect();
    let items = client.pull_all("alice").unwrap().unwrap();
    let in_json = items.iter().map(|item| STANDARD.decode(item["ciphertext_b64"].as_str().unwrap()).unwrap());
    [in_cbor, in_json.collect()]
}

#[test]
fn items_of_both_formats_are_on_disk_and_come_back_in_both() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        Relay::with(|config| {
            config.storage.kind = StorageKind::Redb;
            config.storage.path = directory.path().join("store");
        })
    };
    let relay = start();
    let mut client = relay.connect().unwrap();
    let large: Vec<u8> = (0..=250).cycle().take(LARGE_BYTES).collect();
    post(&mut client, "/push", &push(1, b"in CBOR"));
    post(&mut client, "/push", &push(2, &large));
    let batch = cbor!({ "items" => [push(3, b""), push(1, b"in CBOR"), push(4, &large[1..])] }).unwrap();
    let results = post(&mut client, "/push/batch", &batch);
    let stored: Vec<_> =
        field(&results, "results").as_array().unwrap().iter().map(|result| field(result, "stored")).collect();
    assert_eq!(stored, [&Value::Bool(true), &Value::Bool(false), &Value::Bool(true)]);
    let in_json = json!({
        "recipient": "alice", "message_id": "00000000-0000-4000-8000-000000000005", "ciphertext_b64": "SlNPTg==",
        "meta": {"kind": "opaque", "total_len": 4, "chunk_index": 0, "chunk_count": 1, "sent_ms": 7},
    });
    assert_eq!(client.post("/push", &in_json).unwrap().status, 200);
    let expected =
        vec![b"in CBOR".to_vec(), large.clone(), Vec::new(), large[1..].to_vec(), b"JSON".to_vec()];
    for payloads in payloads(&mut client) {
        assert!(payloads == expected);
    }
    drop((client, relay));
    let relay = start();
    let mut client = relay.connect().unwrap();
    for payloads in payloads(&mut client) {
        assert!(payloads == expected, "after a restart");
    }
    let ack = cbor!({
        "recipient" => "alice",
        "ack" => [{ "message_id" => "00000000-0000-4000-8000-000000000001", "chunk_index" => 0 }],
    });
    assert_eq!(field(&post(&mut client, "/ack", &ack.unwrap()), "deleted"), &Value::from(1));
    assert!(payloads(&mut client) == [expected[1..].to_vec(), expected[1..].to_vec()]);
}
