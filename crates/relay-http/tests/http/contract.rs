//! Holds answers to `docs/openapi.json`: the status is one that the operation knows, the headers
//! that it promises are there, and the body has the fields that it tells of, of the types that it
//! tells, and no others. It reads as much of JSON Schema as that file uses.

use std::sync::LazyLock;

use serde_json::Value;

use crate::support::{Answer, Server};

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap());

/// Asserts that this may be the answer to a request of this kind. A path that the document does not
/// know has errors only.
pub(crate) fn check(method: &str, path: &str, answer: &Answer) {
    let path = path.split('?').next().unwrap_or_default();
    let operation: &'static Value = &DOCUMENT["paths"][path][method.to_lowercase()];
    if operation.is_null() {
        assert!([400, 404, 405, 408, 429, 503].contains(&answer.status), "{method} {path}: {answer:?}");
        check_error(answer);
        return;
    }
    let response = &operation["responses"][answer.status.to_string()];
    assert!(!response.is_null(), "{method} {path} does not tell of status {}", answer.status);
    check_response(response, answer);
}

/// Asserts that this is an error answer as the document has it for its status.
pub(crate) fn check_error(answer: &Answer) {
    let responses = DOCUMENT["components"]["responses"].as_object().unwrap();
    let is_of_code = |response: &&Value| {
        let code =
            &response["content"]["application/json"]["schema"]["properties"]["error"]["properties"]["code"];
        code["enum"].as_array().unwrap().contains(&answer.json()["error"]["code"])
    };
    let response =
        responses.values().find(is_of_code).unwrap_or_else(|| panic!("an unknown code: {answer:?}"));
    check_response(response, answer);
}

fn check_response(response: &'static Value, answer: &Answer) {
    let response = resolve(response);
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let is_required = header["required"] == true;
        assert!(!is_required || answer.header(name).is_some(), "{name} is missing: {answer:?}");
    }
    let schema = &response["content"]["application/json"]["schema"];
    check_value(schema, &answer.json(), "the answer");
}

fn resolve(value: &'static Value) -> &'static Value {
    value["$ref"].as_str().map_or(value, |reference| DOCUMENT.pointer(&reference[1..]).unwrap())
}

fn check_value(schema: &'static Value, value: &Value, at: &str) {
    let schema = resolve(schema);
    let types = &schema["type"];
    let is_of_type = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the document has a type {other}"),
    };
    let fits = types.as_array().map_or_else(|| is_of_type(types), |types| types.iter().any(is_of_type));
    assert!(fits, "{at} is {value} and should be {types}");
    let choices = &schema["enum"];
    assert!(choices.is_null() || choices.as_array().unwrap().contains(value), "{at} is {value}");
    for element in value.as_array().into_iter().flatten() {
        check_value(&schema["items"], element, at);
    }
    if let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(fields.contains_key(name.as_str().unwrap()), "{at} has no {name}");
        }
        for (name, value) in fields {
            let property = properties.get(name).unwrap_or_else(|| panic!("{at}.{name} is not told of"));
            check_value(property, value, &format!("{at}.{name}"));
        }
    }
}

#[test]
fn the_document_is_served_as_it_lies_in_the_project() {
    let answer = Server::start().get("/openapi.json");
    assert_eq!(answer.ok(), *DOCUMENT);
}

#[test]
fn it_describes_itself_and_every_other_path() {
    let paths: Vec<_> = DOCUMENT["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    for path in ["/ack", "/health", "/openapi.json", "/pull", "/push", "/stats"] {
        assert!(paths.contains(&path), "{path}");
    }
}

#[test]
#[should_panic(expected = "the answer.more is not told of")]
fn a_field_that_is_not_told_of_is_found() {
    let mut answer = Server::start().get("/health");
    answer.body = r#"{"status":"ok","more":1}"#.to_owned();
    check("GET", "/health", &answer);
}
