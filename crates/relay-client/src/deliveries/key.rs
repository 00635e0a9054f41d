//! What makes chunks parts of the same message.

use std::sync::Arc;

use uuid::Uuid;

use crate::wire::{CHUNKS_MAX, Item};

/// Identifies a message. Chunks that differ in any of this belong to different messages, whoever
/// sent them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MessageKey {
    pub(crate) message_id: Uuid,
    pub(crate) chunk_count: u64,
    total_len: u64,
    kind: Arc<str>,
}

impl MessageKey {
    pub(crate) fn of(item: &Item) -> Self {
        Self {
            message_id: item.message_id,
            chunk_count: item.chunk_count,
            total_len: item.total_len,
            kind: item.kind.as_str().into(),
        }
    }

    /// Whether an item can be a part of a message at all.
    pub(crate) fn is_sound(item: &Item) -> bool {
        (1..=CHUNKS_MAX).contains(&item.chunk_count) && item.chunk_index < item.chunk_count
    }
}
