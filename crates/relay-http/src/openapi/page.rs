//! Describes the responses that are written without types, or with others: to a pull, to a batch of
//! pushes, and the events of a stream. These types exist for the document only. Tests compare them
//! with actual responses.

use utoipa::ToSchema;

/// A page of a queue, in arrival order. Nothing was removed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct PullResponse {
    /// The items. Their payloads together have at most `relay.pull_bytes_max` bytes, unless there
    /// is only one.
    items: Vec<Item>,
    /// The start of the next page; null at the end of the queue. It is opaque: encrypted, bound to
    /// the recipient, and valid as long as the relay keeps its key.
    #[schema(required)]
    next_cursor: Option<String>,
    /// The exact number of items after this page.
    remaining_estimate: u64,
}

/// The results of a batch, in the order of its items.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct BatchResponse {
    results: Vec<BatchResult>,
}

/// The result of one item: the fields of the response to a push, or an error.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct BatchResult {
    /// Whether the item was added to its queue. It is then durable.
    #[schema(nullable = false)]
    stored: Option<bool>,
    /// As in the response to a push.
    #[schema(nullable = false)]
    duplicate: Option<bool>,
    /// As in the response to a push.
    #[schema(nullable = false)]
    conflict: Option<bool>,
    /// As in the response to a push.
    #[schema(nullable = false)]
    queue_len: Option<u64>,
    /// As in the response to a push.
    #[schema(nullable = false)]
    queue_bytes: Option<u64>,
    /// As in the response to a push.
    #[schema(nullable = false)]
    deadline_ms: Option<u64>,
    #[schema(nullable = false)]
    error: Option<ItemError>,
}

/// Why an item was refused: code, message and details of the error response that a push of it would
/// get.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct ItemError {
    code: String,
    message: String,
    #[schema(value_type = Object, nullable = false)]
    details: Option<()>,
}

/// A page of a queue, in arrival order, as CBOR. Nothing was removed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct CborPullResponse {
    /// The items, as in JSON.
    items: Vec<CborItem>,
    /// The start of the next page, as in JSON; null at the end of the queue.
    #[schema(required)]
    next_cursor: Option<String>,
    /// The exact number of items after this page.
    remaining_estimate: u64,
}

/// One event of a stream, as CBOR: a page of items, a sign of life, or the end.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct CborStreamEvent {
    /// The next items of the queue, as in the response to a pull.
    #[schema(nullable = false)]
    items: Option<Vec<CborItem>>,
    /// The cursor after these items, for the next stream or pull.
    #[schema(nullable = false)]
    next_cursor: Option<String>,
    /// The exact number of items that follow at this moment.
    #[schema(nullable = false)]
    remaining_estimate: Option<u64>,
    /// As in JSON.
    #[schema(nullable = false)]
    idle: Option<bool>,
    /// As in JSON.
    #[schema(nullable = false)]
    bye: Option<Bye>,
}

/// One event of a stream: a page of items, a sign of life, or the end.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct StreamEvent {
    /// The next items of the queue, as in the response to a pull.
    #[schema(nullable = false)]
    items: Option<Vec<Item>>,
    /// The cursor after these items, for the next stream or pull.
    #[schema(nullable = false)]
    next_cursor: Option<String>,
    /// The exact number of items that follow at this moment.
    #[schema(nullable = false)]
    remaining_estimate: Option<u64>,
    /// Always true: there was no item for as long as `keepalive_ms`.
    #[schema(nullable = false)]
    idle: Option<bool>,
    /// Why this is the last event: the relay shuts down (`draining`), the stream is as old as a
    /// connection may become (`age`), the proof no longer opens the queue (`proof_expired`), or the
    /// relay could not read the queue (`error`).
    #[schema(nullable = false)]
    bye: Option<Bye>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its schema is used")]
enum Bye {
    Draining,
    Age,
    ProofExpired,
    Error,
}

/// An item of a queue.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Item {
    /// The recipient of the queue.
    recipient: String,
    /// A UUID, hyphenated and in lower case.
    #[schema(format = "uuid")]
    message_id: String,
    /// The payload in standard base64 with padding.
    #[schema(format = "byte")]
    ciphertext_b64: String,
    meta: ItemMeta,
    /// When the relay accepted the push, in ms since 1970.
    arrival_ms: u64,
    /// When the item expires, in ms since 1970.
    deadline_ms: u64,
}

/// An item of a queue, as CBOR.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct CborItem {
    /// The recipient of the queue.
    recipient: String,
    /// A UUID, hyphenated and in lower case. It is a text string.
    #[schema(format = "uuid")]
    message_id: String,
    /// The payload, as a byte string.
    #[schema(format = "binary")]
    ciphertext: String,
    meta: ItemMeta,
    /// When the relay accepted the push, in ms since 1970.
    arrival_ms: u64,
    /// When the item expires, in ms since 1970.
    deadline_ms: u64,
}

/// The document describes this type under the name of the original.
type ItemMeta = crate::api::Meta<'static>;
