//! The paths, and what each of them takes and answers.

use serde_json::{Map, Value, json};

use super::responses;
use crate::api::endpoint::Endpoint;

/// What is said of an endpoint.
struct About {
    name: &'static str,
    summary: &'static str,
    description: &'static str,
    /// The schema of the body, if it takes one.
    request: Option<&'static str>,
    /// The schema of its answer.
    answer: Value,
    /// The statuses that only some endpoints answer with; [`ALWAYS`] are not among them.
    statuses: &'static [u16],
}

/// A request can always be broken, too large or too slow, come from another site's page, meet a
/// fault, or come while the relay is stopping.
const ALWAYS: [u16; 6] = [400, 403, 408, 431, 500, 503];

/// All paths.
pub(super) fn paths() -> Map<String, Value> {
    Endpoint::ALL.into_iter().map(|endpoint| (endpoint.path().to_owned(), path(endpoint))).collect()
}

fn path(endpoint: Endpoint) -> Value {
    let about = about(endpoint);
    // What may be done everywhere is not told again for each path.
    let methods = endpoint.allow().split(", ").filter(|method| *method != "OPTIONS");
    methods.map(|method| (method.to_ascii_lowercase(), about.operation(method))).collect::<Map<_, _>>().into()
}

impl About {
    fn operation(&self, method: &str) -> Value {
        let (has_body, name) = (method != "HEAD", self.name);
        let mut answers = Map::new();
        let content = has_body.then(|| json!({"application/json": {"schema": self.answer}}));
        answers
            .insert("200".to_owned(), without_null(json!({"description": self.summary, "content": content})));
        for status in ALWAYS.iter().chain(self.statuses) {
            answers.insert(status.to_string(), json!({"$ref": responses::reference(*status)}));
        }
        let body = self.request.map(|schema| {
            json!({
                "description": "It may be sent with `Content-Encoding: gzip`; all limits count the unpacked bytes.",
                "required": true,
                "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}},
            })
        });
        without_null(json!({
            "operationId": if has_body { name.to_owned() } else { format!("{name}_head") },
            "summary": self.summary,
            "description": self.description,
            "parameters": self.request.map(|_| [content_encoding()]),
            "requestBody": body,
            "responses": answers,
        }))
    }
}

fn about(endpoint: Endpoint) -> About {
    match endpoint {
        Endpoint::Push => About {
            name: "push",
            summary: "Put an item into a queue",
            description: "Answered once the item is on disk. Idempotent: after a timeout or a 5xx, send it again.",
            request: Some("PushRequest"),
            answer: schema("PushResponse"),
            statuses: &[401, 409, 413, 415, 429, 507],
        },
        Endpoint::Pull => About {
            name: "pull",
            summary: "Look at a page of a queue",
            description: "Removes nothing. An unknown recipient has an empty queue.",
            request: Some("PullRequest"),
            answer: schema("PullResponse"),
            statuses: &[401, 413, 415, 429, 507],
        },
        Endpoint::Ack => About {
            name: "ack",
            summary: "Take items out of a queue",
            description: "Answered once it is on disk: all of the items or none. Idempotent.",
            request: Some("AckRequest"),
            answer: schema("AckResponse"),
            statuses: &[401, 413, 415, 429, 507],
        },
        Endpoint::Health => About {
            name: "health",
            summary: "Whether the process serves",
            description: "Never rate-limited.",
            request: None,
            answer: schema("HealthResponse"),
            statuses: &[],
        },
        Endpoint::Ready => About {
            name: "ready",
            summary: "Whether requests are worth sending",
            description: "Never rate-limited. With 503 `not_ready`, `details.reason` says why not.",
            request: None,
            answer: schema("ReadyResponse"),
            statuses: &[],
        },
        Endpoint::Stats => About {
            name: "stats",
            summary: "The counters since the start",
            description: "`push_total` = `push_stored` + `duplicates` + `push_failed` once no push is under way.",
            request: None,
            answer: schema("StatsResponse"),
            statuses: &[404, 429],
        },
        Endpoint::OpenApi => About {
            name: "openapi",
            summary: "This document",
            description: "It is the same for every relay of this version, whatever its configuration.",
            request: None,
            answer: json!({"type": "object"}),
            statuses: &[404, 429],
        },
    }
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn content_encoding() -> Value {
    json!({
        "name": "Content-Encoding",
        "in": "header",
        "description": "How the body is encoded. Anything else is answered 415.",
        "schema": {"type": "string", "enum": ["identity", "gzip"], "default": "identity"},
    })
}

/// The object without what is null.
fn without_null(object: Value) -> Value {
    let Value::Object(fields) = object else { return object };
    fields.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into()
}
