//! Errors: a [`Rejection`] is the caller's fault, every other [`Error`] is the relay's.
//!
//! A duplicate, an ack of an unknown item and an empty page are outcomes, not errors.

use std::fmt;
use std::time::Duration;

/// Why a relay refuses a request. The request changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A field has an invalid value.
    #[error("{field}: {reason}")]
    InvalidInput {
        /// The name of the field.
        field: &'static str,
        /// What is wrong and what is allowed, for a person.
        reason: String,
    },
    /// The caller is not authenticated. This crate never returns it: it is for a
    /// [`Relay`](crate::Relay) that wraps another one and authorizes its callers.
    #[error("authentication is required")]
    Unauthorized,
    /// The caller may not do this. Like [`Rejection::Unauthorized`], for an authorizing relay.
    #[error("this is not allowed")]
    Forbidden,
    /// The payload exceeds the size limit of one item.
    #[error("the payload is larger than {limit} bytes")]
    MessageTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The recipient's queue has no capacity for the item.
    #[error("the recipient's queue is full by {reason}: {used} of {limit} used")]
    QuotaExceeded {
        /// The exhausted quota.
        reason: QuotaKind,
        /// The quota, in items or bytes.
        limit: u64,
        /// The current usage, in items or bytes.
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

/// Why a relay did not serve a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The relay refused the request, which changed nothing.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The store failed. The write may or may not be there after a restart; it is safe to repeat.
    #[error("the store failed")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no space left for new items. Pulls still work.
    #[error("there is no space left to store the message")]
    StorageFull,
    /// The backlog is full. The request had no effect.
    #[error("too much work is waiting")]
    Overloaded {
        /// How long to wait before a retry.
        retry_after: Duration,
    },
    /// The relay is still starting. The request had no effect.
    #[error("the relay is not ready yet")]
    NotReady {
        /// How long to wait before a retry.
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
    /// Wraps an error of a store.
    pub fn storage(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Storage(Box::new(source))
    }
}

impl QuotaKind {
    /// The word on the wire: `count` or `bytes`.
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
