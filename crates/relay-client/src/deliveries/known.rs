//! The messages that were handed out or acked, in bounded memory: what comes again is not handed
//! out again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::key::MessageKey;
use super::recent::Recent;

/// Shared by deliveries and their acks.
#[derive(Debug)]
pub(crate) struct Known {
    messages: Mutex<Messages>,
    has_room: Notify,
    unacked_max: usize,
    memory_bytes: usize,
}

#[derive(Debug, Default)]
struct Messages {
    /// Handed out and not acked, with their payload bytes while those are in memory.
    unacked: HashMap<MessageKey, usize>,
    unacked_bytes: usize,
    acked: Recent<()>,
}

/// What is known of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    New,
    /// It was handed out.
    Unacked,
    /// It was acked lately.
    Acked,
}

impl Known {
    pub(crate) fn new(unacked_max: usize, memory_bytes: usize) -> Self {
        Self { messages: Mutex::default(), has_room: Notify::new(), unacked_max, memory_bytes }
    }

    pub(crate) fn state(&self, key: &MessageKey) -> State {
        self.with(|messages| {
            if messages.unacked.contains_key(key) {
                State::Unacked
            } else if messages.acked.get(key).is_some() {
                State::Acked
            } else {
                State::New
            }
        })
    }

    pub(crate) fn hand_out(&self, key: &MessageKey, payload_bytes: usize) {
        self.with(|messages| {
            if messages.unacked.insert(key.clone(), payload_bytes).is_none() {
                messages.unacked_bytes += payload_bytes;
            }
        });
    }

    pub(crate) fn ack(&self, key: &MessageKey) {
        self.with(|messages| {
            if let Some(payload_bytes) = messages.unacked.remove(key) {
                messages.unacked_bytes -= payload_bytes;
            }
            messages.acked.insert(key, ());
        });
        self.has_room.notify_one();
    }

    /// The payload of a message is no longer in memory, whether it is acked or not.
    pub(crate) fn release(&self, key: &MessageKey) {
        self.with(|messages| {
            if let Some(payload_bytes) = messages.unacked.get_mut(key) {
                messages.unacked_bytes -= std::mem::take(payload_bytes);
            }
        });
        self.has_room.notify_one();
    }

    pub(crate) fn has_room(&self) -> bool {
        self.with(|messages| {
            messages.unacked.len() <= self.unacked_max && messages.unacked_bytes <= self.memory_bytes
        })
    }

    /// Waits until enough messages are acked.
    pub(crate) async fn wait_for_room(&self) {
        while !self.has_room() {
            self.has_room.notified().await;
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Messages) -> T) -> T {
        act(&mut self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::super::recent::REMEMBERED_MAX;
    use super::*;
    use crate::wire::Item;

    fn key(id: u128) -> MessageKey {
        MessageKey::of(&Item {
            message_id: Uuid::from_u128(id),
            payload: Bytes::new(),
            kind: "opaque".to_owned(),
            total_len: 0,
            chunk_index: 0,
            chunk_count: 1,
            sent_ms: 0,
            arrival_ms: 0,
            deadline_ms: 0,
        })
    }

    #[test]
    fn room_is_a_matter_of_messages_and_bytes() {
        let known = Known::new(2, 100);
        for id in 0..2 {
            known.hand_out(&key(id), 10);
        }
        assert!(known.has_room());
        known.hand_out(&key(2), 10);
        assert!(!known.has_room(), "three messages");
        known.ack(&key(2));
        assert!(known.has_room());
        known.ack(&key(1));
        known.hand_out(&key(3), 91);
        assert!(!known.has_room(), "101 bytes");
        known.release(&key(3));
        known.release(&key(3));
        assert!(known.has_room() && known.state(&key(3)) == State::Unacked);
        known.ack(&key(3));
        known.ack(&key(0));
        assert_eq!(known.with(|messages| (messages.unacked.len(), messages.unacked_bytes)), (0, 0));
    }

    #[test]
    fn only_the_last_acked_ones_are_remembered() {
        let known = Known::new(10, 10);
        for id in 0..5000 {
            known.hand_out(&key(id), 0);
            known.ack(&key(id));
            known.ack(&key(id));
        }
        let states = [4999, 904, 903].map(|id| known.state(&key(id)));
        assert_eq!(states, [State::Acked, State::Acked, State::New]);
        assert_eq!(known.with(|messages| messages.acked.len()), REMEMBERED_MAX);
    }
}
