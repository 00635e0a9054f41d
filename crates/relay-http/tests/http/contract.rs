//! Checks responses against `docs/openapi.json`: the operation has the status, required headers are
//! present, and the body has the described fields, of the described types, and no others. Supports
//! the part of JSON Schema that the file uses.

use std::sync::LazyLock;

use serde_json::Value;

use crate::support::{Response, Server};

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap());

/// Asserts that the document allows this response to such a request. A path that is not in the
/// document has only errors.
pub(crate) fn check(method: &str, path: &str, response: &Response) {
    let path = path.split('?').next().unwrap_or_default();
    let operation: &'static Value = &DOCUMENT["paths"][path][method.to_lowercase()];
    if operation.is_null() {
        assert!([400, 404, 405, 408, 429, 503].contains(&response.status), "{method} {path}: {response:?}");
        check_error(response);
        return;
    }
    let described = &operation["responses"][response.status.to_string()];
    assert!(!described.is_null(), "{method} {path} has no status {} in the document", response.status);
    check_response(described, response);
}

/// Asserts that this is an error response as the document describes it.
pub(crate) fn check_error(response: &Response) {
    let responses = DOCUMENT["components"]["responses"].as_object().unwrap();
    let has_code = |described: &&Value| {
        let code =
            &described["content"]["application/json"]["schema"]["properties"]["error"]["properties"]["code"];
        code["enum"].as_array().unwrap().contains(&response.json()["error"]["code"])
    };
    let described =
        responses.values().find(has_code).unwrap_or_else(|| panic!("an unknown code: {response:?}"));
    check_response(described, response);
}

fn check_response(described: &'static Value, response: &Response) {
    let described = resolve(described);
    for (name, header) in described["headers"].as_object().into_iter().flatten() {
        let is_required = header["required"] == true;
        assert!(!is_required || response.header(name).is_some(), "{name} is missing: {response:?}");
    }
    let schema = &described["content"][response.header("content-type").unwrap()]["schema"];
    check_value(schema, &response.json(), "the response");
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
    assert!(fits, "{at} is {value}, expected {types}");
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
            let property =
                properties.get(name).unwrap_or_else(|| panic!("{at}.{name} is not in the document"));
            check_value(property, value, &format!("{at}.{name}"));
        }
    }
}

#[test]
fn the_server_serves_the_document_of_the_project() {
    let response = Server::start().get("/openapi.json");
    assert_eq!(response.ok(), *DOCUMENT);
}

#[test]
fn the_document_describes_every_path() {
    let paths: Vec<_> = DOCUMENT["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    for path in ["/ack", "/health", "/openapi.json", "/pull", "/push", "/stats"] {
        assert!(paths.contains(&path), "{path}");
    }
}

#[test]
#[should_panic(expected = "the response.more is not in the document")]
fn an_undescribed_field_is_found() {
    let mut response = Server::start().get("/health");
    response.body = r#"{"status":"ok","more":1}"#.to_owned();
    check("GET", "/health", &response);
}
