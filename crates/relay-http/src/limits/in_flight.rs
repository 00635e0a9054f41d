//! Counts what is going on right now, and tells when it is over. What is counted is a guard's life,
//! so nothing can be forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many guards there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<InFlightState>);

#[derive(Debug, Default)]
struct InFlightState {
    count: AtomicUsize,
    emptied: Notify,
}

/// Is counted until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlightGuard(InFlight);

impl InFlight {
    /// Counts one more.
    pub(crate) fn enter(&self) -> InFlightGuard {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        InFlightGuard(self.clone())
    }

    /// How many guards there are just now.
    pub(crate) fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    /// Resolves when there is no guard.
    pub(crate) async fn empty(&self) {
        loop {
            // Asked for before the count is read, so that a drop in between is not missed.
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
    async fn it_is_empty_when_the_last_guard_is_gone() {
        let gauge = InFlight::default();
        assert!(gauge.empty().now_or_never().is_some());
        let (first, second) = (gauge.enter(), gauge.enter());
        assert_eq!(gauge.count(), 2);
        let mut empty = Box::pin(gauge.empty());
        assert!(empty.as_mut().now_or_never().is_none());
        drop(first);
        assert!(empty.as_mut().now_or_never().is_none());
        drop(second);
        empty.await;
    }
}
