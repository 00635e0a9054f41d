//! What a request does with a queue.

use serde::Deserialize;

/// What a request does with a queue. The words are those of the claim `ops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Operation {
    /// Puts an item into the queue.
    Push,
    /// Reads the queue.
    Pull,
    /// Removes items from the queue.
    Ack,
}
