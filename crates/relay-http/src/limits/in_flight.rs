//! Counts what is in flight, by guards, and notifies when nothing is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A counter of guards. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<InFlightState>);

#[derive(Debug, Default)]
struct InFlightState {
    count: AtomicUsize,
    emptied: Notify,
}

/// Counted until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlightGuard(InFlight);

impl InFlight {
    /// Adds a guard.
    pub(crate) fn enter(&self) -> InFlightGuard {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        InFlightGuard(self.clone())
    }

    /// The current number of guards.
    pub(crate) fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    /// Resolves when there is no guard.
    pub(crate) async fn empty(&self) {
        loop {
            // Created before the count is read, so that a drop in between is not missed.
            let emptied = self.0.emptied.notified();
            if self.0.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if self.0.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn it_is_empty_after_the_last_guard_is_dropped() {
        let in_flight = InFlight::default();
        assert!(in_flight.empty().now_or_never().is_some());
        let (first, second) = (in_flight.enter(), in_flight.enter());
        assert_eq!(in_flight.count(), 2);
        let mut empty = Box::pin(in_flight.empty());
        assert!(empty.as_mut().now_or_never().is_none());
        drop(first);
        assert!(empty.as_mut().now_or_never().is_none());
        drop(second);
        empty.await;
    }
}
