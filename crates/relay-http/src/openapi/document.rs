//! Builds the whole document from the schemas of the wire types, the operations and the error
//! responses.

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::operations;
use super::page;
use super::responses;
use crate::api::{
    AckRequest, AckResponse, BatchRequest, CborBatchRequest, CborPushRequest, HealthResponse, InfoResponse,
    PullRequest, PurgeRequest, PushRequest, PushResponse, ReadyResponse, StatsResponse, StreamSettings,
};

const DESCRIPTION: &str = "A store-and-forward relay: senders push items into a recipient's queue, recipients pull and ack them.\n\n\
    Everything is JSON over HTTP/1.1, or HTTP/2 where TLS is on. A request needs no `Content-Type`; if one is given it is \
    `application/json`, `application/*+json` or `application/cbor`. If `Accept` names `application/cbor`, every response but \
    this document is CBOR (RFC 8949). CBOR has the same fields, but a payload is a byte string `ciphertext` instead of \
    `ciphertext_b64`. The relay ignores unknown request fields and accepts null for an optional field. It \
    rejects a repeated key. Responses are never compressed.\n\n\
    Every error response is `{\"error\": {\"code\", \"message\", \"details\"?}}`. Act on the code and the status; the message is for \
    people. An unknown path gets 404 `not_found`, an unsupported method 405 `method_not_allowed` with `Allow`. Retry 408, \
    429 and 5xx; `Retry-After` says when.\n\n\
    This document gives lengths in characters; where the descriptions say so, the relay counts bytes of UTF-8.";

const PROOF: &str = "The proof for a recipient. With a lock: the secret of a `sha256:` recipient in base64url without padding, or a token \
    that the key of an `ed25519:` recipient has signed: a JWT with the header `{\"alg\":\"EdDSA\",\"typ\":\"relay-read+jwt\"}` and \
    the claims `iss` (the recipient), `aud`, `iat`, `exp` (at most 600 seconds later) and optionally `ops`. Other recipients \
    need none, unless the operator demands a token of an issuer, a JWT whose claim `relay` lists the recipient, or a client \
    certificate.";

/// The whole document.
pub(super) fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "relay",
            "description": DESCRIPTION,
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": operations::paths(),
        "components": {
            "schemas": schemas(),
            "responses": responses::responses(),
            "headers": responses::headers(),
            "securitySchemes": {"proof": {"type": "http", "scheme": "bearer", "description": PROOF}},
        },
    })
}

fn schemas() -> Map<String, Value> {
    let mut schemas = Vec::new();
    add::<PushRequest<'static>>(&mut schemas);
    add::<PushResponse>(&mut schemas);
    add::<BatchRequest<'static>>(&mut schemas);
    add::<page::BatchResponse>(&mut schemas);
    add::<PullRequest<'static>>(&mut schemas);
    add::<page::PullResponse>(&mut schemas);
    add::<AckRequest<'static>>(&mut schemas);
    add::<PurgeRequest<'static>>(&mut schemas);
    add::<AckResponse>(&mut schemas);
    add::<StreamSettings<'static>>(&mut schemas);
    add::<page::StreamEvent>(&mut schemas);
    add::<CborPushRequest<'static>>(&mut schemas);
    add::<CborBatchRequest<'static>>(&mut schemas);
    add::<page::CborPullResponse>(&mut schemas);
    add::<page::CborStreamEvent>(&mut schemas);
    add::<HealthResponse>(&mut schemas);
    add::<ReadyResponse>(&mut schemas);
    add::<InfoResponse>(&mut schemas);
    add::<StatsResponse>(&mut schemas);
    let as_json = |(name, schema)| (name, with_standard_formats(serde_json::to_value(schema).unwrap()));
    schemas.into_iter().map(as_json).collect()
}

/// Adds the schema of a type and of the types that it contains.
fn add<T: ToSchema + PartialSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// Replaces `u-int64` of utoipa with `uint64`, the name in OpenAPI's format registry.
fn with_standard_formats(value: Value) -> Value {
    match value {
        Value::String(text) if text.starts_with("u-int") => text.replace("u-int", "uint").into(),
        Value::Array(values) => values.into_iter().map(with_standard_formats).collect(),
        Value::Object(fields) => Value::Object(
            fields.into_iter().map(|(name, value)| (name, with_standard_formats(value))).collect(),
        ),
        other => other,
    }
}
