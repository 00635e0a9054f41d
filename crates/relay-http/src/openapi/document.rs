//! The document as a whole: what the wire types say of themselves, and around it the operations and
//! the error answers.

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::operations;
use super::page;
use super::responses;
use crate::api::{
    AckRequest, AckResponse, HealthResponse, PullRequest, PushRequest, PushResponse, ReadyResponse,
    StatsResponse,
};

const DESCRIPTION: &str = "A store-and-forward relay: senders push items into a recipient's queue, recipients pull and ack them.\n\n\
    Everything is JSON over HTTP/1.1, or HTTP/2 where TLS is on. A request needs no `Content-Type`; if one is given it is \
    `application/json` or `application/*+json`. Unknown request fields are ignored, an optional field may be null, a repeated key is \
    refused. Answers are never compressed.\n\n\
    Every error answer is `{\"error\": {\"code\", \"message\", \"details\"?}}`. Act on the code and the status; the message is for a \
    person. A path that there is not is answered 404 `not_found`, another method 405 `method_not_allowed` with `Allow`. Retry 408, \
    429 and 5xx; `Retry-After` tells when.\n\n\
    Lengths are given in characters here, and the relay counts bytes of UTF-8 where it says so.";

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
        "components": {"schemas": schemas(), "responses": responses::responses(), "headers": responses::headers()},
    })
}

fn schemas() -> Map<String, Value> {
    let mut found = Vec::new();
    add::<PushRequest<'static>>(&mut found);
    add::<PushResponse>(&mut found);
    add::<PullRequest<'static>>(&mut found);
    add::<page::PullResponse>(&mut found);
    add::<AckRequest<'static>>(&mut found);
    add::<AckResponse>(&mut found);
    add::<HealthResponse>(&mut found);
    add::<ReadyResponse>(&mut found);
    add::<StatsResponse>(&mut found);
    let as_json = |(name, schema)| (name, formats_mended(serde_json::to_value(schema).unwrap()));
    found.into_iter().map(as_json).collect()
}

/// Adds a type, and those that it is made of.
fn add<T: ToSchema + PartialSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// utoipa writes `u-int64` for what OpenAPI's registry of formats calls `uint64`.
fn formats_mended(value: Value) -> Value {
    match value {
        Value::String(text) if text.starts_with("u-int") => text.replace("u-int", "uint").into(),
        Value::Array(values) => values.into_iter().map(formats_mended).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, formats_mended(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}
