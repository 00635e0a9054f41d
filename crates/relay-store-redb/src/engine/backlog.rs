//! The bound on the bytes of requests that wait for the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The total cost of all waiting requests, in bytes. Each request holds its [`Permit`] until it is
/// answered.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    bytes: AtomicU64,
}

/// A request's share of the [`Backlog`]; released on drop.
pub(crate) struct Permit {
    backlog: Arc<Backlog>,
    bytes: u64,
}

impl Backlog {
    /// Reserves a share. Fails if other requests wait and the sum would exceed `max`.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64, max: u64) -> Option<Permit> {
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let permit = Permit { backlog: Arc::clone(self), bytes };
        (waiting == 0 || waiting.saturating_add(bytes) <= max).then_some(permit)
    }

    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.backlog.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
