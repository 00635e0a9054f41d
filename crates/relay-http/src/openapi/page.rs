//! Describes the response to a pull. [`api::page`](crate::api) writes it without types, so these
//! types exist for the document only. A test compares the two.

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

/// The document describes this type under the name of the original.
type ItemMeta = crate::api::Meta<'static>;
