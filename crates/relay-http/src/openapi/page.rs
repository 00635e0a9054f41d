//! The answer to a pull, as the document shows it. It is written by hand, in
//! [`api::page`](crate::api), so no type of it is there to be described; a test holds the two
//! together.

use utoipa::ToSchema;

/// A page of a queue, in arrival order. Nothing was removed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is described, and never made")]
pub(super) struct PullResponse {
    /// The items. Together they have at most `relay.pull_bytes_max` payload bytes, unless there is
    /// only one.
    items: Vec<Item>,
    /// Where the next page begins; null when nothing follows. Opaque: it is encrypted, bound to the
    /// recipient, and valid for as long as the relay keeps its key.
    #[schema(required)]
    next_cursor: Option<String>,
    /// How many items follow this page; exact.
    remaining_estimate: u64,
}

/// An item of a queue.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is described, and never made")]
pub(super) struct Item {
    /// The queue.
    recipient: String,
    /// A UUID, hyphenated and in lower case.
    #[schema(format = "uuid")]
    message_id: String,
    /// The payload in standard base64 with padding.
    #[schema(format = "byte")]
    ciphertext_b64: String,
    meta: ItemMeta,
    /// When the push was accepted, in ms since 1970.
    arrival_ms: u64,
    /// From when on the item is gone, in ms since 1970.
    deadline_ms: u64,
}

/// Stands for the type of the same name, which the document describes already.
type ItemMeta = crate::api::Meta<'static>;
