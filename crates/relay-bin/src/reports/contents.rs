//! What a store holds.

use relay_core::Usage;
use relay_store_redb::Contents;
use serde::{Deserialize, Serialize};

/// What a store holds, with expired items that are not removed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContentsReport {
    /// Those with items, and those that remember acked item ids.
    pub(crate) queues: u64,
    pub(crate) items: u64,
    pub(crate) payload_bytes: u64,
    /// Acked item ids that are remembered.
    pub(crate) acked_names: u64,
}

impl From<Contents> for ContentsReport {
    fn from(contents: Contents) -> Self {
        Self::new(contents.queues, contents.usage, contents.acked)
    }
}

impl ContentsReport {
    pub(crate) const fn new(queues: u64, usage: Usage, acked_names: u64) -> Self {
        Self { queues, items: usage.items, payload_bytes: usage.bytes, acked_names }
    }
}
