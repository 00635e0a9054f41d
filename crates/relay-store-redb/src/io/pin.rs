//! Prevents the deletion of files that somebody still reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// While a pin exists, the maintenance thread deletes no file of the store.
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
