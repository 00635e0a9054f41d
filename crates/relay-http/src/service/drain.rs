//! Tells requests that wait that the relay is shutting down.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Whether the drain has begun.
#[derive(Debug, Default)]
pub(super) struct Drain {
    has_begun: AtomicBool,
    begun: Notify,
}

impl Drain {
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::SeqCst);
        self.begun.notify_waiters();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::SeqCst)
    }

    /// Resolves when the drain begins.
    pub(super) async fn begun(&self) {
        let begun = self.begun.notified();
        if !self.has_begun() {
            begun.await;
        }
    }
}
