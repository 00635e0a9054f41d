//! What clients have to know of this relay.

use relay_core::{Ack, Kind, Limits, Recipient};

use crate::api::limits::BATCH_ITEMS_MAX;
use crate::api::{InfoLimits, InfoResponse};
use crate::options::Options;

/// Waiting pulls, if the options allow them.
const WAIT: &str = "wait";

/// Cursors of last pages, `/stream`, `/push/batch`, proofs in items, `ttl_seconds`, `ack_before`,
/// `/purge`, and bodies in CBOR.
const FEATURES: [&str; 8] = ["tail", "stream", "batch", "item_proof", "ttl", "ack_before", "purge", "cbor"];

/// The features and limits of a relay with these options, at `server_ms`.
pub(super) fn info(options: &Options, server_ms: u64) -> InfoResponse {
    let Limits {
        message_bytes_max,
        queue_bytes_max,
        queue_items_max,
        ttl_ms,
        page_items_max,
        page_bytes_max,
        dedup_window_ms,
    } = options.limits;
    let limits = InfoLimits {
        recipient_bytes: Recipient::BYTES_MAX as u64,
        kind_bytes: Kind::BYTES_MAX as u64,
        message_bytes: message_bytes_max,
        queue_items: queue_items_max,
        queue_bytes: queue_bytes_max,
        batch_items: BATCH_ITEMS_MAX as u64,
        batch_bytes: options.batch_bytes_max,
        ack_items: Ack::ITEMS_MAX as u64,
        page_items: page_items_max,
        page_bytes: page_bytes_max,
        ttl_seconds: ttl_ms / 1000,
        dedup_window_seconds: dedup_window_ms / 1000,
        wait_ms: u64::try_from(options.pull_wait_max.as_millis()).unwrap_or(u64::MAX),
    };
    let wait = (limits.wait_ms > 0).then_some(WAIT);
    let features = wait.into_iter().chain(FEATURES).collect();
    InfoResponse { version: env!("CARGO_PKG_VERSION"), server_ms, features, limits }
}
