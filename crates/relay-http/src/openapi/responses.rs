//! The error answers, one for each status: the codes that it is given with, their details, and the
//! headers.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::api::code::Code;

/// Where the answer of this status is described.
pub(super) fn reference(status: u16) -> String {
    format!("#/components/responses/{}", name(status))
}

/// All error answers.
pub(super) fn responses() -> Map<String, Value> {
    let statuses: BTreeSet<_> = Code::ALL.iter().map(|code| code.status()).collect();
    statuses.into_iter().map(|status| (name(status), response(status))).collect()
}

/// The headers that some of them have.
pub(super) fn headers() -> Value {
    json!({
        "RetryAfter": {
            "description": "After so many seconds it is worth to try again.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "RateLimit": {
            "description": "The limit that said no, what is left of it, and the seconds until there is more (draft-ietf-httpapi-ratelimit-headers-10).",
            "schema": {"type": "string"},
        },
        "RateLimitPolicy": {
            "description": "The limit that said no, its quota, and the seconds that it is for.",
            "schema": {"type": "string"},
        },
        "Allow": {
            "description": "The methods that the path knows.",
            "schema": {"type": "string", "enum": ["POST, OPTIONS", "GET, HEAD, OPTIONS"]},
        },
        "AcceptEncoding": {
            "description": "The encoding that a body may have; given when it had another one.",
            "schema": {"type": "string", "enum": ["gzip"]},
        },
    })
}

/// The codes that go with this status.
pub(super) fn codes(status: u16) -> impl Iterator<Item = Code> {
    Code::ALL.into_iter().filter(move |code| code.status() == status)
}

/// One code has its own name.
fn name(status: u16) -> String {
    let names: Vec<_> = codes(status).map(|code| format!("{code:?}")).collect();
    if let [name] = names.as_slice() { name.clone() } else { "Unavailable".to_owned() }
}

fn response(status: u16) -> Value {
    let (meaning, headers) = match status {
        400 => {
            ("A field, the JSON (with line and column) or the HTTP is wrong: mend the request.", json!({}))
        }
        401 => ("A guard in front of the relay wants to know who asks.", json!({})),
        403 => (
            "A guard in front of the relay says no, or the request comes from another site's page.",
            json!({}),
        ),
        404 => ("There is no such path, or not for everybody.", json!({})),
        405 => ("The path knows other methods.", json!({"Allow": header("Allow", true)})),
        408 => ("The head or the body came too slowly: send it again.", json!({})),
        409 => ("The recipient's queue is full; nothing was stored.", json!({})),
        413 => ("The payload or the body is over the limit: send smaller chunks.", json!({})),
        415 => (
            "The body is not JSON, or has an encoding other than gzip.",
            json!({"Accept-Encoding": header("AcceptEncoding", false)}),
        ),
        429 => (
            "The address sends too much: wait as long as it says.",
            json!({
                "Retry-After": header("RetryAfter", true),
                "RateLimit": header("RateLimit", true),
                "RateLimit-Policy": header("RateLimitPolicy", true),
            }),
        ),
        431 => ("The head is too large, or has too many fields: send a smaller one.", json!({})),
        503 => (
            "The store failed, too much work is waiting, or the relay is stopping or not ready yet: send it again later.",
            json!({"Retry-After": header("RetryAfter", true)}),
        ),
        507 => ("There is no space left; pulls go on.", json!({"Retry-After": header("RetryAfter", true)})),
        _ => ("A fault of the relay: send it again.", json!({})),
    };
    json!({"description": meaning, "headers": headers, "content": {"application/json": {"schema": body(status)}}})
}

fn header(name: &str, is_required: bool) -> Value {
    let reference = format!("#/components/headers/{name}");
    // A header by reference cannot say that it is always there.
    if is_required {
        json!({"required": true, "schema": headers()[name]["schema"]})
    } else {
        json!({"$ref": reference})
    }
}

fn body(status: u16) -> Value {
    let names: Vec<_> = codes(status).map(Code::as_str).collect();
    let mut required = vec!["code", "message"];
    let mut properties = json!({
        "code": {"type": "string", "enum": names},
        "message": {"type": "string", "minLength": 1, "description": "For a person."},
    });
    if let Some((details, are_required)) = details(status) {
        required.extend(are_required.then_some("details"));
        properties["details"] = details;
    }
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "object", "required": required, "properties": properties}},
    })
}

/// What is told beside the code, and whether it always is.
fn details(status: u16) -> Option<(Value, bool)> {
    let number = json!({"type": "integer", "minimum": 0});
    let all = |properties: Value| {
        let required: Vec<_> = properties.as_object().into_iter().flat_map(Map::keys).collect();
        (json!({"type": "object", "required": required, "properties": properties}), true)
    };
    match status {
        400 => Some((
            json!({
                "type": "object",
                "properties": {"field": {"type": "string"}, "line": number, "column": number},
                "description": "The field that is wrong, or where in the JSON something is.",
            }),
            false,
        )),
        409 => Some(all(
            json!({"reason": {"type": "string", "enum": ["count", "bytes"]}, "limit": number, "used": number}),
        )),
        413 => Some(all(json!({"limit": number}))),
        431 => Some(all(json!({"limit_bytes": number, "limit_fields": number}))),
        503 => Some((
            json!({
                "type": "object",
                "properties": {"reason": {"type": "string"}},
                "description": "Why the relay is not ready: `starting`, `replaying n%`, `storage_full` or `draining`.",
            }),
            false,
        )),
        429 => Some(all(json!({
            "bucket": {"type": "string", "enum": ["all", "push", "pull", "ack", "bytes", "recipient"]},
            "retry_after_ms": number,
        }))),
        _ => None,
    }
}
