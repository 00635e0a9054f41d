//! What can go wrong: a [`Rejection`] is the caller's doing, every other [`Error`] is ours.
//!
//! A duplicate, an ack of something unknown and an empty page are outcomes and not here.

use std::fmt;
use std::time::Duration;

/// A request that is refused for what it asks. Nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A field has a value that it cannot have.
    #[error("{field}: {reason}")]
    InvalidInput {
        /// The name of the field.
        field: &'static str,
        /// What is wrong with it and what is allowed, for a person.
        reason: String,
    },
    /// The caller did not say who it is. No rule of this crate says so: it is for a
    /// [`Relay`](crate::Relay) that stands in front of another one and guards it.
    #[error("authentication is required")]
    Unauthorized,
    /// The caller may not do this. As [`Rejection::Unauthorized`], for a guarding relay.
    #[error("this is not allowed")]
    Forbidden,
    /// The payload is larger than one item may be.
    #[error("the payload is larger than {limit} bytes")]
    MessageTooLarge {
        /// The largest payload that is accepted, in bytes.
        limit: u64,
    },
    /// The recipient's queue has no room for the item.
    #[error("the recipient's queue is full by {reason}: {used} of {limit} used")]
    QuotaExceeded {
        /// Which of the two quotas is exhausted.
        reason: QuotaKind,
        /// The quota, in items or bytes.
        limit: u64,
        /// What the queue holds now, in items or bytes.
        used: u64,
    },
}

/// The two quotas of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaKind {
    /// The number of items.
    Count,
    /// The sum of their payloads.
    Bytes,
}

/// Why a relay did not do what it was asked to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request was refused; nothing was changed by it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The store failed. A write that gets this answer may or may not be there after a restart; it
    /// is safe to repeat.
    #[error("the store failed")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no space left to store anything. Pulls go on.
    #[error("there is no space left to store the message")]
    StorageFull,
    /// More work is waiting than the relay is willing to hold; nothing was done.
    #[error("too much work is waiting")]
    Overloaded {
        /// When a retry makes sense.
        retry_after: Duration,
    },
    /// The relay is still getting ready; nothing was done.
    #[error("the relay is not ready yet")]
    NotReady {
        /// When a retry makes sense.
        retry_after: Duration,
    },
}

impl Rejection {
    /// An [`InvalidInput`](Rejection::InvalidInput) for `field`.
    pub fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidInput { field, reason: reason.into() }
    }
}

impl Error {
    /// Wraps what a store reports.
    pub fn storage(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Storage(Box::new(source))
    }
}

impl QuotaKind {
    /// The name that stands on the wire: `count` or `bytes`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
        }
    }
}

impl fmt::Display for QuotaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
