//! Keeps the files of a store from being deleted while somebody reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As long as there is one, no file of the store is removed.
pub(crate) struct Pin(Arc<AtomicUsize>);

impl Pin {
    pub(crate) fn new(pins: &Arc<AtomicUsize>) -> Self {
        pins.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(pins))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
