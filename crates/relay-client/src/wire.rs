//! The JSON of the API: what the client writes, and what it reads. Pure functions. Unknown fields
//! are ignored.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Refusal, excerpt};

/// The most chunks that a message may have.
pub(crate) const CHUNKS_MAX: u64 = 65_536;

/// The longest kind. Relays refuse longer ones.
const KIND_BYTES_MAX: usize = 64;

/// What a relay can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Its version; empty for relays before 0.1, which have none of the features.
    pub version: String,
    /// Its clock when it answered, in milliseconds since 1970; 0 for relays before 0.1.
    pub server_ms: u64,
    /// What a client may use beside push, pull and ack, such as `batch`.
    pub features: Vec<String>,
    /// Its limits by their names in docs/api.md, such as `message_bytes`.
    pub limits: BTreeMap<String, u64>,
}

impl Info {
    /// Whether the relay has a feature.
    #[must_use]
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|other| other == feature)
    }

    /// A limit as a number of items or bytes in memory.
    pub(crate) fn limit(&self, name: &str) -> Option<usize> {
        let limit = self.limits.get(name)?;
        Some(usize::try_from(*limit).unwrap_or(usize::MAX))
    }
}

/// A page of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The items, in the order of arrival.
    pub items: Vec<Item>,
    /// Where the next page begins. `None`: nothing follows.
    pub next_cursor: Option<String>,
    /// How many items follow this page.
    pub remaining: u64,
}

/// One chunk of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The id of the message.
    pub message_id: Uuid,
    /// The payload of the chunk.
    pub payload: Bytes,
    /// The kind of the message, such as `opaque`; empty if it is over 64 bytes.
    pub kind: String,
    /// The length of the whole message in bytes, as the sender states it.
    pub total_len: u64,
    /// The index of this chunk, from 0.
    pub chunk_index: u64,
    /// How many chunks the message has; 0 if its kind is too long.
    pub chunk_count: u64,
    /// When it was sent, as the sender states it, in milliseconds since 1970.
    pub sent_ms: u64,
    /// When the relay accepted it, in milliseconds since 1970.
    pub arrival_ms: u64,
    /// When it expires, in milliseconds since 1970; 0 if the relay does not say.
    pub deadline_ms: u64,
}

/// The outcome of an ack or a purge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Acked {
    /// How many items the relay deleted.
    pub deleted: u64,
    /// How many entries were not in the queue.
    #[serde(default)]
    pub missing: u64,
    /// How many items the queue has left.
    #[serde(default)]
    pub remaining: u64,
}

/// One item of a push.
#[derive(Serialize)]
pub(crate) struct PushItem<'a> {
    pub(crate) recipient: &'a str,
    pub(crate) message_id: String,
    pub(crate) ciphertext_b64: String,
    pub(crate) meta: Meta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proof: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttl_seconds: Option<u64>,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct Meta<'a> {
    pub(crate) kind: Cow<'a, str>,
    pub(crate) total_len: u64,
    pub(crate) chunk_index: u64,
    pub(crate) chunk_count: u64,
    pub(crate) sent_ms: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct PullBody<'a> {
    pub(crate) recipient: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wait_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tail: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keepalive_ms: Option<u64>,
}

#[derive(Serialize)]
pub(crate) struct AckBody<'a> {
    pub(crate) recipient: &'a str,
    pub(crate) ack: Vec<AckEntry>,
}

/// One item to ack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AckEntry {
    pub(crate) message_id: String,
    pub(crate) chunk_index: u64,
}

/// The response to the push of one item, alone or in a batch.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct PushAnswer {
    pub(crate) stored: bool,
    #[serde(default)]
    pub(crate) conflict: bool,
}

/// One event of a stream.
#[derive(Debug)]
pub(crate) enum Event {
    Page(Page),
    Idle,
    /// The relay ends the stream.
    Bye(String),
}

#[derive(Deserialize)]
struct WireInfo {
    version: String,
    #[serde(default)]
    server_ms: u64,
    features: Vec<String>,
    #[serde(default)]
    limits: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct WirePage<'a> {
    #[serde(borrow)]
    items: Vec<WireItem<'a>>,
    #[serde(default)]
    next_cursor: Option<String>,
    #[serde(default)]
    remaining_estimate: u64,
}

#[derive(Deserialize)]
struct WireItem<'a> {
    #[serde(borrow)]
    message_id: Cow<'a, str>,
    #[serde(borrow)]
    ciphertext_b64: Cow<'a, str>,
    #[serde(borrow)]
    meta: Meta<'a>,
    #[serde(default)]
    arrival_ms: u64,
    #[serde(default)]
    deadline_ms: u64,
}

#[derive(Deserialize)]
struct WireEvent<'a> {
    #[serde(borrow, default)]
    items: Option<Vec<WireItem<'a>>>,
    #[serde(default)]
    next_cursor: Option<String>,
    #[serde(default)]
    remaining_estimate: u64,
    #[serde(default)]
    bye: Option<String>,
}

#[derive(Deserialize)]
struct WireResults {
    results: Vec<WireResult>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireResult {
    Refused { error: WireError },
    Stored(PushAnswer),
}

#[derive(Deserialize)]
struct WireRefusal {
    error: WireError,
}

#[derive(Deserialize)]
struct WireError {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Details,
}

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    server_ms: Option<u64>,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

pub(crate) fn info(body: &[u8]) -> Result<Info, Error> {
    let WireInfo { version, server_ms, features, limits } = json(body)?;
    let limits = limits.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?))).collect();
    Ok(Info { version, server_ms, features, limits })
}

pub(crate) fn page(body: &[u8]) -> Result<Page, Error> {
    let WirePage { items, next_cursor, remaining_estimate } = json(body)?;
    let items = items.into_iter().map(item).collect::<Result<_, _>>()?;
    Ok(Page { items, next_cursor, remaining: remaining_estimate })
}

/// One line of a stream.
pub(crate) fn event(line: &[u8]) -> Result<Event, Error> {
    let WireEvent { items, next_cursor, remaining_estimate, bye } = json(line)?;
    match (bye, items) {
        (Some(bye), _) => Ok(Event::Bye(excerpt(&bye))),
        (None, None) => Ok(Event::Idle),
        (None, Some(items)) => {
            let items = items.into_iter().map(item).collect::<Result<_, _>>()?;
            Ok(Event::Page(Page { items, next_cursor, remaining: remaining_estimate }))
        }
    }
}

/// The results of a batch of `count` items.
pub(crate) fn results(body: &[u8], count: usize) -> Result<Vec<Result<PushAnswer, Error>>, Error> {
    let WireResults { results } = json(body)?;
    if results.len() != count {
        return Err(Error::BrokenAnswer(format!("{} results for {count} items", results.len())));
    }
    let result = |result| match result {
        WireResult::Stored(answer) => Ok(answer),
        WireResult::Refused { error } => Err(refused(0, error, None)),
    };
    Ok(results.into_iter().map(result).collect())
}

/// An error response. `retry_after` is what its head says.
pub(crate) fn refusal(status: u16, body: &[u8], retry_after: Option<Duration>) -> Error {
    let error = match serde_json::from_slice(body) {
        Ok(WireRefusal { error }) => error,
        // Something in front of the relay answered.
        Err(_) => WireError {
            code: format!("http_{status}"),
            message: "the answer is not one of a relay".to_owned(),
            details: Details::default(),
        },
    };
    refused(status, error, retry_after)
}

fn refused(status: u16, error: WireError, retry_after: Option<Duration>) -> Error {
    let WireError { code, message, details } = error;
    Error::Refused(Box::new(Refusal {
        status,
        code: excerpt(&code),
        message: excerpt(&message),
        reason: details.reason.as_deref().map(excerpt),
        field: details.field.as_deref().map(excerpt),
        server_ms: details.server_ms,
        retry_after: details.retry_after_ms.map(Duration::from_millis).or(retry_after),
    }))
}

fn item(item: WireItem<'_>) -> Result<Item, Error> {
    let WireItem { message_id, ciphertext_b64, meta, arrival_ms, deadline_ms } = item;
    // Relays of the first version store such. A message of no chunks is skipped as malformed.
    let is_kind_long = meta.kind.len() > KIND_BYTES_MAX;
    Ok(Item {
        message_id: Uuid::parse_str(&message_id).map_err(|error| Error::broken(&error))?,
        payload: STANDARD.decode(&*ciphertext_b64).map_err(|error| Error::broken(&error))?.into(),
        kind: if is_kind_long { String::new() } else { meta.kind.into_owned() },
        total_len: meta.total_len,
        chunk_index: meta.chunk_index,
        chunk_count: if is_kind_long { 0 } else { meta.chunk_count },
        sent_ms: meta.sent_ms,
        arrival_ms,
        deadline_ms,
    })
}

/// Reads JSON.
pub(crate) fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::broken(&error))
}

/// Writes JSON.
pub(crate) fn write(value: &impl Serialize) -> Result<Bytes, Error> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::Options(error.to_string()))?;
    Ok(bytes.into())
}

/// The text of a payload in JSON.
pub(crate) fn encoded(payload: &[u8]) -> String {
    STANDARD.encode(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_relay_says_of_an_error_is_short_and_commands_no_terminal() {
        let long = "\u{1b}[2J".repeat(200);
        let details = serde_json::json!({"reason": long, "field": long});
        let body = serde_json::json!({"error": {"code": long, "message": long, "details": details}});
        let error = refusal(403, body.to_string().as_bytes(), None);
        let Some(Refusal { code, message, reason, field, .. }) = error.refusal().cloned() else { panic!() };
        for text in [Some(code), Some(message), reason, field] {
            assert_eq!(text, Some(excerpt(&long)));
        }
    }

    #[test]
    fn a_kind_that_is_too_long_is_forgotten_and_its_item_malformed() {
        let page_of = |kind: String| {
            let meta = serde_json::json!({"kind": kind, "total_len": 0, "chunk_index": 0, "chunk_count": 1, "sent_ms": 0});
            let item = serde_json::json!({"message_id": Uuid::nil().to_string(), "ciphertext_b64": "", "meta": meta});
            page(serde_json::json!({"items": [item]}).to_string().as_bytes())
        };
        assert_eq!(page_of("k".repeat(64)).unwrap().items[0].kind.len(), 64);
        let long = &page_of("k".repeat(65)).unwrap().items[0];
        assert_eq!((&*long.kind, long.chunk_count), ("", 0));
    }
}
