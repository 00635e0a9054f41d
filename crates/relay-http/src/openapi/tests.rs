//! Tests that the file matches the types, codes and limits. `tests/http/contract.rs` compares
//! actual responses with it.

use relay_core::{Ack, Kind, Recipient};
use serde_json::Value;

use super::DOCUMENT;
use super::document;
use super::responses;
use crate::api::code::Code;
use crate::api::endpoint::Endpoint;
use crate::api::limits::BATCH_ITEMS_MAX;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
/// Set by `cargo xtask openapi` to write the file.
const WRITE: &str = "WRITE_OPENAPI";

fn file() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

#[test]
fn the_file_is_up_to_date() {
    let document = document::document();
    #[expect(clippy::disallowed_methods, reason = "set by cargo xtask openapi")]
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(FILE, format!("{document:#}\n")).unwrap();
        return;
    }
    assert!(file() == document, "docs/openapi.json is out of date; run `cargo xtask openapi`");
}

#[test]
fn every_reference_has_a_target() {
    fn check(document: &Value, value: &Value) {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
        let (fields, elements) = (value.as_object(), value.as_array());
        fields
            .into_iter()
            .flat_map(|fields| fields.values())
            .chain(elements.into_iter().flatten())
            .for_each(|value| check(document, value));
    }
    check(&file(), &file());
}

#[test]
fn every_endpoint_and_every_code_is_described() {
    let file = file();
    for endpoint in Endpoint::ALL {
        for method in endpoint.allow().split(", ").filter(|method| *method != "OPTIONS") {
            let operation = &file["paths"][endpoint.path()][method.to_lowercase()];
            assert!(operation["responses"]["200"].is_object(), "{method} {}", endpoint.path());
        }
    }
    for code in Code::ALL {
        let pointer = responses::reference(code.status());
        let response = file.pointer(&pointer[1..]).unwrap();
        let error = &response["content"]["application/json"]["schema"]["properties"]["error"];
        let codes = error["properties"]["code"]["enum"].as_array().unwrap();
        assert!(codes.contains(&code.as_str().into()), "{code:?}");
    }
}

/// The attributes of the types cannot name constants.
#[test]
fn the_limits_match_the_constants() {
    let file = file();
    let check = |schema: &str, field: &str, limit: &str, expected: usize| {
        let found = &file["components"]["schemas"][schema]["properties"][field][limit];
        assert_eq!(found, &Value::from(expected), "{schema}.{field}.{limit}");
    };
    for request in
        ["PushRequest", "CborPushRequest", "PullRequest", "StreamRequest", "AckRequest", "PurgeRequest"]
    {
        check(request, "recipient", "maxLength", Recipient::BYTES_MAX);
    }
    check("Meta", "kind", "maxLength", Kind::BYTES_MAX);
    check("AckRequest", "ack", "maxItems", Ack::ITEMS_MAX);
    check("BatchRequest", "items", "maxItems", BATCH_ITEMS_MAX);
    check("CborBatchRequest", "items", "maxItems", BATCH_ITEMS_MAX);
}

#[test]
fn optional_fields_are_not_required() {
    let file = file();
    let check = |schema: &str, expected: &[&str]| {
        let schema = &file["components"]["schemas"][schema];
        let required: Vec<_> =
            schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(required, expected);
    };
    check("PushRequest", &["recipient", "message_id", "ciphertext_b64", "meta"]);
    check("CborPushRequest", &["recipient", "message_id", "ciphertext", "meta"]);
    check("PushResponse", &["stored", "queue_len", "queue_bytes"]);
    check("PullRequest", &["recipient"]);
    check("PullResponse", &["items", "next_cursor", "remaining_estimate"]);
}
