//! The file is what the types say, and says what the code does. That answers are as it tells, the
//! tests over sockets show (`tests/http/contract.rs`).

use relay_core::{Ack, Kind, Recipient};
use serde_json::Value;

use super::DOCUMENT;
use super::document;
use super::responses;
use crate::api::code::Code;
use crate::api::endpoint::Endpoint;

/// Where the file lies, and what has it written anew.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
const WRITE: &str = "WRITE_OPENAPI";

fn file() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

#[test]
fn the_file_is_what_the_types_say() {
    let document = document::document();
    #[expect(
        clippy::disallowed_methods,
        reason = "a developer says so in the environment: cargo xtask openapi"
    )]
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(FILE, format!("{document:#}\n")).unwrap();
        return;
    }
    assert!(file() == document, "docs/openapi.json is out of date; `cargo xtask openapi` writes it anew");
}

#[test]
fn every_reference_leads_somewhere() {
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
fn the_limits_are_those_of_the_rules() {
    let file = file();
    let check = |schema: &str, field: &str, limit: &str, expected: usize| {
        let found = &file["components"]["schemas"][schema]["properties"][field][limit];
        assert_eq!(found, &Value::from(expected), "{schema}.{field}.{limit}");
    };
    for request in ["PushRequest", "PullRequest", "AckRequest"] {
        check(request, "recipient", "maxLength", Recipient::BYTES_MAX);
    }
    check("Meta", "kind", "maxLength", Kind::BYTES_MAX);
    check("AckRequest", "ack", "maxItems", Ack::ITEMS_MAX);
}

#[test]
fn what_may_be_left_out_is_not_required() {
    let file = file();
    let check = |schema: &str, expected: &[&str]| {
        let schema = &file["components"]["schemas"][schema];
        let required: Vec<_> =
            schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(required, expected);
    };
    check("PushRequest", &["recipient", "message_id", "ciphertext_b64", "meta"]);
    check("PushResponse", &["stored", "queue_len", "queue_bytes"]);
    check("PullRequest", &["recipient"]);
    check("PullResponse", &["items", "next_cursor", "remaining_estimate"]);
}
