//! A message as it is handed out.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::acks::Acks;
use super::key::MessageKey;
use super::known::Known;
use crate::error::Error;

/// A message, which stays on the relay until it is acked. One that is dropped without an ack comes
/// again in the next deliveries.
#[non_exhaustive]
pub struct Message {
    /// The id that its sender has given it.
    pub message_id: Uuid,
    /// The kind that its sender has given it, such as `opaque`.
    pub kind: String,
    /// All of its bytes.
    pub payload: Bytes,
    /// When it was sent, as the sender states it, in milliseconds since 1970.
    pub sent_ms: u64,
    /// When its last chunk arrived at the relay, in milliseconds since 1970.
    pub arrival_ms: u64,
    handle: Handle,
}

/// What acks a message. A field of its own, so that an application can move the others out.
struct Handle {
    key: MessageKey,
    acks: Acks,
    known: Arc<Known>,
    acked: OnceCell<()>,
}

/// Without an ack, the message stays known, but its payload no longer counts.
impl Drop for Handle {
    fn drop(&mut self) {
        self.known.release(&self.key);
    }
}

impl Message {
    pub(crate) fn new(
        key: MessageKey,
        kind: String,
        payload: Bytes,
        (sent_ms, arrival_ms): (u64, u64),
        acks: Acks,
        known: Arc<Known>,
    ) -> Self {
        let message_id = key.message_id;
        let handle = Handle { key, acks, known, acked: OnceCell::new() };
        Self { message_id, kind, payload, sent_ms, arrival_ms, handle }
    }

    /// Removes the message from the relay. Acks of several messages go together in one request, so
    /// await them at the same time, or from tasks of their own. Returns once the relay has
    /// confirmed it; failures that may pass are retried until the deliveries are closed. May be
    /// called again.
    ///
    /// # Errors
    /// What the relay refuses; `closed` if the deliveries were closed before.
    pub async fn ack(&self) -> Result<(), Error> {
        let Handle { key, acks, acked, .. } = &self.handle;
        acked.get_or_try_init(|| acks.ack(key.clone())).await.copied()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("message_id", &self.message_id)
            .field("kind", &self.kind)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
