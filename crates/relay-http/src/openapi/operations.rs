//! Describes the paths with their requests and responses.

use serde_json::{Map, Value, json};

use super::responses;
use crate::api::endpoint::Endpoint;
use crate::api::events::EventFormat;
use crate::api::format::Format;

/// The description of an endpoint.
struct OperationDoc {
    name: &'static str,
    summary: &'static str,
    description: &'static str,
    /// The content of the request body, if there is one.
    request: Option<Value>,
    /// The content of the response with status 200.
    response: Value,
    /// The error statuses besides [`COMMON_STATUSES`].
    statuses: &'static [u16],
}

/// Any request can be malformed, too large or too slow, come from a page of another site, meet a
/// fault, or arrive while the relay stops.
const COMMON_STATUSES: [u16; 6] = [400, 403, 408, 431, 500, 503];

/// All paths.
pub(super) fn paths() -> Map<String, Value> {
    Endpoint::ALL.into_iter().map(|endpoint| (endpoint.path().to_owned(), path(endpoint))).collect()
}

fn path(endpoint: Endpoint) -> Value {
    let doc = operation_doc(endpoint);
    // `OPTIONS` is the same for every path.
    let methods = endpoint.allow().split(", ").filter(|method| *method != "OPTIONS");
    methods.map(|method| (method.to_ascii_lowercase(), doc.operation(method))).collect::<Map<_, _>>().into()
}

impl OperationDoc {
    fn operation(&self, method: &str) -> Value {
        let (is_head, name) = (method == "HEAD", self.name);
        let content = (!is_head).then_some(&self.response);
        let ok = without_null(json!({"description": self.summary, "content": content}));
        let errors = COMMON_STATUSES.iter().chain(self.statuses);
        let errors =
            errors.map(|status| (status.to_string(), json!({"$ref": responses::reference(*status)})));
        let responses: Map<_, _> = [("200".to_owned(), ok)].into_iter().chain(errors).collect();
        let body = self.request.as_ref().map(|content| {
            json!({
                "description": "It may be sent with `Content-Encoding: gzip`; all limits count the unpacked bytes.",
                "required": true,
                "content": content,
            })
        });
        without_null(json!({
            "operationId": if is_head { format!("{name}_head") } else { name.to_owned() },
            "summary": self.summary,
            "description": self.description,
            "parameters": self.request.as_ref().map(|_| [content_encoding()]),
            "requestBody": body,
            "responses": responses,
            // Not all recipients need a proof.
            "security": self.request.as_ref().map(|_| json!([{}, {"proof": []}])),
        }))
    }
}

fn operation_doc(endpoint: Endpoint) -> OperationDoc {
    let (name, summary, description) = texts(endpoint);
    let forms = |json: &str, cbor: &str| content_of(&schema(json), &schema(cbor));
    let both = |name: &str| forms(name, name);
    let (request, response) = match endpoint {
        Endpoint::Push => (Some(forms("PushRequest", "CborPushRequest")), both("PushResponse")),
        Endpoint::PushBatch => (Some(forms("BatchRequest", "CborBatchRequest")), both("BatchResponse")),
        Endpoint::Pull => (Some(both("PullRequest")), forms("PullResponse", "CborPullResponse")),
        Endpoint::Ack => (Some(both("AckRequest")), both("AckResponse")),
        Endpoint::Purge => (Some(both("PurgeRequest")), both("AckResponse")),
        Endpoint::Stream => (Some(both("StreamRequest")), events_content()),
        Endpoint::Health => (None, both("HealthResponse")),
        Endpoint::Ready => (None, both("ReadyResponse")),
        Endpoint::Info => (None, both("InfoResponse")),
        Endpoint::Stats => (None, both("StatsResponse")),
        Endpoint::OpenApi => (None, json!({"application/json": {"schema": {"type": "object"}}})),
    };
    let statuses: &[u16] = match endpoint {
        Endpoint::Push => &[401, 409, 413, 415, 429, 507],
        Endpoint::PushBatch | Endpoint::Pull | Endpoint::Ack | Endpoint::Purge | Endpoint::Stream => {
            &[401, 413, 415, 429, 507]
        }
        Endpoint::Health | Endpoint::Ready => &[],
        Endpoint::Info => &[429],
        Endpoint::Stats | Endpoint::OpenApi => &[404, 429],
    };
    OperationDoc { name, summary, description, request, response, statuses }
}

/// The name, summary and description of an endpoint.
const fn texts(endpoint: Endpoint) -> (&'static str, &'static str, &'static str) {
    match endpoint {
        Endpoint::Push => (
            "push",
            "Push an item to a queue",
            "The response follows when the item is on disk. Idempotent: after a timeout or a 5xx, send it again.",
        ),
        Endpoint::PushBatch => (
            "push_batch",
            "Push several items",
            "Items of one recipient arrive in the order of the request. Each item has its own result: that of a push, or an error, which does not affect the others. The response follows when all stored items are on disk. Idempotent: after a timeout or a 5xx, send it again.",
        ),
        Endpoint::Pull => ("pull", "Read a page of a queue", "Removes nothing. An unknown queue is empty."),
        Endpoint::Ack => (
            "ack",
            "Remove items from a queue",
            "Removes all of the items or none; of more than 1,024 items, an error may come after some. The response follows when that is on disk. Idempotent: after an error, send it again.",
        ),
        Endpoint::Purge => (
            "purge",
            "Remove all items of a queue",
            "Removes what the queue holds when the request is decided. Their ids are remembered as those of acked items. The response follows when that is on disk. Idempotent: after an error, send it again.",
        ),
        Endpoint::Stream => (
            "stream",
            "Follow a queue",
            "The response goes on with the items of the queue as they arrive: one event on each line, server-sent events if `Accept` names `text/event-stream`, or a sequence of CBOR values (RFC 8742) if it names `application/cbor` or `application/cbor-seq`. Removes nothing. After the end, continue with the last `next_cursor`.",
        ),
        Endpoint::Health => ("health", "Whether the process serves", "Never rate-limited."),
        Endpoint::Ready => (
            "ready",
            "Whether the relay is ready for requests",
            "Never rate-limited. With 503 `not_ready`, `details.reason` has the reason.",
        ),
        Endpoint::Info => (
            "info",
            "What this relay can do",
            "Its features and limits, and its clock. A relay without this path has none of the features.",
        ),
        Endpoint::Stats => (
            "stats",
            "The counters since the start",
            "`push_total` = `push_stored` + `duplicates` + `push_failed` while no push is in progress.",
        ),
        Endpoint::OpenApi => (
            "openapi",
            "This document",
            "It is the same for every relay of this version, whatever its configuration.",
        ),
    }
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A body in both formats, with these schemas.
fn content_of(in_json: &Value, in_cbor: &Value) -> Value {
    json!({Format::Json.content_type(): {"schema": in_json}, Format::Cbor.content_type(): {"schema": in_cbor}})
}

/// Of a stream, the schema describes one event.
fn events_content() -> Value {
    let formats = [EventFormat::Ndjson, EventFormat::Sse, EventFormat::CborSequence];
    let content = formats.map(|format| {
        let name = match format.format() {
            Format::Json => "StreamEvent",
            Format::Cbor => "CborStreamEvent",
        };
        (format.content_type().to_owned(), json!({"schema": schema(name)}))
    });
    content.into_iter().collect::<Map<_, _>>().into()
}

fn content_encoding() -> Value {
    json!({
        "name": "Content-Encoding",
        "in": "header",
        "description": "The encoding of the body. Any other value gets 415.",
        "schema": {"type": "string", "enum": ["identity", "gzip"], "default": "identity"},
    })
}

/// The object without its null fields.
fn without_null(object: Value) -> Value {
    let Value::Object(fields) = object else { return object };
    fields.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into()
}
