//! Describes the error responses, one for each status: its codes, details and headers.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::api::code::Code;
use crate::api::format::Format;

/// The reference to the response of this status.
pub(super) fn reference(status: u16) -> String {
    format!("#/components/responses/{}", name(status))
}

/// All error responses.
pub(super) fn responses() -> Map<String, Value> {
    let statuses: BTreeSet<_> = Code::ALL.iter().map(|code| code.status()).collect();
    statuses.into_iter().map(|status| (name(status), response(status))).collect()
}

/// The headers of error responses.
pub(super) fn headers() -> Value {
    json!({
        "RetryAfter": {
            "description": "The number of seconds to wait before the next attempt.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "RateLimit": {
            "description": "The limit that refused the request, its remaining quota, and the seconds until it is refilled (draft-ietf-httpapi-ratelimit-headers-10).",
            "schema": {"type": "string"},
        },
        "RateLimitPolicy": {
            "description": "The limit that refused the request, its quota, and its window in seconds.",
            "schema": {"type": "string"},
        },
        "Allow": {
            "description": "The methods that the path supports.",
            "schema": {"type": "string", "enum": ["POST, OPTIONS", "GET, HEAD, OPTIONS"]},
        },
        "WwwAuthenticate": {
            "description": "The scheme of proofs; present if the recipient needs a proof.",
            "schema": {"type": "string", "enum": ["Bearer"]},
        },
        "AcceptEncoding": {
            "description": "The encoding that a request body may have; present if it had another one.",
            "schema": {"type": "string", "enum": ["gzip"]},
        },
    })
}

/// The codes with this status.
pub(super) fn codes(status: u16) -> impl Iterator<Item = Code> {
    Code::ALL.into_iter().filter(move |code| code.status() == status)
}

/// The name of the code, if the status has only one.
fn name(status: u16) -> String {
    match codes(status).collect::<Vec<_>>()[..] {
        [code] => format!("{code:?}"),
        _ => "Unavailable".to_owned(),
    }
}

fn response(status: u16) -> Value {
    let (meaning, headers) = match status {
        400 => (
            "A field, the JSON (with line and column), the CBOR (with offset) or the HTTP is wrong: correct the request.",
            json!({}),
        ),
        401 => (
            "The recipient needs a proof and the request has none, or an access control in front of the relay requires one.",
            json!({"WWW-Authenticate": header("WwwAuthenticate", false)}),
        ),
        403 => (
            "The proof does not open the recipient, a page of another site sent the request, or an access control in front of the relay forbids it.",
            json!({}),
        ),
        404 => ("The path does not exist, or is not public.", json!({})),
        405 => ("The path supports other methods.", json!({"Allow": header("Allow", true)})),
        408 => ("The head or the body arrived too slowly: send it again.", json!({})),
        409 => ("The recipient's queue is full; nothing was stored.", json!({})),
        413 => ("The payload or the body exceeds the limit: send smaller chunks.", json!({})),
        415 => (
            "The body is neither JSON nor CBOR, or has an encoding other than gzip.",
            json!({"Accept-Encoding": header("AcceptEncoding", false)}),
        ),
        429 => (
            "The address sends too much: wait for the given time.",
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
        507 => {
            ("There is no space left; pulls still work.", json!({"Retry-After": header("RetryAfter", true)}))
        }
        _ => ("An internal fault of the relay: send it again.", json!({})),
    };
    let in_json = format!("{}/content/application~1json/schema", reference(status));
    let content = json!({
        Format::Json.content_type(): {"schema": body(status)},
        // The same fields.
        Format::Cbor.content_type(): {"schema": {"$ref": in_json}},
    });
    json!({"description": meaning, "headers": headers, "content": content})
}

fn header(name: &str, is_required: bool) -> Value {
    // A reference cannot make a header required.
    if is_required {
        json!({"required": true, "schema": headers()[name]["schema"]})
    } else {
        json!({"$ref": format!("#/components/headers/{name}")})
    }
}

fn body(status: u16) -> Value {
    let names: Vec<_> = codes(status).map(Code::as_str).collect();
    let mut required = vec!["code", "message"];
    let mut properties = json!({
        "code": {"type": "string", "enum": names},
        "message": {"type": "string", "minLength": 1, "description": "For people."},
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

/// The schema of `details`, and whether the field is required.
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
                "properties": {"field": {"type": "string"}, "line": number, "column": number, "offset": number},
                "description": "The invalid field, or the position of the error in the JSON or CBOR.",
            }),
            false,
        )),
        401 | 403 => Some((details_of_refusal(), false)),
        409 => Some((
            json!({
                "type": "object",
                "required": ["reason", "limit"],
                "properties": {
                    "reason": {"type": "string", "enum": ["count", "bytes"]},
                    "limit": number,
                    "used": {"type": "integer", "minimum": 0, "description": "Absent if only the reader may know."},
                },
            }),
            true,
        )),
        413 => Some(all(json!({"limit": number}))),
        431 => Some(all(json!({"limit_bytes": number, "limit_fields": number}))),
        503 => Some((
            json!({
                "type": "object",
                "properties": {"reason": {"type": "string"}},
                "description": "Why the relay is not ready: `starting`, `replaying n%`, `storage_full`, `database`, `database_standby` or `draining`.",
            }),
            false,
        )),
        429 => Some(all(json!({
            "bucket": {"type": "string", "enum": ["all", "push", "pull", "ack", "bytes", "items", "recipient", "name", "waiting"]},
            "retry_after_ms": number,
        }))),
        _ => None,
    }
}

/// The details of a refused proof.
fn details_of_refusal() -> Value {
    json!({
        "type": "object",
        "required": ["reason", "server_ms"],
        "properties": {
            "reason": {"type": "string", "description": "What is wrong with the proof, in a word."},
            "server_ms": {
                "type": "integer",
                "minimum": 0,
                "description": "The relay's clock, in milliseconds since 1970, to correct a token's times.",
            },
        },
        "description": "Present if the recipient needs a proof, or plain recipients are not served.",
    })
}
